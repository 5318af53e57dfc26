"""Hyena and MultiHyena: sizes of the published models, read-outs tied to the embedding, what they cite and learn."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from omniconv import Conv, cite
from omniconv.kernels import HyenaFilter
from omniconv.models import Hyena, MultiHyena
from omniconv.nn import ChannelNorm, GatedBlock, GatedConv, MultiHeadConv
from omniconv.nn.heads import TiedReadout
from omniconv.testing import assert_close

F64 = torch.float64
filters = partial(HyenaFilter, bands=2, hidden=4)
Gated: TypeAlias = Hyena | MultiHyena
MODELS: dict[str, Callable[..., Gated]] = {
    "hyena": partial(Hyena, width=6, kernel=filters),
    "multi_hyena": partial(MultiHyena, n_filters=3, head_width=2, kernel=filters),
}
every_model = pytest.mark.parametrize("name", MODELS)
LANGUAGE: dict[str, Any] = {"tokens": 11, "tied": True, "head": "dense", "blocks": 2}


def language(name: str, **options: Any) -> Gated:
    """A small language model, with a tied read-out."""
    return MODELS[name](6, 11, 16, **{**LANGUAGE, **options})


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# ---- sizes


def parameters_of(blocks: int, d: int, n_filters: int) -> int:
    """Those of a language model of the published kind, layer by layer."""
    hidden, features = 64, 2 * 16 + 1
    first, middle, last = hidden * features + hidden, 2 * (hidden * hidden + hidden), hidden * n_filters
    kernel = first + middle + last + hidden  # and a frequency per unit
    project, short, mix = d * 3 * d + 3 * d, 3 * 3 * d + 3 * d, d * d + d
    mixer = project + short + kernel + n_filters + mix  # a skip per filter
    norms, up, down = 2 * 2 * d, d * 2 * d + 2 * d, 2 * d * d + d
    vectors = 50264 * d  # which are the read-out too
    return vectors + blocks * (norms + mixer + up + down) + 2 * d


PUBLISHED = {
    "125M": (18, 768, 124.9e6),
    "153M": (18, 864, 152.5e6),
    "355M": (36, 1024, 357.1e6),
    "1.3B": (36, 2048, 1.318e9),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_presets_have_the_published_sizes(size: str) -> None:
    blocks, width, about = PUBLISHED[size]
    model = Hyena.preset(size, device="meta")
    assert all(parameter.is_meta for parameter in model.parameters())
    assert count(model) == parameters_of(blocks, width, width) == pytest.approx(about, rel=5e-4)
    assert (len(model.blocks), model.out_features, model.grid.size) == (blocks, 50264, (2048,))
    assert model.stem is None
    assert model.head.readout.weight is model.embedding.vectors.weight  # type: ignore[union-attr]


@pytest.mark.parametrize("head_width", [1, 8])
def test_heads_share_filters_in_presets(head_width: int) -> None:
    model = MultiHyena.preset("125M", head_width=head_width, device="meta")
    assert count(model) == parameters_of(18, 768, 768 // head_width)
    mixer = model.blocks[0].mixer
    assert isinstance(mixer, MultiHeadConv)
    assert (mixer.n_filters, mixer.head_width) == (768 // head_width, head_width)


def test_presets_have_the_published_filters() -> None:
    model = MultiHyena.preset("125M", device="meta", dtype=torch.bfloat16)
    mixer = model.blocks[0].mixer
    assert isinstance(mixer, MultiHeadConv)
    assert mixer.head_width == 2
    kernel = mixer.long.kernel
    assert isinstance(kernel, HyenaFilter)
    assert (kernel.hidden, kernel.initial_frequency, kernel.reach) == (64, 14.0, (2047,))
    assert model.blocks[0].up.weight.dtype == torch.bfloat16  # type: ignore[union-attr]
    logits = model(torch.zeros(2, 9, dtype=torch.long, device="meta"))
    assert (logits.shape, logits.dtype) == ((2, 50264, 9), torch.bfloat16)


# ---- the network


@every_model
@pytest.mark.parametrize("tokens", [None, 5])
def test_the_network_is_its_parts_one_after_the_other(name: str, tokens: int | None) -> None:
    model = MODELS[name](2, 3, 9, blocks=2, tokens=tokens, head="pool", dtype=F64).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ChannelNorm):
                module.weight.uniform_(0.5, 2.0)
                module.bias.normal_()
    model.standardize.set([1.0, -2.0], [2.0, 0.5])
    x = torch.randn(2, 2, 9, dtype=F64) if tokens is None else torch.randint(tokens, (2, 9))
    if tokens is None:
        z = (x - torch.tensor([[1.0], [-2.0]], dtype=F64)) / torch.tensor([[2.0], [0.5]], dtype=F64)
    else:
        z = model.embedding.vectors.weight[x].movedim(-1, 1)  # type: ignore[union-attr]
    assert model.stem is not None
    assert model.stem.taps().shape == (6, 2, 3)
    z = model.stem(z)
    for block in model.blocks:
        assert isinstance(block, GatedBlock)
        assert block.depth == 2
        z = block(z)
    z = F.layer_norm(z.movedim(1, -1), (6,), model.norm.weight, model.norm.bias)  # batch positions channels
    assert model.head.readout.bias is not None
    assert_close(model(x), z.mean(1) @ model.head.readout.weight.T + model.head.readout.bias, tolerance=1e-12)


def test_options_reach_the_layers() -> None:
    model = Hyena(
        *(1, 2, 9),
        blocks=3,
        width=4,
        order=3,
        short=5,
        expansion=4,
        kernel=filters,
        reach=6,
        causal=False,
        dropout=0.3,
        engine="direct",
    )
    assert len(model.blocks) == 3
    for block in model.blocks:
        assert isinstance(block, GatedBlock)
        assert isinstance(block.mixer, GatedConv)
        assert (block.mixer.order, block.mixer.short.reach, block.mixer.short.causal) == (3, (2,), (False,))
        assert len(block.mixer.long) == 2
        for conv in block.mixer.long:
            assert isinstance(conv, Conv)
            assert (conv.reach, conv.engine, conv.causal) == ((6,), "direct", (False,))
        assert (block.up.out_channels, block.dropout.p, block.depth) == (16, 0.3, 3)
        assert block.mixer.mix.weight.norm().item() == pytest.approx(math.sqrt(4 / 6), rel=1e-5)
    assert model.stem is not None
    assert (model.stem.reach, model.stem.causal) == ((2,), (False,))


@every_model
def test_tokens_of_the_width_need_no_stem(name: str) -> None:
    assert language(name).stem is None
    assert language(name, tied=False).stem is None
    assert MODELS[name](5, 11, 16, blocks=1, tokens=11).stem is not None
    assert MODELS[name](6, 11, 16, blocks=1).stem is not None


# ---- tied


@every_model
def test_a_tied_read_out_is_the_embedding(name: str) -> None:
    model, free = language(name), language(name, tied=False)
    assert isinstance(model.head.readout, TiedReadout)
    assert model.embedding is not None
    assert model.head.readout.weight is model.embedding.vectors.weight
    assert count(free) - count(model) == 11 * 6 + 11  # and no bias
    assert not any(key.startswith("head") for key in model.state_dict())
    assert not list(model.head.parameters())


@every_model
def test_a_tied_read_out_is_saved_once(name: str, tmp_path: Path) -> None:
    model, ids = language(name), torch.randint(11, (2, 20))
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert [key for key, value in saved.items() if value.shape == (11, 6)] == ["embedding.vectors.weight"]
    assert sum(value.numel() for key, value in saved.items() if key in dict(model.named_parameters())) == count(model)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.tied is True
    assert loaded.head.readout.weight is loaded.embedding.vectors.weight  # type: ignore[union-attr]
    assert count(loaded) == count(model)
    assert torch.equal(loaded(ids), model.eval()(ids))


@every_model
def test_copies_are_tied_to_themselves(name: str) -> None:
    model, ids = language(name), torch.randint(11, (1, 8))
    twins: tuple[Any, ...] = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)))
    for twin in twins:
        assert twin.head.readout.weight is twin.embedding.vectors.weight
        assert twin.head.readout.weight is not model.head.readout.weight
        assert torch.equal(twin(ids), model(ids))
        before = model(ids)
        with torch.no_grad():
            twin.embedding.vectors.weight.mul_(2.0)
        assert torch.equal(model(ids), before)
        assert not torch.equal(twin(ids), before)


@every_model
def test_the_tie_outlives_moves(name: str) -> None:
    """To another dtype, off the meta device, and when a state is assigned."""
    model = language(name, device="meta").to_empty(device="cpu")
    model.reset_parameters()
    model = model.double()
    model.load_state_dict(language(name, dtype=F64).state_dict(), assign=True)
    assert model.head.readout.weight is model.embedding.vectors.weight  # type: ignore[union-attr]
    assert model(torch.randint(11, (1, 8))).dtype == F64


@every_model
def test_a_step_of_training_moves_both(name: str) -> None:
    """The gradient is that of the input and that of the read-out, added."""
    model, free = language(name, dtype=F64), language(name, tied=False, dtype=F64)
    free.load_state_dict({**model.state_dict(), "head.readout.weight": model.head.readout.weight}, strict=False)
    ids = torch.randint(11, (2, 9))
    assert_close(model(ids), free(ids), tolerance=1e-12)
    for one in (model, free):
        F.cross_entropy(one(ids)[..., :-1], ids[:, 1:]).backward()
    assert model.embedding is not None
    assert free.embedding is not None
    shared = model.embedding.vectors.weight.grad
    inner, outer = free.embedding.vectors.weight.grad, free.head.readout.weight.grad
    assert shared is not None
    assert inner is not None
    assert outer is not None
    assert min(inner.abs().max(), outer.abs().max()) > 0
    assert_close(shared, inner + outer, tolerance=1e-11)
    before = model.head.readout.weight.detach().clone()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert_close(model.head.readout.weight, before - 0.1 * shared)
    assert model.head.readout.weight is model.embedding.vectors.weight


@every_model
def test_new_tied_vectors_are_small(name: str) -> None:
    """Logits of a new network know nothing; what is drawn anew is as small."""
    model = MODELS[name](6, 500, 16, tokens=500, tied=True, head="dense", blocks=1)
    assert model.embedding is not None
    ids = torch.randint(500, (4, 30))
    for _ in range(2):
        assert 0.018 < model.embedding.vectors.weight.std().item() < 0.022
        loss = F.cross_entropy(model(ids)[..., :-1], ids[:, 1:]).item()
        assert loss == pytest.approx(math.log(500), abs=0.05)
        model.reset_parameters()
    free = MODELS[name](6, 500, 16, tokens=500, head="dense", blocks=1)
    assert free.embedding is not None
    assert 0.9 < free.embedding.vectors.weight.std().item() < 1.1


# ---- learning


@every_model
def test_they_learn_to_copy(name: str) -> None:
    """The previous token, which a model that sees one token cannot know."""
    torch.manual_seed(1)
    options: dict[str, Any] = {"width": 16} if name == "hyena" else {"n_filters": 8, "head_width": 2}
    model = MODELS[name](16, 8, 16, blocks=1, tokens=8, tied=True, head="dense", **options)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        ids = torch.randint(8, (16, 16))
        loss = F.cross_entropy(model(ids)[..., 1:], ids[:, :-1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    ids = torch.randint(8, (16, 24))  # and longer ones
    with torch.no_grad():
        right = model.eval()(ids)[..., 1:].argmax(1) == ids[:, :-1]
    assert right.double().mean().item() > 0.97


# ---- errors and citations


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Hyena(6, 11, 16, width=6, tied=True, head="dense"),
            ValueError,
            r"`tied` needs as many `tokens` as `out_features` \(=11\).*got tokens=None and in_channels=6",
        ),
        (
            lambda: Hyena(6, 11, 16, width=6, tokens=12, tied=True),
            ValueError,
            r"`tied` needs .*`out_features` \(=11\).*got tokens=12",
        ),
        (
            lambda: MultiHyena(5, 11, 16, n_filters=3, tokens=11, tied=True),
            ValueError,
            r"`tied` needs .*the width \(=6\); got tokens=11 and in_channels=5",
        ),
        (lambda: Hyena(6, 11, 16, tied=1), TypeError, "`tied` must be True or False; got int 1"),  # type: ignore[arg-type]
        (lambda: Hyena.preset("7B"), ValueError, r"`name` must be one of '125M', '153M', '355M', '1.3B'; got '7B'"),
        (lambda: MultiHyena.preset("125m"), ValueError, r"`name` must be one of '125M'"),
        (
            lambda: MultiHyena.preset("125M", head_width=5),
            ValueError,
            r"`head_width` must divide the width \(=768\) of 125M; got 5",
        ),
        (lambda: MultiHyena.preset("125M", head_width=0), ValueError, "`head_width` must be at least 1; got 0"),
        (lambda: Hyena(2, 3, 16, width=0), ValueError, "must be at least 1; got 0"),
        (lambda: Hyena(2, 3, 16, order=1), ValueError, "`order` must be at least 2; got 1"),
        (lambda: Hyena(2, 3, 16, short=0), ValueError, "`short` must be at least 1; got 0"),
        (lambda: Hyena(2, 3, 16, expansion=0), ValueError, "`expansion` must be at least 1; got 0"),
        (lambda: MultiHyena(2, 3, 16, n_filters=0), ValueError, "`n_filters` must be at least 1; got 0"),
        (lambda: MultiHyena(2, 3, 16, head_width=0), ValueError, "`head_width` must be at least 1; got 0"),
        (lambda: Hyena(2, 3, (4, 4), span=2.0, causal=False), ValueError, "`span` is for series"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_bad_width_is_called_so() -> None:
    with pytest.raises(ValueError, match="`width` must be at least 1; got 0"):
        Hyena(2, 3, 16, width=0)


def test_they_cite_their_papers() -> None:
    hyena, multi = "Hyena Hierarchy: Towards Larger Convolutional Language Models", "Laughing Hyena Distillery"
    told = cite(language("hyena"))
    assert hyena in told
    assert multi not in told
    told = cite(language("multi_hyena"))
    assert hyena in told
    assert multi in told
    assert told.count("@misc{massaroli2023laughing") == told.count("@misc{poli2023hyena") == 1


def test_a_tied_read_out_alone() -> None:
    model = language("hyena", dtype=F64)
    readout = model.head.readout
    assert isinstance(readout, TiedReadout)
    assert (readout.in_channels, readout.out_channels, readout.bias) == (6, 11, None)
    x: Tensor = torch.randn(2, 6, 3, 4, dtype=F64)
    assert_close(readout(x), torch.einsum("oc,bchw->bohw", readout.weight, x))
