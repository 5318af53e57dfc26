"""Steps of decoding in plain PyTorch, against the whole sequence computed from the filters' taps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.engines.decode import gated_step, multi_head_step, reference_gated_step, reference_multi_head_step
from omniconv.engines.recurrent import prefill_modes
from omniconv.testing import TOLERANCE, assert_close

EXACT = 1e-12


def some_parameters(
    channels: int, filters: int, modes: int, dtype: torch.dtype = torch.float64, *, inputs: bool = False, short: int = 3
) -> dict[str, Any]:
    """A short convolution and stable filters, the numbers those of float32."""
    poles = torch.polar(torch.rand(modes, filters) ** 0.1, torch.pi * torch.rand(modes, filters))
    found = {
        "short_taps": torch.randn(3 * channels, short),
        "short_bias": torch.randn(3 * channels),
        "poles": torch.stack([poles.real, poles.imag], dim=1),
        "residues": torch.randn(modes, 2, filters),
        "direct": torch.randn(filters),
        "inputs": 0.5 + torch.rand(modes, filters) if inputs else None,
    }
    return {name: values if values is None else values.to(dtype) for name, values in found.items()}


def causal(x: Tensor, taps: Tensor) -> Tensor:
    """y_t = sum_{s <= t} taps_{t-s} x_s of x (length, ...) with taps (length, ...), sum by sum."""
    return torch.stack([sum((taps[t - s] * x[s] for s in range(t + 1)), torch.zeros_like(x[0])) for t in range(len(x))])


def long_taps(given: dict[str, Any], length: int) -> Tensor:
    """direct at lag 0, Re sum_n residues_n inputs_n poles_n^(t-1) at lag t: (length, filters)."""
    poles, residues = (torch.view_as_complex(given[name].mT.contiguous()) for name in ("poles", "residues"))
    if given["inputs"] is not None:
        residues = residues * given["inputs"]
    later = [(residues * poles ** (t - 1)).real.sum(0) for t in range(1, length)]
    return torch.stack([given["direct"], *later])


def projections(x: Tensor, given: dict[str, Any]) -> tuple[Tensor, ...]:
    """Query, key and value of a sequence (length, batch, 3 channels) behind the short convolution."""
    short = given["short_taps"].T
    taps = torch.zeros(max(len(short), len(x)), x.shape[-1], dtype=x.dtype)
    taps[: len(short)] = short
    return (causal(x, taps[: len(x), None]) + given["short_bias"]).chunk(3, dim=-1)


def gated(x: Tensor, given: dict[str, Any]) -> Tensor:
    """The whole sequence (length, batch, 3 channels) through a Hyena mixer."""
    q, k, v = projections(x, given)
    return q * causal(k * v, long_taps(given, len(x))[:, None])


def multi_head(x: Tensor, given: dict[str, Any]) -> Tensor:
    """The whole sequence (length, batch, 3 channels) through a MultiHyena mixer."""
    heads = [values.unflatten(-1, (len(given["direct"]), -1)) for values in projections(x, given)]
    q, k, v = heads
    z = torch.einsum("tbmi,tbmj->tbmij", k, v)
    w = causal(z, long_taps(given, len(x))[:, None, :, None, None])
    return torch.einsum("tbmij,tbmi->tbmj", w, q).flatten(-2)


def silence(
    batch: int, channels: int, shape: tuple[int, ...], modes: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Window and state before the first sample."""
    return torch.zeros(2, batch, 3 * channels, dtype=dtype), torch.zeros(modes, 2, batch, *shape, dtype=dtype)


@pytest.mark.parametrize("step", [gated_step, reference_gated_step])
@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize(("batch", "channels", "modes"), [(1, 1, 1), (2, 5, 3), (3, 4, 8)])
def test_steps_make_the_whole_sequence(step: Any, batch: int, channels: int, modes: int, inputs: bool) -> None:
    given = some_parameters(channels, channels, modes, inputs=inputs)
    x = torch.randn(13, batch, 3 * channels, dtype=torch.float64)
    memory = silence(batch, channels, (channels,), modes)
    y = torch.stack([step(sample, *memory, **given) for sample in x])
    assert_close(y, gated(x, given), tolerance=EXACT)


@pytest.mark.parametrize("step", [multi_head_step, reference_multi_head_step])
@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize(("batch", "filters", "width", "modes"), [(1, 1, 1, 1), (2, 3, 2, 3), (1, 2, 5, 8)])
def test_steps_of_heads_make_the_whole_sequence(
    step: Any, batch: int, filters: int, width: int, modes: int, inputs: bool
) -> None:
    given = some_parameters(filters * width, filters, modes, inputs=inputs)
    x = torch.randn(13, batch, 3 * filters * width, dtype=torch.float64)
    memory = silence(batch, filters * width, (filters, width, width), modes)
    y = torch.stack([step(sample, *memory, **given) for sample in x])
    assert_close(y, multi_head(x, given), tolerance=EXACT)


@pytest.mark.parametrize("short", [1, 2, 4, 5])
def test_short_convolutions_of_any_taps(short: int) -> None:
    given = some_parameters(4, 4, 3, short=short)
    x = torch.randn(9, 2, 12, dtype=torch.float64)
    memory = torch.zeros(short - 1, 2, 12, dtype=torch.float64), torch.zeros(3, 2, 2, 4, dtype=torch.float64)
    y = torch.stack([gated_step(sample, *memory, **given) for sample in x])
    assert_close(y, gated(x, given), tolerance=EXACT)
    assert torch.equal(memory[0], x[len(x) - short + 1 :])


def test_heads_of_width_one_are_channels() -> None:
    given = some_parameters(4, 4, 3)
    x = torch.randn(5, 2, 12, dtype=torch.float64)
    one, other = silence(2, 4, (4,), 3), silence(2, 4, (4, 1, 1), 3)
    for sample in x:
        assert_close(multi_head_step(sample, *other, **given), gated_step(sample, *one, **given))


def test_the_memory_is_changed_in_place() -> None:
    given = some_parameters(3, 3, 2)
    window, state = silence(2, 3, (3,), 2)
    addresses = window.data_ptr(), state.data_ptr()
    x = torch.randn(3, 2, 9, dtype=torch.float64)
    for sample in x:
        before = state.clone()
        gated_step(sample, window, state, **given)
        assert not torch.equal(before, state)
    assert (window.data_ptr(), state.data_ptr()) == addresses
    assert torch.equal(window, x[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_rounds_nothing_but_what_goes_in_and_out(dtype: torch.dtype) -> None:
    given = some_parameters(5, 5, 3, torch.float32)
    exact = {name: values if values is None else values.double() for name, values in given.items()}
    x = torch.randn(20, 2, 15).to(dtype)
    window, state = torch.zeros(2, 2, 15, dtype=dtype), torch.zeros(3, 2, 2, 5)
    y = torch.stack([gated_step(sample, window, state, **given) for sample in x])
    assert y.dtype == dtype
    assert_close(y, gated(x.double(), exact), tolerance=max(2e-6, TOLERANCE[dtype]))


def test_a_state_of_bfloat16_is_rounded_step_by_step() -> None:
    """The state is what is remembered: a step from it is that from the same numbers in float64."""
    given = some_parameters(5, 5, 3, torch.float32, inputs=True)
    exact = {name: values.double() for name, values in given.items()}
    window, state = torch.zeros(2, 2, 15), torch.zeros(3, 2, 2, 5, dtype=torch.bfloat16)
    for sample in torch.randn(6, 2, 15):
        ideal = window.double(), state.double()
        expected = gated_step(sample.double(), *ideal, **exact)
        assert_close(gated_step(sample, window, state, **given), expected)
        assert_close(state, ideal[1])
        assert state.dtype == torch.bfloat16


def test_steps_at_resonance_do_not_drift() -> None:
    """The slowest poles that are fitted to 2048 taps, driven at their frequencies: rounding them would add up."""
    angles = torch.tensor([0.0, 0.3, 1.1, 2.5], dtype=torch.float64)
    poles = torch.polar(torch.full_like(angles, 1 - 1 / (20 * 2048)), angles)[:, None]
    steps, one = 16_000, torch.ones(4, dtype=torch.float64)
    u = torch.cos(angles[:, None] * torch.arange(steps)).float()
    exact, _ = prefill_modes(u[None].double(), poles, one[:, None].to(torch.complex128))
    given: dict[str, Any] = {"short_taps": torch.eye(3)[0].expand(12, 3), "short_bias": torch.zeros(12)}
    given |= {"poles": torch.view_as_real(poles.T).mT.contiguous(), "direct": torch.zeros(4)}
    given["residues"] = torch.eye(2)[0][None, :, None].expand(1, 2, 4)
    window, state, worst = torch.zeros(2, 1, 12), torch.zeros(1, 2, 1, 4), torch.zeros(4)
    for t, samples in enumerate(torch.cat([torch.ones(steps, 4), u.T, torch.ones(steps, 4)], dim=1)[:, None]):
        y = gated_step(samples, window, state, **given)
        if t % 1000 == 999:
            worst = torch.maximum(worst, (y - exact[..., t - 1]).abs()[0].float())
    assert (worst < 1e-5 * exact.abs().amax((0, 2))).all()


@pytest.mark.parametrize("inputs", [False, True])
def test_a_state_in_float32_is_rounded_once_a_step(inputs: bool) -> None:
    """Products and sums are those of float64: nothing but what is kept is rounded, at random, step by step."""
    given = some_parameters(5, 5, 3, torch.float32, inputs=inputs)
    given["poles"] = given["poles"].double() * (1 - 1e-9)
    window, state = torch.zeros(2, 2, 15), torch.randn(3, 2, 2, 5)
    given["short_taps"] = torch.eye(3)[0].expand(15, 3)
    given["short_bias"] = torch.zeros(15)
    sample = torch.randn(2, 15)
    _, k, v = sample.chunk(3, dim=-1)
    u = (k * v).double() if given["inputs"] is None else given["inputs"].double()[:, None] * (k * v).double()
    a, b = given["poles"][:, :, None].unbind(1)
    real, imaginary = state.double().unbind(1)
    expected = torch.stack([a * real - b * imaginary + u, a * imaginary + b * real], dim=1).float()
    gated_step(sample, window, state, **given)
    assert torch.equal(state, expected)


@pytest.mark.parametrize("slowness", [2**-11, 2**-8, 2**-6, 2**-4])
def test_what_a_state_of_bfloat16_holds_of_a_constant(slowness: float) -> None:
    """It stops where less than half a unit in the last place comes in: short by up to 2^-8 / slowness of itself."""
    gain = torch.tensor([[(1 - (1 - slowness) ** 2) ** 0.5]])
    given: dict[str, Any] = {"short_taps": torch.eye(3)[0].expand(3, 3), "short_bias": torch.zeros(3), "inputs": gain}
    given |= {"poles": torch.tensor([[[1 - slowness], [0.0]]]), "residues": torch.tensor([[[1.0], [0.0]]])}
    window, state = torch.zeros(2, 1, 3), torch.zeros(1, 2, 1, 1, dtype=torch.bfloat16)
    steps = int(2 / slowness)
    for _ in range(steps):
        gated_step(torch.ones(1, 3), window, state, **given, direct=torch.zeros(1))
    full, reached = gain.item() / slowness * (1 - (1 - slowness) ** steps), state[0, 0].item()
    assert (1 - 2**-7) * full / (1 + 2**-8 / slowness) < reached < (1 + 2**-8) * full
    assert (reached < 0.8 * full) == (slowness <= 2**-8)


def test_nothing_is_differentiated() -> None:
    given = {name: values.requires_grad_() for name, values in some_parameters(2, 2, 1, inputs=True).items()}
    window, state = silence(1, 2, (2,), 1)
    y = gated_step(torch.randn(1, 6, dtype=torch.float64), window, state, **given)
    assert not y.requires_grad
    assert not state.requires_grad


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("state", torch.zeros(3, 2, 2), r"`state` must be \(modes, 2, batch, channels\)"),
        ("state", torch.zeros(3, 1, 2, 4), r"`state` must be \(modes, 2, batch, channels\)"),
        ("state", torch.zeros(3, 2, 2, 4, dtype=torch.float16), "`state` must be float32 or bfloat16"),
        ("state", torch.zeros(3, 2, 4, 2).mT, r"`state` must be contiguous.* got strides \(16, 8, 1, 2\)"),
        ("projected", torch.zeros(2, 11), r"`projected` must be \(batch, 3 channels\), here \(2, 12\)"),
        ("window", torch.zeros(2, 3, 12), r"`window` must be \(taps - 1, batch, 3 channels\), here \(2, 2, 12\)"),
        ("window", torch.zeros(2), r"`window` must be \(taps - 1, batch, 3 channels\), here \(2, 2, 12\)"),
        ("window", torch.zeros(2, 2, 12).half(), "`window` must have the dtype of `projected`, torch.float32"),
        ("window", torch.zeros(2, 12, 2).mT, "`window` must be contiguous"),
        (
            "short_taps",
            torch.zeros(3, 12),
            r"`short_taps` must be \(3 channels, taps\), here \(12, 3\).* got .*\(3, 12\)",
        ),
        (
            "short_taps",
            torch.zeros(12, 4),
            r"`short_taps` must be \(3 channels, taps\), here \(12, 3\).* got .*\(12, 4\)",
        ),
        ("short_bias", torch.zeros(4), r"`short_bias` must be \(3 channels,\), here \(12,\)"),
        ("poles", torch.zeros(3, 4), r"`poles` must be \(modes, 2, filters\).*here \(3, 2, 4\)"),
        ("residues", torch.zeros(2, 2, 4), r"`residues` must be \(modes, 2, filters\).*here \(3, 2, 4\)"),
        ("direct", torch.zeros(4, device="meta"), r"`direct` must be one per filter, here \(4,\) on cpu.*on meta"),
        ("inputs", torch.zeros(4), r"`inputs` must be \(modes, filters\), here \(3, 4\).* got .*\(4,\)"),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: Tensor, message: str) -> None:
    window, state = silence(2, 4, (4,), 3, torch.float32)
    given = some_parameters(4, 4, 3, torch.float32) | {
        "projected": torch.zeros(2, 12), "window": window, "state": state
    }  # fmt: skip
    for step in (gated_step, reference_gated_step):
        with pytest.raises(ValueError, match=message):
            step(**{**given, name: value})


def test_what_is_no_tensor_of_numbers_is_named() -> None:
    window, state = silence(2, 4, (4,), 3)
    given = some_parameters(4, 4, 3)
    with pytest.raises(TypeError, match=r"`projected` must be a torch.Tensor; got list"):
        gated_step([0.0], window, state, **given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`poles` must hold floating-point numbers"):
        gated_step(
            torch.zeros(2, 12).double(), window, state, **{**given, "poles": torch.zeros(3, 4, dtype=torch.complex64)}
        )


def test_states_of_heads_are_square() -> None:
    window, state = silence(2, 4, (2, 2, 1), 3)
    with pytest.raises(ValueError, match=r"`state` must be \(modes, 2, batch, n_filters, head_width, head_width\)"):
        multi_head_step(torch.zeros(2, 12).double(), window, state, **some_parameters(4, 2, 3))
    with pytest.raises(ValueError, match=r"`poles` must be \(modes, 2, filters\).*here \(3, 2, 2\)"):
        multi_head_step(torch.zeros(2, 12).double(), *silence(2, 4, (2, 2, 2), 3), **some_parameters(4, 4, 3))
