"""Networks sample by sample: what they give at once, and the bound on what distilling changes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omniconv import CCNN, CKCNN, Full, Gabor, Gaussian
from omniconv.groups import SO2
from omniconv.kernels import Modal
from omniconv.models import FlexNet, Network
from omniconv.nn import BatchNorm
from omniconv.recurrence import State, stream
from omniconv.testing import assert_close

SIZE = 48
SHORT = partial(Gaussian, width=0.2)
MODELS: dict[str, Any] = {
    "ccnn": lambda head: CCNN(2, 3, SIZE, blocks=2, width=6, causal=True, head=head),
    "ccnn, dense": lambda head: CCNN(
        2, 3, SIZE, blocks=1, width=4, causal=True, head=head, mixing="dense", support=Full
    ),
    "ccnn, modal": lambda head: CCNN(
        2, 3, SIZE, blocks=1, width=4, causal=True, head=head, kernel=partial(Modal, modes=4), support=Full
    ),
    "ckcnn": lambda head: CKCNN(2, 3, SIZE, blocks=2, width=4, norm="batch", head=head),
    "flextcn": lambda head: CKCNN(2, 3, SIZE, width=4, norm="batch", head=head, kernel=Gabor, support=SHORT),
}  # fmt: skip


def trained(name: str, head: str = "dense") -> Network:
    """A network in float64 whose norms have seen data, and whose standardisation is not the identity."""
    torch.manual_seed(0)
    model: Network = MODELS[name](head).double()
    model.standardize.set([0.3, -0.2], [1.5, 0.7])
    for _ in range(3):
        model(torch.randn(4, 2, SIZE, dtype=torch.float64))
    return model.eval()


def so_far(model: Network, x: Tensor) -> Tensor:
    """What a network gives for the signal up to every sample, one after the other."""
    with torch.no_grad():
        every = [model(x[..., : t + 1]) for t in range(x.shape[-1])]
    return torch.stack([y if y.ndim == 2 else y[..., -1] for y in every], -1)


@pytest.mark.parametrize("head", ["dense", "last", "pool"])
@pytest.mark.parametrize("name", MODELS)
def test_steps_and_prefill_are_the_network(name: str, head: str) -> None:
    """Also beyond the reference length."""
    model = trained(name, head)
    x = torch.randn(2, 2, SIZE + 9, dtype=torch.float64)
    exact = stream(model)
    expected = so_far(model, x)
    assert_close(exact.prefill(x)[0], expected)
    state, parts = exact.init_state(2, dtype=torch.float64), []
    for sample in x.unbind(-1):
        y, state = exact.step(sample, state)
        parts.append(y)
    assert_close(torch.stack(parts, -1), expected)
    assert exact.certificate.unit.max() == 0
    assert {layer.form for layer in exact.certificate.layers} == {"taps"}


@pytest.mark.parametrize("name", ["ccnn", "ckcnn"])
def test_in_float32(name: str) -> None:
    model = trained(name).float()
    x = torch.randn(3, 2, SIZE)
    with torch.no_grad():
        assert_close(stream(model).prefill(x)[0], model(x), tolerance=1e-5)


@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=4), tol=st.sampled_from([None, 0.1]))
@settings(max_examples=12, deadline=None)
def test_any_chunks_are_the_whole(cuts: list[int], tol: float | None) -> None:
    streamed = stream(trained("ccnn", "pool"), tol=tol)
    x = torch.randn(2, 2, sum(cuts), dtype=torch.float64)
    state, parts = None, []
    for chunk in x.split(cuts, dim=-1):
        y, state = streamed.prefill(chunk, state)
        parts.append(y)
    assert_close(torch.cat(parts, -1), streamed.prefill(x)[0])


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_and_company_change_nothing(side: str) -> None:
    streamed = stream(trained("ccnn", "pool"), tol=0.1)
    x, lengths = torch.randn(4, 2, 20, dtype=torch.float64), [20, 7, 0, 7]
    rows = [x[i, :, :n] if side == "right" else x[i, :, 20 - n :] for i, n in enumerate(lengths)]
    padded = torch.full_like(x, torch.nan)
    for i, row in enumerate(rows):
        padded[i, :, slice(0, lengths[i]) if side == "right" else slice(20 - lengths[i], None)] = row
    before = streamed.prefill(torch.randn(4, 2, 5, dtype=torch.float64))[1]
    y, state = streamed.prefill(padded, before, lengths=torch.tensor(lengths), side=side)
    for i, row in enumerate(rows):
        own = before.select(torch.tensor([i]))
        there = slice(0, lengths[i]) if side == "right" else slice(20 - lengths[i], None)
        outside = torch.ones(20, dtype=torch.bool)
        outside[there] = False
        assert (y[i][:, outside] == 0).all()
        if lengths[i]:
            alone, own = streamed.prefill(row[None], own)
            assert_close(y[i : i + 1, :, there], alone)
        for mine, other in zip(state.select(torch.tensor([i])).tensors, own.tensors, strict=True):
            assert torch.allclose(mine, other, rtol=1e-12, atol=1e-14)


def test_a_distilled_network_stays_within_its_bound() -> None:
    """For noise, for signs that follow the error's own taps, and for ramps; by far, as bounds through layers are."""
    model = trained("ccnn")
    for tol in (0.3, 0.03):
        streamed = stream(model, tol=tol)
        assert "distilled" in {layer.form for layer in streamed.certificate.layers}
        assert max(layer.relative for layer in streamed.certificate.layers) <= tol
        for x in (
            torch.randn(2, 2, 3 * SIZE, dtype=torch.float64),
            torch.randn(2, 2, 3 * SIZE, dtype=torch.float64).sign(),
            torch.linspace(-3, 3, 3 * SIZE, dtype=torch.float64).expand(1, 2, -1),
            torch.ones(1, 2, 3 * SIZE, dtype=torch.float64),
        ):
            with torch.no_grad():
                error = (streamed.prefill(x)[0] - model(x)).abs().amax((0, 2))
                peak = float(model.standardize(x).abs().max())
            assert (error > 0).all()
            assert (error <= streamed.certificate.within(peak)).all()


def test_a_smaller_tolerance_has_a_smaller_bound() -> None:
    model = trained("ccnn")
    coarse, fine = (stream(model, tol=tol).certificate.unit.max() for tol in (0.3, 0.01))
    assert 0 < fine < coarse


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_modal_kernels_need_no_fit(dtype: torch.dtype, tolerance: float) -> None:
    model = trained("ccnn, modal").to(dtype)
    streamed = stream(model, horizon=SIZE)
    assert {layer.form for layer in streamed.certificate.layers} == {"modal"}
    x = torch.randn(2, 2, SIZE, dtype=dtype)
    with torch.no_grad():
        assert_close(streamed.prefill(x)[0], model(x), tolerance=tolerance)


def test_an_order_is_kept_to_by_modal_kernels_too() -> None:
    layers = stream(trained("ccnn, modal"), order=2, horizon=4 * SIZE).certificate.layers
    assert {layer.form for layer in layers} == {"distilled"}


def test_a_horizon_is_told() -> None:
    certificate = stream(trained("ccnn"), tol=0.1, horizon=SIZE).certificate
    assert certificate.horizon == SIZE
    assert f"in the first {SIZE} samples" in str(certificate)


def test_an_order_is_kept_to() -> None:
    layers = stream(trained("ccnn"), order=4).certificate.layers
    assert [layer.name for layer in layers] == ["stem", "blocks.0.conv", "blocks.1.conv"]
    assert all(layer.form == "distilled" for layer in layers)
    assert all(layer.states <= 8 for layer in layers)  # of four real poles, stored as complex ones


def test_at_another_resolution() -> None:
    model = trained("ccnn").at_resolution(2.0)
    x = torch.randn(1, 2, 2 * SIZE, dtype=torch.float64)
    with torch.no_grad():
        assert_close(stream(model).prefill(x)[0], model(x))
    coarse, x = trained("ccnn").at_resolution(0.5, lowpass=True), torch.randn(1, 2, SIZE, dtype=torch.float64)
    with torch.no_grad():
        assert_close(stream(coarse).prefill(x)[0], coarse(x))


def test_states_of_ids_have_the_precision_of_the_network() -> None:
    model = CCNN(4, 3, 24, blocks=1, width=6, causal=True, tokens=5, head="dense").double().eval()
    ids, streamed = torch.randint(5, (2, 30)), stream(model)
    first, state = streamed.prefill(ids[:, :11])
    with torch.no_grad():
        assert_close(torch.cat([first, streamed.prefill(ids[:, 11:], state)[0]], -1), model(ids))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    model, x = trained("ccnn").to(dtype), torch.randn(2, 2, SIZE).to(dtype)
    whole, state = stream(model, tol=0.1).prefill(x)
    assert whole.dtype == dtype
    assert all(tensor.dtype in (torch.float32, torch.float64, torch.complex64) for tensor in state.tensors)
    with torch.no_grad():
        assert_close(stream(model).prefill(x)[0].float(), model(x).float(), tolerance=0.05)


def test_no_rows() -> None:
    streamed = stream(trained("ccnn", "last"))
    nothing = torch.zeros(0, 2, 5, dtype=torch.float64)
    y, state = streamed.prefill(nothing)
    assert y.shape == (0, 3, 5)
    assert state.batch == 0
    assert streamed.prefill(nothing, lengths=torch.zeros(0, dtype=torch.long))[0].shape == (0, 3, 5)


def test_norms_without_a_scale() -> None:
    model = trained("ccnn")
    model.norm = BatchNorm(6, affine=False).double().eval()
    x = torch.randn(1, 2, 9, dtype=torch.float64)
    with torch.no_grad():
        assert_close(stream(model).prefill(x)[0], model(x))


def test_dense_layers_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = stream(trained("ccnn, dense"), order=4)
    x = torch.randn(2, 2, 40, dtype=torch.float64)
    whole = streamed.prefill(x)[0]
    monkeypatch.setattr("omniconv.recurrence.modal.ELEMENTS", 7 * 2 * 4 * 4)
    assert_close(streamed.prefill(x)[0], whole)


def test_tokens() -> None:
    torch.manual_seed(0)
    model = CCNN(4, 7, 24, blocks=1, width=6, causal=True, tokens=5, head="dense").eval()
    ids, streamed = torch.randint(5, (2, 30)), stream(model, tol=0.2)
    with torch.no_grad():
        expected = model(ids)
    y, state = streamed.prefill(ids[:, :29])
    last, _ = streamed.step(ids[:, 29], state)
    found = torch.cat([y, last[..., None]], -1)
    assert ((found - expected).abs().amax((0, 2)) <= streamed.certificate.unit + 1e-5).all()


def test_training_later_changes_no_stream() -> None:
    model, x = trained("ccnn"), torch.randn(1, 2, 10, dtype=torch.float64)
    streamed = stream(model)
    before = streamed.prefill(x)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.train()
    assert torch.equal(streamed.prefill(x)[0], before)
    assert model.training
    assert not streamed.network.training


def test_states_are_plain_tensors() -> None:
    streamed = stream(trained("ccnn", "pool").float(), tol=0.1)
    long, short = (streamed.prefill(torch.randn(3, 2, n))[1] for n in (500, 5))
    assert long.nbytes == short.nbytes == sum(tensor.nbytes for tensor in long.tensors)
    assert long.nbytes == sum(tensor.untyped_storage().nbytes() for tensor in long.tensors)  # and hold no signals
    x = torch.randn(3, 2, 1)
    chosen = long.select(torch.tensor([2, 0]))
    assert torch.allclose(streamed.prefill(x[[2, 0]], chosen)[0], streamed.prefill(x, long)[0][[2, 0]])
    copied = long.clone()
    streamed.prefill(x, long)
    assert all(torch.equal(a, b) for a, b in zip(copied.tensors, long.tensors, strict=True))  # nothing in place
    put = long.put(torch.tensor([1]), short.select(torch.tensor([0])))
    assert torch.equal(put.tensors[0][1], short.tensors[0][0])
    assert torch.equal(put.tensors[0][0], long.tensors[0][0])


def test_the_certificate_is_a_table() -> None:
    told = str(stream(trained("ccnn"), tol=0.1).certificate)
    assert "blocks.1.conv" in told
    assert "bound on the outputs, for inputs up to 1:" in told


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: CCNN(1, 2, 16, blocks=1, width=4),
            r"`model`: stem is not causal on one axis .* causal=True",
        ),
        (lambda: CKCNN(1, 2, 16, width=4), r"`model`: blocks.0.norm_1 normalises by all samples"),
        (lambda: CCNN(1, 2, (8, 8), blocks=1, width=4), r"`model` must be a network of series, of one axis"),
        (lambda: CCNN(1, 2, (8, 8), blocks=1, width=4, group=SO2(), samples=4), r"`model` must be a network of series"),
    ],
)
def test_networks_that_look_ahead_are_refused(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(model())


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="`model` must be a network that streams, such as CCNN or CKCNN; got FlexNet"):
        stream(FlexNet(1, 2, 16, widths=(2,), blocks=(1,)))
    model = trained("ccnn").float()
    with pytest.raises(ValueError, match="`tol` and `order` exclude each other"):
        stream(model, tol=0.1, order=4)
    with pytest.raises(ValueError, match="`tol` must be finite and above 0"):
        stream(model, tol=0.0)
    with pytest.raises(ValueError, match=r"`order` \(=40\) must be at most \d+ for stem, which has \d+ taps"):
        stream(model, order=40)
    streamed = stream(model)
    state = streamed.init_state(2)
    with pytest.raises(ValueError, match=r"`x` must be one sample, \(batch, 2\); got"):
        streamed.step(torch.zeros(2, 2, 1), state)
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 2, length\), one sample at least"):
        streamed.prefill(torch.zeros(2, 2, 0))
    with pytest.raises(TypeError, match="`x` must hold floating-point numbers"):
        streamed.prefill(torch.zeros(2, 2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="`horizon` must be at least 1"):
        stream(model, horizon=-3)
    with pytest.raises(ValueError, match="`x` must have 2 channels"):
        streamed.prefill(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"`state` must be a `State` of 1 rows, .* got one of 2 rows"):
        streamed.prefill(torch.zeros(1, 2, 4), state)
    with pytest.raises(ValueError, match="`state` must be a `State` of 1 rows"):
        streamed.prefill(torch.zeros(1, 2, 4), state.tensors)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`lengths` must be integers \(2,\)"):
        streamed.prefill(torch.zeros(2, 2, 4), lengths=torch.tensor([1]))
    with pytest.raises(ValueError, match="`lengths` must be from 0 to 4"):
        streamed.prefill(torch.zeros(2, 2, 4), lengths=torch.tensor([1, 5]))
    with pytest.raises(ValueError, match="`side` must be 'right' or 'left'"):
        streamed.prefill(torch.zeros(2, 2, 4), lengths=torch.tensor([1, 4]), side="top")
    with pytest.raises(TypeError, match=r"`dtype` must be torch.float32 or torch.float64"):
        streamed.init_state(1, dtype=torch.float16)
    with pytest.raises(ValueError, match="`peak` must be finite and above 0"):
        streamed.certificate.within(-1.0)


def test_a_state_counts_its_rows() -> None:
    assert State((torch.zeros(3, 2),)).batch == 3


def test_remembered_samples_are_no_view_of_the_signal() -> None:
    state = stream(trained("ccnn", "pool").float()).prefill(torch.randn(1, 2, 500))[1]
    assert state.nbytes == sum(tensor.untyped_storage().nbytes() for tensor in state.tensors)
