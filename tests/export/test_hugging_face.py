"""Language models in transformers: the same tokens, every token taken once."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv import CCNN
from omniconv.export import to_hugging_face
from omniconv.models import Hyena, MultiHyena, Stepper
from omniconv.models.hyena import GatedNetwork
from omniconv.recurrence import Decoder, stream

transformers: Any = pytest.importorskip("transformers")
CACHE: str = pytest.importorskip("omniconv.export._causal_lm").CACHE

TOKENS, NEW = 16, 6
GREEDY: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}


def language_model(kind: str = "Hyena", **options: Any) -> GatedNetwork:
    """A small one whose next token is not the same everywhere, in evaluation mode, in double precision."""
    shape: dict[str, Any] = {"size": 24, "blocks": 2, "tokens": TOKENS, "head": "dense", **options}
    if kind == "Hyena":
        model: GatedNetwork = Hyena(8, TOKENS, width=8, dtype=torch.float64, **shape)
    else:
        model = MultiHyena(8, TOKENS, n_filters=4, head_width=2, dtype=torch.float64, **shape)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter)
    return model.eval()


@pytest.fixture(params=["Hyena", "MultiHyena"])
def model(request: pytest.FixtureRequest) -> GatedNetwork:
    return language_model(request.param)


def prompts(batch: int = 3, length: int = 7) -> Tensor:
    return torch.randint(TOKENS, (batch, length))


def left_padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Ids, with ids that are no tokens where there is padding, and the attention mask."""
    ids = torch.full((len(rows), max(map(len, rows))), TOKENS + 7)
    for own, row in zip(ids, rows, strict=True):
        own[len(own) - len(row) :] = row
    return ids, (ids < TOKENS).long()


def test_greedy_tokens_are_those_of_generate(model: GatedNetwork) -> None:
    ids = prompts()
    written = to_hugging_face(model).generate(ids, **GREEDY)
    assert torch.equal(written[:, :7], ids)
    assert torch.equal(written[:, 7:], model.generate(ids, NEW, temperature=0).ids)
    assert len(set(written[:, 7:].flatten().tolist())) > 3  # not one token over and over


def test_greedy_tokens_without_a_cache_are_the_same(model: GatedNetwork) -> None:
    ids, hugging = prompts(), to_hugging_face(model)
    assert torch.equal(hugging.generate(ids, use_cache=False, **GREEDY), hugging.generate(ids, **GREEDY))


@pytest.mark.parametrize("batch", [None, 3])
def test_a_distilled_stream_writes_what_it_writes_itself(batch: int | None) -> None:
    model, ids = language_model(), prompts()
    streamed = stream(model, order=4)
    hugging = to_hugging_face(streamed if batch is None else Decoder(streamed, batch, state_dtype=torch.float64))
    expected = streamed.generate(ids, NEW, temperature=0).ids
    assert torch.equal(hugging.generate(ids, **GREEDY)[:, 7:], expected)
    plain = hugging(ids, use_cache=False).logits
    torch.testing.assert_close(plain, model(ids).mT)
    assert not torch.allclose(plain, hugging(ids, use_cache=True).logits)  # the recurrence is an approximation


def test_a_prompt_is_run_once_and_every_further_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hugging, taken = to_hugging_face(language_model()), list[tuple[int, ...]]()
    own = Stepper.prefill

    def prefill(self: Stepper, x: Tensor, *args: Any, **options: Any) -> Any:
        taken.append(tuple(x.shape))
        return own(self, x, *args, **options)

    monkeypatch.setattr(Stepper, "prefill", prefill)
    monkeypatch.setattr(Hyena, "forward", lambda *_, **__: pytest.fail("the whole network was run"))
    hugging.generate(prompts(), **GREEDY)
    assert taken == [(3, 7)] + [(3, 1)] * (NEW - 1)
    taken.clear()
    hugging.generate(prompts(), num_beams=2, **GREEDY)
    assert taken == [(6, 7)] + [(6, 1)] * (NEW - 1)
    taken.clear()
    hugging.generate(prompts(), prefill_chunk_size=3, **GREEDY)
    assert taken == [(3, 3), (3, 3), (3, 1)] + [(3, 1)] * (NEW - 1)


def beams_by_full_forwards(model: GatedNetwork, prompt: Tensor, beams: int, steps: int) -> list[tuple[float, Tensor]]:
    """The best continuations, each step of every beam by the network on the whole sequence."""
    found = [(0.0, prompt)]
    for _ in range(steps):
        longer = [
            (score + float(gain), torch.cat([ids, torch.tensor([token])]))
            for score, ids in found
            for token, gain in enumerate(model(ids[None])[0, :, -1].log_softmax(0))
        ]
        found = sorted(longer, key=lambda pair: -pair[0])[:beams]
    return found


def test_beam_search_is_the_one_over_full_forwards(model: GatedNetwork) -> None:
    ids, beams = prompts(batch=2), 4
    found = to_hugging_face(model).generate(
        ids, num_beams=beams, num_return_sequences=beams, return_dict_in_generate=True, output_scores=True, **GREEDY
    )
    with torch.no_grad():
        expected = [pair for prompt in ids for pair in beams_by_full_forwards(model, prompt, beams, NEW)]
    assert torch.equal(found.sequences, torch.stack([sequence for _, sequence in expected]))
    scores = torch.tensor([score for score, _ in expected]) / NEW
    torch.testing.assert_close(found.sequences_scores, scores, atol=1e-5, rtol=1e-5)
    assert (found.beam_indices[:, 1:] != found.beam_indices[:, :-1]).any()  # beams changed places


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("beams", [1, 3])
def test_left_padded_prompts_are_continued_as_each_alone(use_cache: bool, beams: int) -> None:
    hugging, rows = to_hugging_face(language_model()), [prompts(1, length)[0] for length in (7, 4, 1, 4)]
    ids, mask = left_padded(rows)
    how = {"num_beams": beams, **GREEDY}
    together = hugging.generate(ids, attention_mask=mask, use_cache=use_cache, **how)
    for row, own in zip(rows, together, strict=True):
        assert torch.equal(own[7:], hugging.generate(row[None], **how)[0, len(row) :])


def test_left_padded_prompts_may_come_in_pieces_some_of_padding_only() -> None:
    hugging = to_hugging_face(language_model())
    ids, mask = left_padded([prompts(1, length)[0] for length in (7, 3)])
    whole = hugging.generate(ids, attention_mask=mask, **GREEDY)
    assert torch.equal(hugging.generate(ids, attention_mask=mask, prefill_chunk_size=2, **GREEDY), whole)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_logits_of_padded_rows_are_those_of_each_alone(model: GatedNetwork, side: str, use_cache: bool) -> None:
    rows = [prompts(1, length)[0] for length in (7, 4, 5)]
    ids, mask = left_padded(rows)
    if side == "right":
        ids, mask = left_padded([row.flip(0) for row in rows])
        ids, mask = ids.flip(1), mask.flip(1)
    logits = to_hugging_face(model)(ids, attention_mask=mask, use_cache=use_cache).logits
    for row, own, there in zip(rows, logits, mask.bool(), strict=True):
        torch.testing.assert_close(own[there], model(row[None])[0].T)


def test_sampling_draws_from_the_top() -> None:
    model, ids = language_model(), prompts(batch=40)
    written = to_hugging_face(model).generate(ids, max_new_tokens=NEW, do_sample=True, top_k=3, temperature=2.0)
    with torch.no_grad():
        logits = model(written)[..., 6:-1].mT
    drawn = written[:, 7:, None]
    rank = (logits > logits.gather(-1, drawn)).sum(-1)
    assert sorted(rank.unique().tolist()) == [0, 1, 2]
    written = to_hugging_face(model).generate(ids, max_new_tokens=NEW, do_sample=True, top_k=0, top_p=0.6)
    with torch.no_grad():
        chance = model(written)[..., 6:-1].mT.softmax(-1)
    own = chance.gather(-1, written[:, 7:, None])
    likelier = torch.where(chance > own, chance, 0).sum(-1)
    assert likelier.max() < 0.6
    assert likelier.max() > 0


def test_a_row_stops_at_the_end_of_text() -> None:
    model, ids = language_model(), prompts()
    hugging = to_hugging_face(model)
    plain = hugging.generate(ids, **GREEDY)[:, 7:]
    end = int(plain[0, 2])
    stopped = hugging.generate(
        ids, attention_mask=torch.ones_like(ids), eos_token_id=end, pad_token_id=TOKENS - 1, **GREEDY
    )[:, 7:]
    for row, own in zip(plain.tolist(), stopped.tolist(), strict=True):
        kept = row[: row.index(end) + 1] if end in row else row
        assert own == kept[: len(own)] + [TOKENS - 1] * (len(own) - len(kept))


def test_stopping_criteria_and_streamers_see_the_tokens() -> None:
    ids, seen = prompts(batch=1), list[int]()

    class Streamer(transformers.generation.BaseStreamer):
        ended = False

        def put(self, value: Tensor) -> None:
            seen.extend(value.flatten().tolist())

        def end(self) -> None:
            self.ended = True

    class AtTen(transformers.StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
            return torch.full((len(input_ids),), input_ids.shape[1] >= 10)

    streamer = Streamer()
    written = to_hugging_face(language_model()).generate(
        ids, streamer=streamer, stopping_criteria=transformers.StoppingCriteriaList([AtTen()]), **GREEDY
    )
    assert written.shape == (1, 10)
    assert seen == written[0].tolist()
    assert streamer.ended


def test_labels_give_the_loss_of_the_next_token_with_its_gradients(model: GatedNetwork) -> None:
    ids = prompts()
    labels = ids.masked_fill(torch.rand(ids.shape) < 0.3, -100)
    hugging = to_hugging_face(model)
    output = hugging(ids, labels=labels)
    logits = model(ids)
    counts = labels[:, 1:] != -100
    chosen = logits[..., :-1].log_softmax(1).mT.gather(-1, labels[:, 1:, None].clamp(min=0))[..., 0]
    expected = -(chosen * counts).sum() / counts.sum()
    torch.testing.assert_close(output.loss, expected)
    mine = torch.autograd.grad(output.loss, list(model.parameters()))
    for own, other in zip(mine, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(own, other)
    torch.testing.assert_close(hugging(ids, labels=labels, use_cache=True, logits_to_keep=1).loss, expected.detach())


def test_forward_goes_on_from_a_cache() -> None:
    model, ids = language_model(), prompts()
    hugging = to_hugging_face(model)
    expected = model(ids).mT
    first = hugging(ids[:, :4], use_cache=True)
    cache = first[CACHE]
    assert (cache.get_seq_length(), cache.batch_size, cache.is_compileable) == (4, 3, False)
    aside = copy.deepcopy(cache)
    second = hugging(ids[:, 4:6], past_key_values=cache)
    third = hugging(
        ids[:, 6:], attention_mask=torch.ones(3, 7), cache=second[CACHE], use_cache=False, return_dict=False
    )
    assert len(third) == 1
    torch.testing.assert_close(torch.cat([first.logits, second.logits, third[0]], 1), expected)
    again = hugging(ids[:, 4:], cache=aside, logits_to_keep=2).logits  # the copy did not go on
    torch.testing.assert_close(again, expected[:, 5:])


def test_generation_goes_on_from_a_cache() -> None:
    hugging, ids = to_hugging_face(language_model()), prompts()
    part = hugging.generate(ids, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    further = hugging.generate(part.sequences, **{CACHE: part[CACHE]}, max_new_tokens=NEW - 2, do_sample=False)
    assert torch.equal(further, hugging.generate(ids, **GREEDY))


def test_rows_of_a_cache_are_selected_repeated_and_forgotten() -> None:
    hugging, ids = to_hugging_face(language_model()), prompts()
    nexts = torch.randint(TOKENS, (3, 1))

    def behind(rows: list[int], change: Any) -> None:
        cache = hugging(ids, use_cache=True)[CACHE]
        change(cache)
        expected = hugging(torch.cat([ids[rows], nexts[rows]], 1)).logits[:, -1:]
        torch.testing.assert_close(hugging(nexts[rows], past_key_values=cache).logits, expected)

    behind([2, 0, 0], lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])))
    behind([1], lambda cache: cache.batch_select_indices(torch.tensor([1])))
    behind([0, 0, 1, 1, 2, 2], lambda cache: cache.batch_repeat_interleave(2))
    cache = hugging(ids, use_cache=True)[CACHE]
    with pytest.raises(NotImplementedError, match="does not go back"):
        cache.crop(-1)
    cache.reset()
    torch.testing.assert_close(hugging(ids, past_key_values=cache).logits, hugging(ids).logits)


def test_a_cache_goes_on_as_the_model_was_and_a_new_one_begins_as_it_is() -> None:
    model, ids = language_model(), prompts()
    hugging, before = to_hugging_face(model), copy.deepcopy(model)
    cache = hugging(ids[:, :6], use_cache=True)[CACHE]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    torch.testing.assert_close(hugging(ids[:, 6:], past_key_values=cache).logits, before(ids).mT[:, 6:].detach())
    assert torch.equal(hugging.generate(ids, **GREEDY)[:, 7:], model.generate(ids, NEW, temperature=0).ids)


def test_the_model_is_shared_and_its_parameters_untouched() -> None:
    model = language_model().train()
    before = copy.deepcopy(model.state_dict())
    hugging = to_hugging_face(model)
    assert hugging.training
    assert {id(p) for p in hugging.parameters()} == {id(p) for p in model.parameters()}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    hugging.eval()
    assert not model.training
    assert not to_hugging_face(model).training
    assert hugging.config.vocab_size == TOKENS


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda: nn.Linear(2, 2), TypeError, "a Hyena, a MultiHyena or a stream"),
        (lambda: CCNN(1, 4, 8, tokens=4, width=4, blocks=1, head="dense"), TypeError, "a Hyena, a MultiHyena"),
        (lambda: Hyena(4, 4, 8, width=4, blocks=1, head="dense"), ValueError, "it takes signals"),
        (
            lambda: Hyena(4, 5, 8, width=4, blocks=1, tokens=4, head="dense"),
            ValueError,
            "it takes 4 tokens and gives 5",
        ),
        (lambda: Hyena(4, 4, 8, width=4, blocks=1, tokens=4, head="last"), ValueError, 'head="dense".*LastHead'),
        (lambda: Hyena(4, 4, 8, width=4, blocks=1, tokens=4, head="dense", causal=False), ValueError, "causal"),
    ],
)
def test_what_is_no_language_model_is_refused(wrong: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        to_hugging_face(wrong())


HOLES = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]])
BOTH = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])
RIGHT = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (HOLES, "zeros between tokens in row 1"),
        (BOTH, "both, or zeros at both ends"),
        (RIGHT[:, :5], r"`attention_mask` must be \(2, 7\), 1 for tokens"),
        (RIGHT[:, None], r"`attention_mask` must be \(2, 7\)"),
    ],
)
def test_masks_that_are_no_padding_are_refused(mask: Tensor, match: str, use_cache: bool) -> None:
    with pytest.raises(ValueError, match=match):
        to_hugging_face(language_model())(prompts(batch=2), attention_mask=mask, use_cache=use_cache)


def test_wrong_arguments_are_refused() -> None:
    hugging, ids = to_hugging_face(language_model()), prompts(batch=2)
    cache = hugging(ids, use_cache=True)[CACHE]
    with pytest.raises(ValueError, match="pad on the left"):
        hugging.generate(ids, attention_mask=RIGHT, **GREEDY)
    with pytest.raises(ValueError, match=r"must be \(2, 7\) or \(2, 14\), 1 for tokens"):
        hugging(ids, attention_mask=torch.ones(2, 9), past_key_values=cache)
    with pytest.raises(ValueError, match="names of one argument"):
        hugging(ids, past_key_values=cache, cache=cache)
    with pytest.raises(TypeError, match="got a DynamicCache"):
        hugging(ids, past_key_values=transformers.DynamicCache())
    with pytest.raises(TypeError, match="got a DynamicCache"):
        hugging.generate(ids, **{CACHE: transformers.DynamicCache()}, **GREEDY)
    with pytest.raises(ValueError, match="`cache_implementation` must be None"):
        hugging.generate(ids, cache_implementation="static", **GREEDY)
    with pytest.raises(ValueError, match=r"`input_ids` must be ids \(batch, length\)"):
        hugging(ids[0])
    with pytest.raises(ValueError, match=r"`labels` must be ids \(2, 7\)"):
        hugging(ids, labels=ids[:, 1:])
    with pytest.raises(ValueError, match="`logits_to_keep` must be at least 0"):
        hugging(ids, logits_to_keep=-1)
    with pytest.raises(NotImplementedError, match="Save the model itself"):
        hugging.save_pretrained("folder")
    with pytest.raises(ValueError, match="not trained"):
        to_hugging_face(stream(language_model(), order=2)).train()


def test_transformers_is_loaded_only_by_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import omniconv.export, sys; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'omniconv\[transformers\]'"):
        to_hugging_face(language_model())
