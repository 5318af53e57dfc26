"""Every contestant computes the same convolution, and refuses what it cannot do."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from omniconv._errors import EngineError
from omniconv.bench import contestants as module
from omniconv.bench.cases import Case
from omniconv.bench.contestants import Contestant, action, entrants, inputs, power_of_two, reference
from omniconv.engines import ENGINES, convolve
from omniconv.testing import assert_close

CASES = [
    Case("f", 2, 3, (9,), (4,), causal=True),
    Case("f", 2, 3, (9,), (4,)),
    Case("f", 2, 3, (8,), (9,)),
    Case("f", 2, 3, (8,), (7,), out=2, causal=True),
    Case("f", 2, 3, (9,), (4,), boundary="circular"),
    Case("f", 2, 3, (8,), (8,), out=4, boundary="circular"),
    Case("f", 2, 3, (6, 7), (3, 5)),
    Case("f", 2, 3, (6, 7), (4, 2)),
    Case("f", 1, 2, (5, 8), (5, 4), boundary="circular"),
    Case("f", 1, 2, (6, 7), (3, 4), out=3),
    Case("f", 1, 2, (4, 5, 6), (3, 2, 5)),
    Case("f", 1, 2, (4, 5, 6), (3, 3, 3), out=2, boundary="circular"),
]


def double(case: Case, *, training: bool) -> Case:
    return Case(**{**vars(case), "dtype": torch.float64, "training": training})


def named(name: str, *, compiled: bool = False) -> Contestant:
    (found,) = (contestant for contestant in entrants(compiled=compiled) if contestant.name == name)
    return found


@pytest.mark.parametrize("name", ["auto", "direct", "fft", "F.conv", "torch.fft", "reference"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_convolution_and_both_gradients_are_those_of_the_definition(case: Case, name: str) -> None:
    case = double(case, training=True)
    x, taps, cotangent = operands = inputs(case, "cpu", 0)
    leaves = (x.clone().requires_grad_(), taps.clone().requires_grad_())
    y = convolve(*leaves, causal=case.causal, boundary=case.boundary, engine="reference")
    expected = dict(zip(("y", "dx", "dtaps"), (y, *torch.autograd.grad(y, leaves, cotangent)), strict=True))
    results = reference(case, operands) if name == "reference" else action(named(name), case, operands)()
    assert results.keys() == expected.keys()
    for key, value in results.items():
        assert_close(value, expected[key], key)
    forward = double(case, training=False)
    again = reference(forward, operands) if name == "reference" else action(named(name), forward, operands)()
    assert list(again) == ["y"]
    assert_close(again["y"], y)


def test_half_precision_keeps_the_dtype_of_the_signal() -> None:
    case = Case("f", 2, 3, (9,), (4,), causal=True, dtype=torch.bfloat16, training=True)
    operands = inputs(case, "cpu", 0)
    expected = reference(case, operands)
    for name in ("auto", "F.conv", "torch.fft"):
        results = action(named(name), case, operands)()
        assert [value.dtype for value in results.values()] == [torch.bfloat16, torch.bfloat16, torch.float32]
        for key, value in results.items():
            assert_close(value, expected[key], key, tolerance=1e-2)


def test_the_list_has_every_engine_but_the_definition() -> None:
    names = [contestant.name for contestant in entrants()]
    assert names[0] == "auto"
    assert {name for name in ENGINES if name != "reference"} <= set(names)
    assert "reference" not in names
    assert [c.name for c in entrants() if not c.ours] == ["F.conv", "torch.fft", "FlashFFTConv", "nvSubquadratic"]
    assert "torch.compile(torch.fft)" in [contestant.name for contestant in entrants(compiled=True)]


def test_an_engine_that_rejects_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named("direct").reject(CASES[0], "cpu") is None
    monkeypatch.setattr(module, "select_engine", refuse)
    assert named("fft").reject(CASES[0], "cpu") == "too odd"


def refuse(problem: object, name: str) -> None:
    raise EngineError("too odd")


def test_hopeless_sums_are_left_out() -> None:
    case = Case("f", 1, 16, (65536,), (65536,), causal=True)
    for name in ("direct", "F.conv"):
        assert named(name).reject(case, "cpu") == "6.9e+10 products, more than 3e+09"
        assert named(name).reject(case, "cuda") is None
    assert named("fft").reject(case, "cpu") is None
    assert named("F.conv").reject(Case("f", 1, 256, (1024,), (256,), out=256), "cpu") is None


@pytest.mark.parametrize(("n", "expected"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_powers_of_two(n: int, expected: int) -> None:
    assert power_of_two(n) == expected


HALF = Case("f", 2, 16, (64,), (64,), causal=True, dtype=torch.float16, training=True)


@pytest.mark.parametrize("name", ["FlashFFTConv", "nvSubquadratic"])
def test_kernels_for_cuda_refuse_everything_else(name: str) -> None:
    peer = named(name)
    reason = "causal depthwise sequences of float16 or bfloat16 on CUDA only"
    assert peer.reject(HALF, "cpu") == reason
    for change in ({"dtype": torch.float32}, {"causal": False}, {"out": 3}, {"size": (8, 8), "kernel": (8, 8)}):
        assert peer.reject(Case(**{**vars(HALF), **change}), "cuda") == reason
    module.importable.cache_clear()
    assert "is not installed" in (peer.reject(HALF, "cuda") or "")


class Frame:
    """FlashFFTConv as it is called: a frame, then x and taps of half of it."""

    def __init__(self, seqlen: int, dtype: torch.dtype):
        self.seqlen, self.dtype = seqlen, dtype

    def to(self, device: str) -> Frame:
        assert device == "cuda"
        return self

    def __call__(self, x: Tensor, taps: Tensor) -> Tensor:
        assert x.shape[-1] == taps.shape[-1] == self.seqlen // 2
        assert (x.dtype, taps.dtype) == (self.dtype, torch.float32)
        return convolve(x, taps, causal=True)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages, as far as they are called."""
    flash, package, kernels = (ModuleType(name) for name in ("flashfftconv", "subquadratic_ops_torch", "kernels"))
    flash.FlashFFTConv = Frame  # type: ignore[attr-defined]

    def fft_causal_conv1d(x: Tensor, weight: Tensor) -> Tensor:
        assert x.dtype == weight.dtype
        assert weight.ndim == 2
        return convolve(x, weight.float(), causal=True)

    kernels.fft_causal_conv1d = fft_causal_conv1d  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flashfftconv", flash)
    monkeypatch.setitem(sys.modules, "subquadratic_ops_torch", package)
    monkeypatch.setitem(sys.modules, "subquadratic_ops_torch.fft_causal_conv1d", kernels)
    module.importable.cache_clear()
    module.flash_module.cache_clear()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["FlashFFTConv", "nvSubquadratic"])
@pytest.mark.parametrize("taps", [64, 40])
def test_kernels_for_cuda_are_called_as_they_want(name: str, taps: int) -> None:
    case = Case(**{**vars(HALF), "kernel": (taps,)})
    assert named(name).reject(case, "cuda") is None
    operands = inputs(case, "cpu", 0)
    results, expected = action(named(name), case, operands)(), reference(case, operands)
    for key, value in results.items():
        assert_close(value, expected[key], key, tolerance=3e-3)
    module.importable.cache_clear()


@pytest.mark.usefixtures("installed")
def test_flash_wants_powers_of_two_and_channels_by_sixteen() -> None:
    for change in ({"size": (60,), "kernel": (60,)}, {"kernel": (65,)}, {"channels": 10}):
        case = Case(**{**vars(HALF), **change})
        assert "power of two" in (named("FlashFFTConv").reject(case, "cuda") or "")
        assert named("nvSubquadratic").reject(case, "cuda") is None
    module.importable.cache_clear()


def test_a_package_that_breaks_on_import_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise OSError("undefined symbol")

    monkeypatch.setattr("importlib.import_module", broken)
    module.importable.cache_clear()
    assert not module.importable("flashfftconv")
    module.importable.cache_clear()


def test_compiled_functions_are_kept_apart() -> None:
    first, second = (module.compiled_for(case) for case in CASES[:2])
    assert first is module.compiled_for(CASES[0])
    assert first is not second
    codes = {id(f._torchdynamo_orig_callable.__code__) for f in (first, second)}  # type: ignore[attr-defined]
    assert len(codes) == 2
