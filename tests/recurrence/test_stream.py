"""Networks sample by sample: what they give at once, and the bound on what distilling changes."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omniconv import CCNN, CKCNN, Full, Gabor, Gaussian
from omniconv.groups import SO2
from omniconv.kernels import HyenaFilter, Modal
from omniconv.models import FlexNet, Hyena, MultiHyena, Network
from omniconv.nn import BatchNorm, State
from omniconv.recurrence import Recurrence, Stream, stream
from omniconv.recurrence.modal import ExactModal
from omniconv.recurrence.modal import Modal as ModalPart
from omniconv.testing import assert_close
from tests.recurrence.systems import system

SIZE = 48
SHORT = partial(Gaussian, width=0.2)
TOLERANCE = 1e-12
FILTER = partial(HyenaFilter, bands=3, hidden=8)
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
    "hyena": lambda head: Hyena(2, 3, SIZE, blocks=2, width=4, order=3, head=head, kernel=FILTER),
    "multi_hyena": lambda head: MultiHyena(
        2, 3, SIZE, blocks=2, n_filters=2, head_width=2, head=head, kernel=FILTER
    ),
}  # fmt: skip
several = pytest.mark.parametrize("name", ["ccnn", "hyena", "multi_hyena"])


def trained(name: str, head: str = "dense") -> Network:
    """A network in float64 whose norms have seen data, and whose standardisation is not the identity."""
    torch.manual_seed(0)
    model: Network = MODELS[name](head).double()
    model.standardize.set([0.3, -0.2], [1.5, 0.7])
    for _ in range(3):
        model(torch.randn(4, 2, SIZE, dtype=torch.float64))
    if isinstance(model, Hyena | MultiHyena):
        shake(model)
    return model.eval()


@torch.no_grad()
def shake(model: Network) -> None:
    """Let the norms and biases not be those of a new network: ones and zeros hide mistakes."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif "norm" in name:
            parameter.mul_(0.5 + torch.rand_like(parameter))


@cache
def streamed_once(name: str, tol: float | None) -> Stream:
    """A stream of a network with head "pool": distilled once for many examples."""
    return stream(trained(name, "pool"), tol=tol)


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
    assert_close(exact.prefill(x)[0], expected, tolerance=TOLERANCE)
    state, parts = exact.init_state(2, dtype=torch.float64), []
    for sample in x.unbind(-1):
        y, state = exact.step(sample, state)
        parts.append(y)
    assert_close(torch.stack(parts, -1), expected, tolerance=TOLERANCE)
    assert exact.certificate.unit.max() == 0
    assert {layer.form for layer in exact.certificate.layers} == {"taps"}


@pytest.mark.parametrize("name", ["ccnn", "ckcnn", "hyena", "multi_hyena"])
def test_in_float32(name: str) -> None:
    model = trained(name).float()
    x = torch.randn(3, 2, SIZE)
    with torch.no_grad():
        assert_close(stream(model).prefill(x)[0], model(x), tolerance=1e-5)


@several
@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=4), tol=st.sampled_from([None, 0.1]))
@settings(max_examples=12, deadline=None)
def test_any_chunks_are_the_whole(name: str, cuts: list[int], tol: float | None) -> None:
    streamed = streamed_once(name, tol)
    x = torch.randn(2, 2, sum(cuts), dtype=torch.float64)
    state, parts = None, []
    for chunk in x.split(cuts, dim=-1):
        y, state = streamed.prefill(chunk, state)
        parts.append(y)
    assert_close(torch.cat(parts, -1), streamed.prefill(x)[0], tolerance=TOLERANCE)


@pytest.mark.parametrize("lowpass", [False, True])
@pytest.mark.parametrize("name", ["ccnn", "ccnn, dense", "ckcnn", "hyena", "multi_hyena"])
def test_an_exact_prompt_is_the_network_and_leaves_the_same_state(name: str, lowpass: bool) -> None:
    """The state of a first layer, which has the same inputs either way; and what follows is within the certificate."""
    model = trained(name).at_resolution(2.0 if not lowpass else 0.5, lowpass=lowpass)
    x = torch.randn(2, 2, SIZE, dtype=torch.float64)
    streamed = stream(model, order=4)
    assert "distilled" in {layer.form for layer in streamed.certificate.layers}
    y, state = streamed.prefill(x, exact=True)
    rough, other = streamed.prefill(x)
    with torch.no_grad():
        assert_close(y, model(x), tolerance=TOLERANCE)
    assert (rough - y).abs().max() > 1e-4
    assert [tensor.shape for tensor in state.tensors] == [tensor.shape for tensor in other.tensors]
    assert_close(state.tensors[0], other.tensors[0], tolerance=TOLERANCE)


@several
def test_an_exact_chunk_reads_what_came_before_through_the_recurrence(name: str) -> None:
    """A chunk of one sample is a step, but for the error of the tap at lag 0; any chunks are within the certificate."""
    model = trained(name)
    streamed = stream(model, tol=0.1)
    x = torch.rand(2, 2, 60, dtype=torch.float64) * 2 - 1
    state, parts = None, []
    for chunk in x.split([20, 1, 39], dim=-1):
        y, state = streamed.prefill(chunk, state, exact=True)
        parts.append(y)
    peak = float(model.standardize(x).abs().max())
    error = (torch.cat(parts, -1) - so_far(model, x)).abs().amax((0, 2))
    assert (error <= streamed.certificate.within(peak) + 1e-12).all()
    assert error.max() > 0


@pytest.mark.parametrize("dense", [False, True])
def test_exact_outputs_of_a_recurrence_that_is_its_taps_are_its_own(dense: bool) -> None:
    """Whatever the chunks, and the state too: what came before is read in full."""
    recurrence = Recurrence(*system(4, 3), torch.ones(4, dtype=torch.float64))
    taps = recurrence.taps(400)
    taps, channels = (taps.unflatten(0, (2, 2)), 2) if dense else (taps, 4)
    modal = ModalPart(recurrence, taps, torch.zeros(taps.shape[:-1], dtype=torch.float64))
    exact, x = ExactModal(modal), torch.randn(3, channels, 40, dtype=torch.float64)
    state, parts = exact.begin(3, x.dtype, x.device), []
    for chunk in x.split([25, 1, 14], dim=-1):
        y, state = exact.run(chunk, state)
        parts.append(y)
    whole, left = modal.run(x, modal.begin(3, x.dtype, x.device))
    assert_close(torch.cat(parts, -1), whole, tolerance=TOLERANCE)
    assert_close(state[0], left[0], tolerance=TOLERANCE)


def test_signals_of_another_dtype_are_named() -> None:
    streamed = stream(trained("ccnn").float())
    with pytest.raises(TypeError, match=r"`x` must have the dtype of the layer, torch\.float32"):
        streamed.prefill(torch.zeros(1, 2, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"`x` must have the dtype of the layer, torch\.float32"):
        streamed.step(torch.zeros(1, 2, dtype=torch.float64), streamed.init_state(1))


def test_exactness_is_yes_or_no() -> None:
    with pytest.raises(TypeError, match="`exact`"):
        streamed_once("ccnn", None).prefill(torch.zeros(1, 2, 3), exact="yes")  # type: ignore[arg-type]


@several
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_and_company_change_nothing(name: str, side: str) -> None:
    streamed = streamed_once(name, 0.1)
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
            assert_close(y[i : i + 1, :, there], alone, tolerance=TOLERANCE)
        for mine, other in zip(state.select(torch.tensor([i])).tensors, own.tensors, strict=True):
            assert torch.allclose(mine, other, rtol=1e-12, atol=1e-14)


@several
def test_a_distilled_network_stays_within_its_bound(name: str) -> None:
    """For noise, for signs that follow the error's own taps, and for ramps; by far, as bounds through layers are."""
    model = trained(name)
    for tol in (0.3, 0.05):
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


@pytest.mark.parametrize(("name", "horizon"), [("hyena", None), ("multi_hyena", SIZE)])
def test_the_worst_signals_stay_within_the_bound(name: str, horizon: int | None) -> None:
    """Those that climb to the largest error, from noise, within the limits of the certificate."""
    model = trained(name, "last")
    streamed = stream(model, tol=0.3, horizon=horizon)
    assert "distilled" in {layer.form for layer in streamed.certificate.layers}
    mean, std = (values[:, None] for values in (model.standardize.mean, model.standardize.std))
    for peak in (1.0, 0.1):
        limit, sizes = streamed.certificate.within(peak), list[float]()
        x = peak * torch.randn(6, 2, SIZE, dtype=torch.float64).sign()  # once it is standardised
        for _ in range(15):
            x.requires_grad_()
            signal = x * std + mean
            # `prefill` records no gradients; its chain does.
            chain = streamed._chain
            y, _ = chain.run(signal, chain.begin(6, torch.float64, x.device))
            error = (y[..., -1] - model(signal)).abs()
            assert (error.amax(0) <= limit).all()
            sizes.append(error.mean().item())
            step = torch.autograd.grad(error.sum(), x)[0]
            with torch.no_grad():
                x = (x + 0.3 * peak * step.sign()).clamp(-peak, peak)
        assert max(sizes) > 1.2 * sizes[0]  # it did climb


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


def test_gated_networks_name_their_layers() -> None:
    names = [layer.name for layer in stream(trained("hyena"), tol=0.3).certificate.layers]
    inner = ["short", "long.0", "long.1"]
    # The order in which they are made; a gate has two.
    assert sorted(names) == sorted(["stem", *[f"blocks.{i}.mixer.{name}" for i in range(2) for name in inner]])
    names = [layer.name for layer in stream(trained("multi_hyena"), tol=0.3).certificate.layers]
    assert sorted(names) == sorted(
        ["stem", *[f"blocks.{i}.mixer.{name}" for i in range(2) for name in inner[:1]]]
        + [f"blocks.{i}.mixer.long" for i in range(2)]
    )


def test_an_order_is_kept_to() -> None:
    layers = stream(trained("ccnn"), order=4).certificate.layers
    assert [layer.name for layer in layers] == ["stem", "blocks.0.conv", "blocks.1.conv"]
    assert all(layer.form == "distilled" for layer in layers)
    assert all(4 <= layer.states <= 8 for layer in layers)  # of pairs, or of real poles, stored as complex ones


@several
def test_at_another_resolution(name: str) -> None:
    model = trained(name).at_resolution(2.0)
    x = torch.randn(1, 2, 2 * SIZE, dtype=torch.float64)
    with torch.no_grad():
        assert_close(stream(model).prefill(x)[0], model(x), tolerance=TOLERANCE)
    coarse, x = trained(name).at_resolution(0.5, lowpass=True), torch.randn(1, 2, SIZE, dtype=torch.float64)
    with torch.no_grad():
        assert_close(stream(coarse).prefill(x)[0], coarse(x), tolerance=TOLERANCE)


@pytest.mark.parametrize("name", ["hyena", "multi_hyena"])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_steppers_are_the_network_itself(name: str, factor: float) -> None:
    """Also of a view at another resolution, and whatever is trained later."""
    model = trained(name)
    view = model if factor == 1.0 else model.at_resolution(factor)
    assert isinstance(view, Hyena | MultiHyena)
    x, stepper = torch.randn(2, 2, SIZE, dtype=torch.float64), view.stepper()
    assert not isinstance(stepper, Stream)
    with torch.no_grad():
        expected = view(x)
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert_close(stepper.prefill(x)[0], expected, tolerance=TOLERANCE)


TOKENS = 7
LANGUAGE: dict[str, Any] = {
    "hyena": lambda: Hyena(
        6, TOKENS, 24, blocks=2, width=6, order=3, tokens=TOKENS, tied=True, head="dense", kernel=FILTER
    ),
    "hyena with a stem": lambda: Hyena(
        4, TOKENS, 24, blocks=1, width=6, tokens=TOKENS, head="dense", kernel=FILTER, short=5
    ),
    "multi_hyena": lambda: MultiHyena(
        6, TOKENS, 24, blocks=2, n_filters=3, head_width=2, tokens=TOKENS, tied=True, head="dense", kernel=FILTER
    ),
}  # fmt: skip
every_language = pytest.mark.parametrize("name", LANGUAGE)
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])


def language(name: str, dtype: torch.dtype) -> Any:
    model = LANGUAGE[name]().to(dtype)
    shake(model)
    with torch.no_grad():
        model.embedding.vectors.weight.normal_()
    return model.eval()


@every_language
@DTYPES
def test_steps_chunks_and_the_whole_of_tokens(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model = language(name, dtype)
    ids = torch.randint(TOKENS, (3, 33))
    with torch.no_grad():
        expected = model(ids)
    for stepper in (model.stepper(), stream(model)):
        assert_close(stepper.prefill(ids)[0], expected, tolerance=tolerance)
        state, parts = stepper.init_state(3, dtype=dtype), []
        for token in ids.unbind(-1):
            y, state = stepper.step(token, state)
            parts.append(y)
        assert_close(torch.stack(parts, -1), expected, tolerance=tolerance)
        state, parts = None, []
        for chunk in ids.split([4, 1, 20, 8], -1):
            y, state = stepper.prefill(chunk, state)
            parts.append(y)
        assert_close(torch.cat(parts, -1), expected, tolerance=tolerance)


@every_language
@DTYPES
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_last_outputs_of_padded_tokens(name: str, dtype: torch.dtype, tolerance: float, side: str) -> None:
    """Are those of every row alone, and so is the state; what is padded may be no token at all."""
    model = language(name, dtype)
    stepper, lengths = model.stepper(), [20, 7, 0, 1, 7]
    ids, padded = torch.randint(TOKENS, (5, 20)), torch.full((5, 20), -99)
    for i, n in enumerate(lengths):
        there = slice(0, n) if side == "right" else slice(20 - n, 20)
        padded[i, there] = ids[i, :n]
    last, state = stepper.prefill(padded, lengths=torch.tensor(lengths), side=side, last=True)
    assert last.shape == (5, TOKENS, 1)
    more = torch.randint(TOKENS, (5,))
    after, _ = stepper.step(more, state)
    for i, n in enumerate(lengths):
        row = torch.cat([ids[i, :n], more[i : i + 1]])[None]
        with torch.no_grad():
            alone = model(row)[0]
        assert_close(after[i], alone[:, -1], tolerance=tolerance)
        if n:
            assert_close(last[i, :, 0], alone[:, -2], tolerance=tolerance)
        else:
            assert (last[i] == 0).all()


@pytest.mark.parametrize("head", ["dense", "last", "pool"])
@several
def test_the_last_output_is_that_of_all(name: str, head: str) -> None:
    """Also behind a state, which it brings on as far."""
    streamed = stream(trained(name, head))
    x = torch.randn(3, 2, 15, dtype=torch.float64)
    before = streamed.prefill(torch.randn(3, 2, 4, dtype=torch.float64))[1]
    whole, state = streamed.prefill(x, before)
    last, same = streamed.prefill(x, before, last=True)
    assert last.shape == (3, 3, 1)
    assert_close(last, whole[..., -1:], tolerance=TOLERANCE)
    assert all(torch.equal(one, other) for one, other in zip(state.tensors, same.tensors, strict=True))
    one, _ = streamed.prefill(x[..., :1], before, last=True)
    assert_close(one, whole[..., :1], tolerance=TOLERANCE)


@every_language
def test_distilled_tokens_stay_within_the_bound(name: str) -> None:
    model = language(name, torch.float64)
    streamed = stream(model, tol=0.3)
    assert "distilled" in {layer.form for layer in streamed.certificate.layers}
    ids = torch.randint(TOKENS, (8, 60))
    with torch.no_grad():
        error = (streamed.prefill(ids)[0] - model(ids)).abs().amax((0, 2))
    assert (error > 0).all()
    assert (error <= streamed.certificate.unit).all()


def test_states_of_ids_have_the_precision_of_the_network() -> None:
    model = CCNN(4, 3, 24, blocks=1, width=6, causal=True, tokens=5, head="dense").double().eval()
    ids, streamed = torch.randint(5, (2, 30)), stream(model)
    first, state = streamed.prefill(ids[:, :11])
    with torch.no_grad():
        assert_close(torch.cat([first, streamed.prefill(ids[:, 11:], state)[0]], -1), model(ids))


@several
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    model, x = trained(name).to(dtype), torch.randn(2, 2, SIZE).to(dtype)
    whole, state = stream(model, tol=0.1).prefill(x)
    assert whole.dtype == dtype
    assert all(tensor.dtype in (torch.float32, torch.float64, torch.complex64) for tensor in state.tensors)
    with torch.no_grad():
        assert_close(stream(model).prefill(x)[0].float(), model(x).float(), tolerance=0.05)


@several
def test_no_rows(name: str) -> None:
    streamed = stream(trained(name, "last"))
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


@several
def test_training_later_changes_no_stream(name: str) -> None:
    model, x = trained(name), torch.randn(1, 2, 10, dtype=torch.float64)
    streamed = stream(model)
    before = streamed.prefill(x)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.train()
    assert torch.equal(streamed.prefill(x)[0], before)
    assert model.training
    assert not streamed.network.training


@several
def test_states_are_plain_tensors(name: str) -> None:
    streamed = stream(trained(name, "pool").float(), tol=0.1)
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
        (lambda: Hyena(1, 2, 16, blocks=1, width=4, causal=False), r"`model`: stem is not causal on one axis"),
        (lambda: Hyena(1, 2, (8, 8), blocks=1, width=4), r"`model` must be a network of series, of one axis"),
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


def test_states_in_another_precision() -> None:
    """Real parts become float64, complex ones complex128; the stream goes on from them in that precision."""
    streamed, x = stream(trained("hyena"), order=4), torch.randn(2, 2, 9, dtype=torch.float64)
    state = streamed.prefill(x.float())[1]
    wide = state.to(torch.float64)
    assert {tensor.dtype for tensor in wide.tensors} == {torch.float64, torch.complex128}
    assert {tensor.dtype for tensor in wide.to(torch.float32).tensors} == {torch.float32, torch.complex64}
    for mine, other in zip(wide.to(torch.float32).tensors, state.tensors, strict=True):
        assert torch.equal(mine, other)
    assert {tensor.dtype for tensor in streamed.prefill(x, wide)[1].tensors} == {torch.float64, torch.complex128}
    assert {tensor.dtype for tensor in state.to("cpu").tensors} == {torch.float32, torch.complex64}


def test_states_in_half_precision_are_of_real_numbers() -> None:
    state = stream(trained("hyena"), order=4).init_state(1)
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(
            TypeError, match=r"`target` must be torch.float32 or torch.float64 for a state with complex"
        ):
            state.to(dtype)
        assert State((torch.ones(1, 2),)).to(dtype).tensors[0].dtype == dtype
    for other in (torch.complex64, torch.long):
        with pytest.raises(TypeError, match="`target` must be a device or a real floating-point dtype; got torch"):
            state.to(other)


def test_states_of_other_streams_are_refused() -> None:
    """Of another order, of taps, and real where they must be complex."""
    x, made = torch.randn(2, 2, 3), [stream(trained("ccnn").float(), order=order) for order in (4, 8, None)]
    for one, other in ((0, 1), (1, 0), (0, 2), (2, 0)):
        with pytest.raises(ValueError, match=r"`state`: tensor \d must be .*States go with the network, and the order"):
            made[one].prefill(x, made[other].init_state(2))
    state = made[0].init_state(2)
    first = next(i for i, tensor in enumerate(state.tensors) if tensor.is_complex())
    real = State(tuple(tensor.real if tensor.is_complex() else tensor for tensor in state.tensors))
    with pytest.raises(ValueError, match=rf"`state`: tensor {first} must be complex, .*got a float32 tensor"):
        made[0].step(x[..., 0], real)


def test_a_state_counts_its_rows() -> None:
    assert State((torch.zeros(3, 2),)).batch == 3


@several
def test_remembered_samples_are_no_view_of_the_signal(name: str) -> None:
    state = stream(trained(name, "pool").float()).prefill(torch.randn(1, 2, 500))[1]
    assert state.nbytes == sum(tensor.untyped_storage().nbytes() for tensor in state.tensors)
