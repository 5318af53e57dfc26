"""Generation: greedy is the network again and again; prompts, stop ids, seeds, callbacks, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv.kernels import HyenaFilter
from omniconv.models import Generation, Hyena, MultiHyena, Sampling, sampling
from omniconv.recurrence import stream

F64 = torch.float64
TOKENS, SIZE = 13, 16
filters = partial(HyenaFilter, bands=3, hidden=8)
MODELS: dict[str, Callable[..., Any]] = {
    "hyena": lambda **options: Hyena(
        *(8, TOKENS, SIZE), **{"width": 8, "order": 3, "blocks": 2, "tied": True, "kernel": filters, **options}
    ),
    "multi_hyena": lambda **options: MultiHyena(
        *(4, TOKENS, SIZE), **{"n_filters": 4, "blocks": 2, "kernel": filters, **options}
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


@torch.no_grad()
def language(name: str = "hyena", **options: Any) -> Any:
    """A small language model that looks far back and hardly repeats itself."""
    torch.manual_seed(0)
    model = MODELS[name](tokens=TOKENS, head="dense", dtype=F64, **options)
    for key, parameter in model.named_parameters():
        if key.endswith("bias") and "readout" not in key:
            parameter.normal_(std=0.1)
        elif key.endswith(("mix.weight", "down.weight")):
            parameter.mul_(5.0)  # what a token itself says is drowned by what came before
    vectors = model.embedding.vectors.weight.normal_()
    vectors.div_(vectors.norm(dim=1, keepdim=True) / 3)  # no token is likely for its length
    return model


@torch.no_grad()
def continued(model: nn.Module, prompt: Tensor, count: int, draw: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The tokens behind one prompt, by the whole network again for each: `draw(logits, ids so far)`."""
    ids = prompt.long()[None]
    for _ in range(count):
        ids = torch.cat([ids, draw(model(ids)[..., -1], ids)[:, None]], 1)
    return ids[0, len(prompt) :]


def greedy(model: nn.Module, prompt: Tensor, count: int) -> Tensor:
    return continued(model, prompt, count, lambda logits, _: logits.argmax(-1))


# ---- what comes


@every_model
def test_greedy_is_the_network_again_and_again(name: str) -> None:
    """Also far beyond the reference length."""
    model = language(name).eval()
    ids = torch.randint(TOKENS, (3, 7))
    found = model.generate(ids, 40, temperature=0)
    assert isinstance(found, Generation)
    assert found.ids.shape == (3, 40)
    assert found.ids.dtype == torch.long
    assert found.lengths.tolist() == [40, 40, 40]
    assert len(found.ids.unique()) > 5  # or this would compare little
    for row, prompt in zip(found.ids, ids, strict=True):
        assert torch.equal(row, greedy(model, prompt, 40))


@every_model
def test_prompts_of_unequal_lengths_are_each_alone(name: str) -> None:
    model = language(name).eval()
    prompts = [torch.randint(TOKENS, (n,)) for n in (5, 1, 21, 5, 16)]
    found = model.generate(prompts, 9, temperature=0, repetition_penalty=1.2).ids
    for row, prompt in zip(found, prompts, strict=True):
        assert torch.equal(row, model.generate(prompt[None], 9, temperature=0, repetition_penalty=1.2).ids[0])
    for row, prompt in zip(model.generate(prompts, 9, temperature=0).ids, prompts, strict=True):
        assert torch.equal(row, greedy(model, prompt, 9))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 2.5},
        {"top_k": 3},
        {"top_p": 0.6, "temperature": 2.0},
        {"min_p": 0.2, "temperature": 2.0},
        {"repetition_penalty": 3.0},
        {"repetition_penalty": 1.5, "temperature": 1.5, "top_k": 6, "top_p": 0.9, "min_p": 0.05},
    ],
)
def test_draws_are_those_of_sampling_from_the_logits(options: dict[str, float]) -> None:
    """With the tokens of the prompt and those that were drawn as the ones that occurred."""
    model, prompt = language().eval(), torch.randint(TOKENS, (6,))
    sampling, generator = Sampling(**options), torch.Generator().manual_seed(7)  # type: ignore[arg-type]

    def draw(logits: Tensor, ids: Tensor) -> Tensor:
        seen = torch.zeros(1, TOKENS, dtype=torch.bool)
        seen[0, ids[0]] = True
        return sampling.draw(logits, seen, generator)

    expected = continued(model, prompt, 25, draw)
    found = model.generate(prompt[None], 25, seed=7, **options).ids[0]
    assert torch.equal(found, expected)
    assert not torch.equal(found, greedy(model, prompt, 25))


def test_seeds() -> None:
    model, ids = language(), torch.randint(TOKENS, (2, 5))
    before = torch.random.get_rng_state()
    first, same, other = (model.generate(ids, 20, seed=seed, temperature=2.0).ids for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(torch.random.get_rng_state(), before)  # draws of their own
    torch.manual_seed(11)
    without = model.generate(ids, 20, temperature=2.0).ids
    assert not torch.equal(model.generate(ids, 20, temperature=2.0).ids, without)
    torch.manual_seed(11)
    assert torch.equal(model.generate(ids, 20, temperature=2.0).ids, without)
    for seed in (0, 2**63, 2**64 - 1):
        assert model.generate(ids, 1, seed=seed).ids.shape == (2, 1)


# ---- where it ends


@every_model
def test_stop_ids_end_a_row_and_no_other(name: str) -> None:
    model, ids = language(name).eval(), torch.randint(TOKENS, (4, 6))
    free = model.generate(ids, 20, temperature=0).ids
    stop = [int(free[0, 3]), int(free[1, 5])]
    found = model.generate(ids, 20, temperature=0, stop=stop)
    expected = []
    for row in free.tolist():
        ends = [t for t, token in enumerate(row) if token in stop]
        expected.append(min(ends) + 1 if ends else 20)
    assert found.lengths.tolist() == expected
    assert min(expected) < max(expected)
    columns = found.ids.shape[1]
    assert columns == max(expected)  # and no step more than the longest needs
    for row, whole, length in zip(found.ids, free, expected, strict=True):
        assert torch.equal(row[:length], whole[:length])
        assert (row[length:] == row[length - 1]).all()
    for row, whole, length in zip(found.rows(), free, expected, strict=True):
        assert torch.equal(row, whole[:length])


def test_rows_are_asked_whether_they_run_where_they_may_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host waits for the device then."""
    model, asked, truth = language().eval(), [0], Tensor.__bool__

    def counted(tensor: Tensor) -> bool:
        asked[0] += 1
        return truth(tensor)

    def questions(count: int, stop: tuple[int, ...]) -> int:
        asked[0] = 0
        assert model.generate(torch.zeros(2, 3, dtype=torch.long), count, temperature=0, stop=stop).lengths.min() > 1
        return asked[0]

    monkeypatch.setattr(Tensor, "__bool__", counted)
    assert questions(3, ()) == questions(9, ())
    assert questions(3, (TOKENS - 1,)) > questions(3, ())


def test_a_stop_id_in_the_prompt_ends_nothing() -> None:
    model = language().eval()
    ids = torch.randint(TOKENS, (1, 6))
    free = model.generate(ids, 8, temperature=0).ids[0]
    stop = next(token for token in range(TOKENS) if token not in free.tolist())
    prompt = torch.cat([torch.tensor([[stop]]), ids], 1)
    free = model.generate(prompt, 8, temperature=0).ids[0]
    if stop in free.tolist():
        pytest.fail("choose another seed: the id comes")
    assert torch.equal(model.generate(prompt, 8, temperature=0, stop=[stop]).ids[0], free)


def test_a_first_token_may_be_the_last() -> None:
    model, ids = language(), torch.randint(TOKENS, (3, 6))
    found = model.generate(ids, 20, seed=0, stop=range(TOKENS))
    assert found.ids.shape == (3, 1)
    assert found.lengths.tolist() == [1, 1, 1]
    assert [len(row) for row in found.rows()] == [1, 1, 1]


def test_stop_ids_do_not_change_the_draws_of_other_rows() -> None:
    """Every step draws for every row, ended or not."""
    model, ids = language(), torch.randint(TOKENS, (3, 6))
    free = model.generate(ids, 15, seed=1, temperature=2.0).ids
    ended = model.generate(ids, 15, seed=1, temperature=2.0, stop=[int(free[0, 2])])
    for row, whole, length in zip(ended.ids, free, ended.lengths.tolist(), strict=True):
        assert torch.equal(row[:length], whole[:length])
    assert ended.lengths[0] <= 3


@pytest.mark.parametrize("after", [1, 3, 30])
def test_a_callback_sees_every_step_and_may_stop(after: int) -> None:
    model, ids, seen = language().eval(), torch.randint(TOKENS, (2, 6)), list[Tensor]()

    def callback(token: Tensor) -> bool | None:
        seen.append(token.clone())
        return True if len(seen) == after else None

    found = model.generate(ids, 12, temperature=0, callback=callback)
    steps = min(after, 12)
    assert found.ids.shape == (2, steps)
    assert found.lengths.tolist() == [steps, steps]
    assert torch.equal(torch.stack(seen, 1), found.ids)
    assert torch.equal(found.ids, model.generate(ids, 12, temperature=0).ids[:, :steps])


def test_a_callback_sees_ended_rows_repeat() -> None:
    model, ids, seen = language().eval(), torch.randint(TOKENS, (4, 6)), list[Tensor]()
    stop = [int(model.generate(ids, 4, temperature=0).ids[0, 0])]
    found = model.generate(ids, 10, temperature=0, stop=stop, callback=seen.append)
    assert torch.equal(torch.stack(seen, 1), found.ids)
    assert (found.ids[0] == stop[0]).all()
    assert found.lengths[0] == 1
    assert found.ids.shape[1] > 1


# ---- the model


@every_model
def test_the_model_is_left_as_it_was(name: str) -> None:
    """In training mode too, with dropout, and generates as in evaluation."""
    model, ids = language(name, dropout=0.5, input_dropout=0.5).train(), torch.randint(TOKENS, (2, 6))
    before, asked = {key: value.clone() for key, value in model.state_dict().items()}, ids.clone()
    found = model.generate(ids, 12, temperature=0).ids
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(found, model.eval().generate(ids, 12, temperature=0).ids)
    assert torch.equal(found[0], greedy(model, ids[0], 12))
    assert torch.equal(ids, asked)


def test_a_view_at_another_resolution_generates_as_it_computes() -> None:
    model, ids = language().eval(), torch.randint(TOKENS, (2, 6))
    view = model.at_resolution(2.0)
    assert torch.equal(view.generate(ids, 12, temperature=0).ids[0], greedy(view, ids[0], 12))
    assert not torch.equal(greedy(view, ids[0], 12), greedy(model, ids[0], 12))


@every_model
def test_steppers_and_streams_generate_too(name: str) -> None:
    model, ids = language(name).eval(), torch.randint(TOKENS, (2, 6))
    expected = model.generate(ids, 12, temperature=0)
    for stepper in (model.stepper(), stream(model)):
        assert stepper.stepper() is stepper
        found = stepper.generate(ids, 12, temperature=0)
        assert torch.equal(found.ids, expected.ids)
        drawn = stepper.generate(ids, 12, seed=5, top_k=5, stop=[2])
        assert torch.equal(drawn.ids, model.generate(ids, 12, seed=5, top_k=5, stop=[2]).ids)


def test_a_distilled_stream_of_small_error_generates_the_same() -> None:
    model, ids = language().eval(), torch.randint(TOKENS, (2, 6))
    found = stream(model, order=SIZE // 2 - 1).generate(ids, 4, temperature=0).ids
    assert found.shape == (2, 4)
    exact = stream(model).generate(ids, 4, temperature=0).ids
    assert torch.equal(found, exact)


def test_integers_of_any_kind() -> None:
    model, ids = language().eval(), torch.randint(TOKENS, (2, 6))
    expected = model.generate(ids, 5, temperature=0).ids
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert torch.equal(model.generate(ids.to(dtype), 5, temperature=0).ids, expected)
        assert torch.equal(model.generate(list(ids.to(dtype)), 5, temperature=0).ids, expected)


def test_prompts_of_different_integers() -> None:
    """Padding them together must not squeeze the ids of one into the few bits of another."""
    torch.manual_seed(0)
    model = Hyena(8, 300, SIZE, width=8, blocks=1, tokens=300, head="dense", kernel=filters, dtype=F64).eval()
    few, many = torch.tensor([5, 6], dtype=torch.uint8), torch.tensor([299, 298, 297])
    found = model.generate([few, many], 6, temperature=0).ids
    assert torch.equal(found[0], greedy(model, few, 6))
    assert torch.equal(found[1], greedy(model, many, 6))


def test_a_model_in_bfloat16() -> None:
    found = language().to(torch.bfloat16).generate(torch.randint(TOKENS, (2, 6)), 20, seed=0)
    assert found.ids.shape == (2, 20)
    assert (found.ids < TOKENS).all()


# ---- errors

PROMPT = torch.tensor([[1, 2, 3]])


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.tensor([1, 2]), ValueError, r"`ids` must be \(batch, length\), or a list of prompts .* shape \(2,\)"),
        (torch.zeros(1, 2, 3, dtype=torch.long), ValueError, r"`ids` must be \(batch, length\).* shape \(1, 2, 3\)"),
        (torch.zeros(0, 3, dtype=torch.long), ValueError, "`ids` must hold one prompt at least; got none"),
        ([], ValueError, "`ids` must hold one prompt at least; got none"),
        (torch.zeros(2, 0, dtype=torch.long), ValueError, "`ids`: a prompt must be a tensor of one token at least"),
        ([PROMPT[0], PROMPT[0, :0]], ValueError, r"`ids`: a prompt must be .*; got a int64 tensor of shape \(0,\)"),
        ([PROMPT], ValueError, r"`ids`: a prompt must be .*; got a int64 tensor of shape \(1, 3\)"),
        ([[1, 2]], ValueError, r"`ids`: a prompt must be a tensor .*; got list \[1, 2\]"),
        (PROMPT.float(), TypeError, "`ids` must hold integers, the ids of tokens; got a float32 tensor"),
        ([PROMPT[0], PROMPT[0].bool()], TypeError, "`ids` must hold integers, the ids of tokens; got a bool tensor"),
        (PROMPT.to(torch.complex64), TypeError, "`ids` must hold integers, the ids of tokens; got a complex64"),
        (PROMPT + TOKENS, ValueError, "`ids` must hold ids"),
        (torch.tensor([[3, TOKENS]]), ValueError, "`ids` must hold ids"),
        (torch.tensor([[3, -1]]), ValueError, "`ids` must hold ids"),
        (7, (TypeError, ValueError), "`ids` must be"),
        (None, (TypeError, ValueError), "`ids` must be"),
        ("text", (TypeError, ValueError), "`ids`"),
    ],
)
def test_bad_prompts_are_named(ids: Any, error: type[Exception] | tuple[type[Exception], ...], message: str) -> None:
    with pytest.raises(error, match=message):
        language().generate(ids, 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_new_tokens": 0}, ValueError, "`max_new_tokens` must be at least 1; got 0"),
        ({"max_new_tokens": 2.0}, TypeError, "`max_new_tokens` must be an integer; got float 2.0"),
        ({"temperature": -1.0}, ValueError, "`temperature` must be finite and at least 0"),
        ({"top_k": 0}, ValueError, "`top_k` must be at least 1; got 0"),
        ({"top_p": 1.5}, ValueError, r"`top_p` must be in \(0, 1\]"),
        ({"min_p": 1.5}, ValueError, r"`min_p` must be in \[0, 1\]"),
        ({"repetition_penalty": 0.0}, ValueError, "`repetition_penalty` must be finite and at least 0.01"),
        ({"stop": [TOKENS]}, ValueError, f"`stop` must hold ids below {TOKENS}; got {TOKENS}"),
        ({"stop": [1, -1]}, ValueError, "`stop` must be at least 0; got -1"),
        ({"stop": ["."]}, TypeError, "`stop` must be an integer; got str '.'"),
        ({"stop": 5}, (TypeError, ValueError), "`stop` must"),
        ({"seed": "new"}, (TypeError, ValueError), "`seed` must be an integer"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0; got -1"),
        ({"seed": 2**64}, ValueError, r"`seed` must be from 0 to 2\*\*64 - 1, .*; got 18446744073709551616"),
        ({"seed": 1.5}, (TypeError, ValueError), "`seed` must be an integer"),
        ({"callback": 5}, (TypeError, ValueError), "`callback` must"),
    ],
)
def test_bad_options_are_named(
    options: dict[str, Any], error: type[Exception] | tuple[type[Exception], ...], message: str
) -> None:
    with pytest.raises(error, match=message):
        language().generate(PROMPT, **{"max_new_tokens": 3, **options})


@every_model
@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("after", [1, 4])
def test_networks_that_have_diverged_are_told(
    name: str, temperature: float, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where `draw` does not look, as on a GPU, and also where only a later token makes it so."""
    model = language(name).eval()
    if after == 1:
        model.head.readout.weight.data[3] = torch.nan
    else:
        said = greedy(model, PROMPT[0], after)
        model.embedding.vectors.weight.data[said[-1]] = torch.nan
    for looks in (True, False):
        if not looks:
            monkeypatch.setattr(sampling, "waits", lambda logits: True)
        with pytest.raises(ValueError, match="the model's logits are not finite in 1 of 1 rows"):
            model.generate(PROMPT, 200, temperature=temperature, seed=0)


def test_models_that_predict_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="it takes signals and gives 3 outputs"):
        Hyena(2, 3, SIZE, blocks=1, width=4, kernel=filters).generate(PROMPT, 3)
    with pytest.raises(ValueError, match=r"it takes 9 tokens and gives 5 outputs. Build it with tokens=out_features"):
        Hyena(4, 5, SIZE, blocks=1, width=4, kernel=filters, tokens=9, head="dense").generate(PROMPT, 3)
    with pytest.raises(ValueError, match=r"`model`: blocks.0.mixer.\S+ is not causal"):
        language(causal=False).generate(PROMPT, 3)
    images = Hyena(4, 9, (4, 4), blocks=1, width=4, kernel=filters, tokens=9, head="dense")
    with pytest.raises(ValueError, match="`model` must be a network of series, of one axis; this one has 2"):
        images.generate(PROMPT, 3)
