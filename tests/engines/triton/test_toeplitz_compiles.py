"""What the compiler makes of the kernels for the tiles that are chosen, without a graphics processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omniconv import Problem
from omniconv.engines.toeplitz import convolve_tile, correlate_tile
from omniconv.engines.triton.toeplitz import Tile
from tests.engines.triton.compiled import SHARED_MEMORY, Compiled, Kernel, compiled

MODULE = "omniconv.engines.triton.toeplitz"
NAMES = {torch.float32: ("*fp32", "tl.float32"), torch.float16: ("*fp16", "tl.float16")}
NAMES[torch.bfloat16] = ("*bf16", "tl.bfloat16")
REGISTERS = 65536
"""Of a multiprocessor."""


def problem_of(n: int, kernel_size: int, dtype: torch.dtype, circular: bool) -> Problem:
    x, taps = torch.empty(170, 768, n, dtype=dtype, device="meta"), torch.empty(768, kernel_size, device="meta")
    return Problem.of(x, taps, causal=not circular, boundary="circular" if circular else "zero", training=True)


def kernel(name: str, tile: Tile, problem: Problem, pointers: list[str], floats: list[str], **flags: Any) -> Kernel:
    """A kernel on contiguous signals: `pointers` of the dtype of the signal, `floats` to float32."""
    pointer, operands = NAMES[problem.dtype]
    unit = next(u for u in (16 // problem.dtype.itemsize, 4, 2, 1) if problem.size[0] % u == 0)
    sizes = "n batch rows start stop base length windows splits"
    strides = [f"{signal}_{axis}" for signal in ("grad", "x", "before", "after") for axis in "bc"]
    arguments = dict.fromkeys(pointers, pointer) | dict.fromkeys(floats, "*fp32")
    constants: dict[str, Any] = {f"{signal}_t": 1 for signal in pointers if signal not in ("table", "y")}
    constants |= {"UNIT": unit, "CIRCULAR": problem.circular[0], "WHOLE": problem.size[0] % tile.step == 0}
    constants |= {"OPERANDS": operands, "ROWS": tile.rows, "OUTPUTS": tile.outputs, "STEP": tile.step, **flags}
    arguments |= dict.fromkeys([*sizes.split(), *strides], "i32")
    return Kernel(MODULE, name, arguments, constants, tile.num_warps, tile.num_stages, [*pointers, *floats])


def convolution(problem: Problem, gates: bool = False) -> tuple[Kernel, Tile]:
    tile, pointers = convolve_tile(problem, gates), ["x", "table", "y", "before", "after"]
    return kernel("convolve_blocks", tile, problem, pointers, [], BEFORE=gates, AFTER=gates, COPIES=tile.copies), tile


def correlation(problem: Problem) -> tuple[Kernel, Tile]:
    tile = correlate_tile(problem)
    return kernel("correlate_blocks", tile, problem, ["grad", "x"], ["sums"]), tile


def programs_at_once(made: Compiled, tile: Tile) -> int:
    """Programs that fit on a multiprocessor together."""
    per_warp = -(-made.registers // 8) * 8 * 32
    return min(REGISTERS // (per_warp * tile.num_warps), SHARED_MEMORY // (made.shared + 1024))


@pytest.mark.parametrize(
    ("n", "k", "circular", "dtype"),
    [
        *((1024, 1024, False, dtype) for dtype in NAMES),
        (1024, 1024, True, torch.bfloat16),
        (65536, 33, False, torch.bfloat16),
    ],
)
def test_products_run_on_tensor_cores_and_fit_twice(n: int, k: int, circular: bool, dtype: torch.dtype) -> None:
    problem = problem_of(n, k, dtype, circular)
    chosen = [convolution(problem), correlation(problem)]
    if dtype != torch.float32:
        chosen.append(convolution(problem, gates=True))
    for (_, tile), made in zip(chosen, compiled(*(kernel for kernel, _ in chosen)), strict=True):
        assert "wgmma.mma_async" in made.assembly
        assert "cp.async" in made.assembly
        assert made.stack == 0
        assert programs_at_once(made, tile) >= 2


@pytest.mark.parametrize("n", [1031, 50])
def test_other_sizes_compile_without_spills(n: int) -> None:
    problem = problem_of(n, n, torch.bfloat16, False)
    kernels = [convolution(problem)[0], convolution(problem, gates=True)[0], correlation(problem)[0]]
    for made in compiled(*kernels):
        assert made.stack == 0
        assert made.shared <= SHARED_MEMORY


def test_the_kernels_around_the_products_compile() -> None:
    sizes = dict.fromkeys(["origin", "kernel_size", "base", "length", "stride_c", "start", "windows", "splits"], "i32")
    table: dict[str, Any] = {"stride_k": 1, "SIGN": 1, "COPIES": 4, "BLOCK": 512}
    around = [
        Kernel(MODULE, "place_taps", {"taps": "*fp32", "table": "*bf16", **sizes}, table),
        Kernel(
            MODULE,
            "add_windows",
            {"sums": "*fp32", "dtaps": "*fp32", **sizes},
            {"STEP": 128, "OUTPUTS": 128, "BLOCK": 256},
        ),
    ]
    for made in compiled(*around):
        assert made.stack == 0
