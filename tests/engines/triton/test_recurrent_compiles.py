"""The kernels of the recurrent engine, compiled for sm_90 as they are launched."""

from __future__ import annotations

import pytest

from tests.engines.triton.compiled import SHARED_MEMORY, Kernel, compiled

pytest.importorskip("triton")

MODULE = "omniconv.engines.triton.recurrent"
SIZES = ["batch", "length", "modes", "x_batch", "x_channel", "y_batch", "y_channel"]
TABLES = {"within": ("in", "out"), "entry": ("in", "mode"), "leaving": ("mode", "out")}


def chunks_kernel(dtype: str, modes: int, *, reverse: bool = False) -> Kernel:
    """Contiguous signals and a chunk of 64, whose tables the reverse map reads transposed."""
    tables = [f"{table}_channel" for table in TABLES]
    across = {f"{table}_{axes[1 if reverse else 0]}" for table, axes in TABLES.items()}
    along = {f"{table}_{axes[0 if reverse else 1]}" for table, axes in TABLES.items()}
    pointers = {"x_ptr": f"*{dtype}", "y_ptr": f"*{dtype}"} | {
        f"{table}_ptr": "*fp32" for table in (*TABLES, "factors")
    }
    operands = {"bf16": "tl.bfloat16", "fp16": "tl.float16", "fp32": "tl.float32"}[dtype]
    return Kernel(
        MODULE,
        "chunks_kernel",
        pointers | dict.fromkeys([*SIZES, *tables, *across], "i32"),
        {"CHUNK": 64, "MODES": modes, "BATCH": 16, "REVERSE": reverse, "OPERANDS": operands}
        | dict.fromkeys(["x_time", "y_time", *along], 1),
        aligned=[*pointers, *tables, *across, "length", "x_batch", "x_channel", "y_batch", "y_channel"],
    )


def carry_kernel(dtype: str) -> Kernel:
    pointers = {"entered_ptr": f"*{dtype}", "states_ptr": f"*{dtype}", "factor_ptr": "*fp64"}
    return Kernel(
        MODULE,
        "carry_kernel",
        pointers | dict.fromkeys(["batch", "count", "modes"], "i32"),
        {"BLOCK": 32, "REVERSE": False},
        num_warps=1,
        aligned=list(pointers),
    )


def test_without_spills_and_on_tensor_cores() -> None:
    kernels = [
        chunks_kernel("bf16", 32),
        chunks_kernel("bf16", 64, reverse=True),
        chunks_kernel("fp16", 32, reverse=True),
        chunks_kernel("fp32", 64),
        carry_kernel("fp32"),
    ]
    made = compiled(*kernels)
    for program in made:
        assert program.stack == 0
        assert program.shared <= SHARED_MEMORY
    for program in made[:-1]:
        assert "wgmma.mma_async" in program.assembly
