"""What the compiler makes of the kernels for images in the sizes used most, without a graphics processor."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.engines.triton.compiled import SHARED_MEMORY, Compiled, Kernel, compiled

pytest.importorskip("triton")

PROGRAMS = "omniconv.engines.triton.monarch2d"
PASSES = "omniconv.engines.triton.monarch2d_passes"
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
STRIDES = ["xb", "xc", "xh", "gb", "gc", "gh", "pb", "pc", "qb", "qc"]
REGISTERS = 65536
"""Of a multiprocessor."""


def operands(dtype: torch.dtype) -> str:
    return "fp32" if dtype == torch.float32 else "fp16"


def kernel(
    module: str, name: str, dtype: torch.dtype, signals: str, factors: str, floats: str, sizes: str, aligned: str,
    constants: dict[str, Any], num_warps: int, num_stages: int,
) -> Kernel:  # fmt: skip
    """A kernel on `signals` of a dtype, `factors` of the dtype of its products, `floats` of float32."""
    pointers = dict.fromkeys(signals.split(), f"*{NAMES[dtype]}") | dict.fromkeys(
        factors.split(), f"*{operands(dtype)}"
    )
    pointers |= dict.fromkeys(floats.split(), "*fp32")
    integers = dict.fromkeys([*sizes.split(), *aligned.split(), *STRIDES, "yb", "yc"], "i32")
    constants = {"xw": 1, "gw": 1, "OPERANDS": f"tl.{operands(dtype).replace('fp', 'float')}"} | constants
    taken = getattr(importlib.import_module(module), name).arg_names
    multiples = [argument for argument in (*pointers, *aligned.split(), *STRIDES) if argument in taken]
    constants = {argument: value for argument, value in constants.items() if argument in taken}
    return Kernel(module, name, pointers | integers, constants, num_warps, num_stages, multiples)


def program(name: str, n: int, taps: int, dtype: torch.dtype, gates: bool = False) -> Kernel:
    """A kernel of one program per few images of n x n samples, with as many taps on each axis."""
    from omniconv.engines.triton.monarch2d import LAGS, STAGES, TRAILER, WARPS, tiles

    product = torch.float32 if dtype == torch.float32 else torch.float16
    tile = tiles((n, n), (n + taps // 2, n + taps // 2), product)
    blocks = {"J": tile.J, "F": tile.F, "FP": tile.FP}
    images = blocks | {"G": tile.G, "H": tile.H, "W": tile.W}
    flags = {"CONJUGATE": True, "BEFORE": gates, "AFTER": gates, "TRAILER": TRAILER}
    signals, factors, floats, sizes, aligned, constants = {
        "convolve": (
            "x y before after",
            "spectrum e_table a_table b_table c_table",
            "",
            "batch channels height width",
            "",
            images | flags,
        ),
        "correlate": ("x grad", "e_table a_table", "spectra", "batch height width groups", "", images),
        "transform_taps": (
            "",
            "spectrum e_table a_table",
            "taps",
            "height width",
            "HP WP",
            blocks | {"K": LAGS[product], "TRAILER": TRAILER},
        ),
        "taps_of": (
            "", "b_table c_table", "spectra taps", "parts height width", "HP WP", blocks | {"K": LAGS[product]}
        ),
    }[name]  # fmt: skip
    return kernel(PROGRAMS, name, dtype, signals, factors, floats, sizes, aligned, constants, WARPS, STAGES)


def one_pass(name: str, dtype: torch.dtype) -> Kernel:
    """A kernel of one pass over memory per stage."""
    from omniconv.engines.triton.monarch2d_passes import COLUMNS, CORRELATE, ROWS

    product = torch.float32 if dtype == torch.float32 else torch.float16
    signals, factors, floats, sizes, aligned, flags, tile = {
        "rows_pass": (
            "x before", "table r", "sizes", "channels height width", "HP JP WP TP plane", {"BEFORE": True}, ROWS
        ),
        "columns_pass": (
            "",
            "a table spectrum out",
            "factors",
            "rows channels",
            "JP NI NO TP a_plane out_plane out_pitch spectrum_pitch",
            {"PRODUCT": True, "CONJUGATE": True, "SCALE": False},
            COLUMNS,
        ),
        "rows_back": (
            "after y", "q table", "factors", "channels height width", "HP JP TP plane", {"AFTER": True}, ROWS
        ),
        "correlate_pass": (
            "", "v r table", "v_sizes r_sizes out", "batch channels", "JP HP FP TP plane out_pitch", {}, CORRELATE
        ),
    }[name]  # fmt: skip
    sized = dict(tile[product])
    warps, stages = sized.pop("num_warps"), sized.pop("num_stages")
    return kernel(PASSES, name, dtype, signals, factors, floats, sizes, aligned, flags | sized, warps, stages)


def check(*kernels: tuple[Kernel, int]) -> None:
    """No spilled registers, tensor cores at work, and that many programs at once on a multiprocessor."""
    made = compiled(*(kernel for kernel, _ in kernels))
    for (kernel, expected), program in zip(kernels, made, strict=True):
        what = f"{kernel.name} {kernel.arguments} {kernel.constants}"
        assert program.stack == 0, what
        assert "wgmma.mma_async" in program.assembly or "mma.sync" in program.assembly, what
        assert programs_at_once(program, kernel.num_warps) >= expected, what


def programs_at_once(program: Compiled, num_warps: int) -> int:
    """Programs that fit on a multiprocessor together."""
    per_warp = -(-program.registers // 8) * 8 * 32
    return min(REGISTERS // (per_warp * num_warps), SHARED_MEMORY // (program.shared + 1024))


def test_convolutions() -> None:
    check(
        (program("convolve", 16, 31, torch.bfloat16), 6),
        (program("convolve", 32, 63, torch.bfloat16), 3),
        (program("convolve", 32, 63, torch.bfloat16, gates=True), 2),
        (program("convolve", 32, 63, torch.float32), 2),
        (program("convolve", 64, 15, torch.bfloat16), 2),
        (program("convolve", 64, 127, torch.float16), 2),
    )


def test_gradients_of_taps() -> None:
    check(
        (program("correlate", 32, 63, torch.bfloat16), 2),
        (program("correlate", 32, 63, torch.float32), 2),
        (program("correlate", 64, 15, torch.bfloat16), 2),
        (program("taps_of", 32, 63, torch.bfloat16), 2),
        (program("taps_of", 32, 63, torch.float32), 2),
    )


def test_spectra_of_taps() -> None:
    check((program("transform_taps", 32, 63, torch.bfloat16), 2), (program("transform_taps", 32, 63, torch.float32), 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_passes(dtype: torch.dtype) -> None:
    check(*((one_pass(name, dtype), 2) for name in ("rows_pass", "columns_pass", "rows_back", "correlate_pass")))


def test_sizes_of_one() -> None:
    """Triton compiles an argument that is 1 into the kernel as a constant, of another type than a number."""
    names = ["convolve", "correlate", "transform_taps", "taps_of"]
    wanted = [program(name, 16, 1, torch.bfloat16) for name in names]
    wanted += [one_pass(name, torch.bfloat16) for name in ("rows_pass", "columns_pass", "rows_back", "correlate_pass")]
    ones = ["batch", "channels", "height", "width", "groups", "parts", "pb", "pc", "qb", "qc", "yb", "yc", "xc", "gc"]
    for kernel in wanted:
        taken = getattr(importlib.import_module(kernel.module), kernel.name).arg_names
        kernel.constants.update({name: 1 for name in ones if name in taken})
    check(*((replace(k, aligned=[name for name in k.aligned if name not in ones]), 2) for k in wanted))
