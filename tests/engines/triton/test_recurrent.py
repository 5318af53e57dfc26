"""The kernels of the recurrent engine, interpreted, against the engine without them in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.engines.recurrent import Tables, carry, convolve_fused, convolve_modes, refuse_fused
from omniconv.kernels import Modal, Modes
from omniconv.testing import TENSOR_CORES, assert_close

pytest.importorskip("triton")
from omniconv.engines.triton.recurrent import carry_states, convolve_chunks

# The interpreter's loops over a number that is known at run time alone.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # else in the interpreter
SIZES = [1, 2, 3, 7, 64, 100, 127, 128, 1000, 1031]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is not written holds no number."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)


def some_modes(channels: int, modes: int, reach: int = 300) -> Modes:
    found = Modal(1, channels, reach=reach, causal=True, modes=modes).to_modal()
    assert found is not None
    return Modes(found.poles.to(DEVICE), found.residues.to(DEVICE))


def fused(x: Tensor, modes: Modes, chunk: int = 64, *, reverse: bool = False) -> Tensor:
    tables = Tables.of(modes.poles, modes.residues, chunk, torch.float32)
    return convolve_chunks(x, tables.within, tables.entry, tables.leaving, tables.factor, reverse)


def exact(x: Tensor, modes: Modes, *, reverse: bool = False) -> Tensor:
    """In float64; the transpose of a causal convolution is the same one of the reversed signal."""
    if reverse:
        return exact(x.flip(-1), modes).flip(-1)
    return convolve_modes(x.double(), modes.poles, modes.residues, chunk=37)


@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize("dtype", TENSOR_CORES)
@pytest.mark.parametrize("reverse", [False, True])
def test_any_length(length: int, dtype: torch.dtype, reverse: bool) -> None:
    channels = 1 if length >= 1000 else 2
    modes = some_modes(channels, 5, reach=max(1, length - 1))
    x = torch.randn(3, channels, length, device=DEVICE).to(dtype)
    y = fused(x, modes, reverse=reverse)
    assert y.dtype == dtype
    assert_close(y, exact(x, modes, reverse=reverse), tolerance=TENSOR_CORES[dtype])


@pytest.mark.parametrize(("batch", "modes", "chunk"), [(1, 1, 32), (17, 16, 32), (2, 33, 64), (1, 64, 64), (33, 3, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_batch_and_number_of_modes(batch: int, modes: int, chunk: int, dtype: torch.dtype) -> None:
    given = some_modes(1, modes)
    x = torch.randn(batch, 1, 100, device=DEVICE).to(dtype)
    for reverse in (False, True):
        assert_close(
            fused(x, given, chunk, reverse=reverse), exact(x, given, reverse=reverse), tolerance=TENSOR_CORES[dtype]
        )


@pytest.mark.parametrize("dtype", TENSOR_CORES)
def test_modes_that_cancel_and_hardly_decay(dtype: torch.dtype) -> None:
    """Either of two modes is a thousand times their sum, and their states are beyond the largest float16."""
    poles = torch.tensor([[1 - 1e-6, 1 - 1e-6, 0.5, 0.0]], dtype=torch.complex128, device=DEVICE)
    residues = torch.tensor([[100, -99.9, 1, 2]], dtype=torch.complex128, device=DEVICE)
    x = (100 + torch.randn(1, 1, 1031, device=DEVICE)).to(dtype)
    assert_close(fused(x, Modes(poles, residues)), exact(x, Modes(poles, residues)), tolerance=3e-3)


def test_what_float32_rounds_off_a_factor_does_not_add_up() -> None:
    """A mode that never decays, from chunk to chunk by the factor, of a few at random, that float32 holds worst."""
    angle = 3 * torch.rand(20000, dtype=torch.float64)
    factor = torch.polar(torch.ones_like(angle), 16 * angle)
    worst = (torch.view_as_complex(torch.view_as_real(factor).float().double()) / factor).log().imag.abs().argmax()
    pole = torch.polar(torch.ones(1, 1, dtype=torch.float64), angle[worst].reshape(1, 1)).to(DEVICE)
    modes = Modes(pole, torch.ones_like(pole))
    x = torch.zeros(1, 1, 16 * 600, device=DEVICE)
    x[..., 0] = 1
    assert_close(fused(x, modes, 16), exact(x, modes), tolerance=1e-5)


def test_signals_of_any_strides() -> None:
    modes = some_modes(3, 4)
    x = torch.randn(100, 3, 2, device=DEVICE)
    for view in (x.permute(2, 1, 0), x[::2].permute(2, 1, 0), x[:1].expand(100, 3, 2).permute(2, 1, 0)):
        assert_close(fused(view, modes), exact(view, modes), tolerance=1e-5)
    assert fused(torch.zeros(0, 3, 5, device=DEVICE), modes).shape == (0, 3, 5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "modes"), [(1, 1), (5, 3), (33, 70)])
def test_the_states_of_chunks(count: int, modes: int, dtype: torch.dtype, reverse: bool) -> None:
    entered = torch.randn(2, 3, count, 2 * modes, dtype=dtype)
    poles = torch.polar(torch.rand(2, modes).double(), 3 * torch.rand(2, modes).double())
    factor = torch.cat([poles.real, poles.imag], dim=-1)
    states = carry_states(entered.to(DEVICE), factor.to(DEVICE), reverse).cpu()
    assert states.dtype == dtype
    assert_close(states, carry(entered.double(), factor, reverse))


@pytest.mark.parametrize("dtype", TENSOR_CORES)
@pytest.mark.parametrize("length", [1, 70, 200])
def test_gradients(dtype: torch.dtype, length: int) -> None:
    modes = some_modes(2, 3)
    weights = torch.randn(3, 2, length, device=DEVICE).to(dtype)
    x = torch.randn(3, 2, length, device=DEVICE).to(dtype).requires_grad_()
    point = (x, modes.poles.requires_grad_(), modes.residues.requires_grad_())
    other = (x.detach().double().requires_grad_(), *point[1:])
    grads = torch.autograd.grad(convolve_fused(*point, 64), point, weights)
    expected = torch.autograd.grad(convolve_modes(*other), other, weights.double())
    assert grads[0].dtype == dtype
    assert_close(grads[0], expected[0], tolerance=TENSOR_CORES[dtype])
    for one, two in zip(grads[1:], expected[1:], strict=True):
        assert_close(torch.view_as_real(one), torch.view_as_real(two), tolerance=1e-5)


def test_second_derivatives() -> None:
    """Of the fused map and of its transpose, in all that goes in."""
    modes = some_modes(1, 2)
    x, weights = torch.randn(2, 1, 70, device=DEVICE), torch.randn(2, 1, 70, device=DEVICE)
    results = []
    for dtype in (torch.float32, torch.float64):
        point = (x.to(dtype).requires_grad_(), modes.poles.requires_grad_(), modes.residues.requires_grad_())
        y = convolve_fused(*point, 32) if dtype == torch.float32 else convolve_modes(*point)
        first = torch.autograd.grad((y * weights.to(dtype)).square().sum(), point, create_graph=True)
        results.append(torch.autograd.grad(torch.stack([g.abs().square().sum() for g in first]).sum(), point))
    for one, two in zip(*results, strict=True):
        one, two = (v if v.is_floating_point() else torch.view_as_real(v) for v in (one, two))
        assert_close(one, two, tolerance=1e-5)


def test_what_the_kernel_is_for() -> None:
    x, poles = torch.zeros(1, 2, 5), torch.zeros(2, 65, dtype=torch.complex128)
    assert refuse_fused(x, poles, 64) == "the device is cpu; it needs a CUDA device"
    if DEVICE == "cuda":
        x = x.cuda()
        assert refuse_fused(x.double(), poles, 64) == "it has no float64"
        assert refuse_fused(x, poles, 64) == "there are 65 modes; it has room for 64"
        assert refuse_fused(x, poles[:, :3], 48) == "the chunk is 48; it takes 32 or 64"
        assert refuse_fused(x, poles[:, :64], 64) is None


def test_a_batch_may_have_more_groups_than_an_axis_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    grids: list[tuple[int, ...]] = []

    class Noted:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            grids.append(grid)
            return lambda *given, **named: None

    monkeypatch.setattr("omniconv.engines.triton.recurrent.chunks_kernel", Noted())
    within, entry, leaving = (torch.empty(2, *sizes, device="meta") for sizes in ((32, 32), (32, 6), (6, 32)))
    x, factor = torch.empty(2**22, 2, 5, device="meta"), torch.empty(2, 6, device="meta")
    convolve_chunks(x, within, entry, leaving, factor, False)
    assert grids == [(2 * 2**18,)]
