"""Production configurations of the Monarch kernels, compiled for sm_90."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton")
from tests.engines.triton.compiled import SHARED_MEMORY, Kernel, compiled

SPILLED = 64
"""Bytes of stack per thread: a handful of registers."""


def kernel(name: str, passes: bool, half: bool, num_warps: int, num_stages: int, constants: dict[str, Any]) -> Kernel:
    """A kernel with the types of its arguments, which their names tell: contiguous signals, all flags off."""
    import omniconv.engines.triton.monarch as one
    import omniconv.engines.triton.monarch_passes as three

    module = three if passes else one
    names = getattr(module, name).arg_names
    operand, word, signal = ("*fp16", "*i32", "*bf16") if half else ("*fp32", "*fp32", "*fp32")
    types = dict.fromkeys(names, "i32")
    types |= {argument: "i64" for argument in names if argument.endswith(("_batch", "_channel"))}
    types |= {argument: "*fp32" for argument in names if argument.endswith("_pointer")}
    types |= dict.fromkeys(("first_pointer", "second_pointer", "outer_pointer", "work_pointer"), operand)
    types |= dict.fromkeys(("taps_pointer", "factors_pointer"), word)
    in_passes = operand if name == "correlate_kernel" and passes else signal
    types |= dict.fromkeys(("x_pointer", "grad_pointer"), in_passes)
    types |= dict.fromkeys(("y_pointer", "gate_pointer", "before_pointer", "after_pointer"), signal)
    flags = ("CONJUGATE", "PERIODIC", "BEFORE", "AFTER", "GATED", "IN_MEMORY")
    settings = dict.fromkeys(flags, False) | {"HEADROOM": 256.0, "skip": 0, "lead": 0}
    settings |= {argument: 1 for argument in names if argument.endswith("_step")}
    settings |= {"OPERANDS": "tl.float16" if half else "tl.float32"} | constants
    aligned = [argument for argument in names if argument not in settings and argument.endswith(("_pointer", "_batch"))]
    return Kernel(
        module=module.__name__,
        name=name,
        arguments={argument: types[argument] for argument in names},
        constants={argument: settings[argument] for argument in names if argument in settings},
        num_warps=num_warps,
        num_stages=num_stages,
        aligned=[*aligned, *({"n", "length"} & set(names))],
    )


ONE_PASS = [
    ("convolve_kernel", True, 4, {"ROWS": 64, "COLUMNS": 32}),
    ("convolve_kernel", True, 8, {"ROWS": 128, "COLUMNS": 32}),
    ("convolve_kernel", True, 8, {"ROWS": 128, "COLUMNS": 64}),
    ("convolve_kernel", False, 4, {"ROWS": 64, "COLUMNS": 32}),
    ("correlate_kernel", True, 8, {"ROWS": 128, "COLUMNS": 32}),
    ("correlate_kernel", False, 4, {"ROWS": 64, "COLUMNS": 32, "IN_MEMORY": True}),
]
PASSES = [
    ("split_kernel", True, 2, {"OUTER": 64, "INNER": 2048, "ROWS": 64, "COLUMNS": 32}),
    ("merge_kernel", True, 2, {"OUTER": 64, "INNER": 2048, "ROWS": 64, "COLUMNS": 32}),
    ("split_kernel", False, 1, {"OUTER": 64, "INNER": 2048, "ROWS": 64, "COLUMNS": 32}),
    ("merge_kernel", False, 1, {"OUTER": 64, "INNER": 2048, "ROWS": 64, "COLUMNS": 32}),
    ("middle_kernel", True, 2, {"OUTER": 64, "ROWS": 64, "COLUMNS": 32}),
    ("middle_kernel", False, 1, {"OUTER": 64, "ROWS": 64, "COLUMNS": 32}),
    ("correlate_kernel", True, 1, {"OUTER": 64, "ROWS": 64, "COLUMNS": 32}),
]

ONE: dict[str, Any] = {"batch": 1, "groups": 1, "per_group": 1}
"""Of a single signal: what Triton may compile into the kernel."""
SINGLE = [
    ("middle_kernel", {"OUTER": 64, "ROWS": 64, "COLUMNS": 32, **ONE}),
    ("correlate_kernel", {"OUTER": 64, "ROWS": 64, "COLUMNS": 32, "IN_MEMORY": True, **ONE}),
]
LARGEST = [
    ("correlate_kernel", False, 496, {"ROWS": 128, "COLUMNS": 64, "IN_MEMORY": True}),
    ("correlate_kernel", False, 664, {"ROWS": 128, "COLUMNS": 64, "IN_MEMORY": True, "PERIODIC": True}),
    ("correlate_kernel", True, 152, {"OUTER": 128, "ROWS": 128, "COLUMNS": 64, "IN_MEMORY": True}),
    ("middle_kernel", True, 184, {"OUTER": 128, "ROWS": 128, "COLUMNS": 64}),
]
"""The largest frames in half precision, and the bytes that they spill: with 16 warps it would be over a thousand."""


def test_kernels_fit_a_processor_and_use_tensor_cores() -> None:
    kernels = [kernel(name, False, half, warps, 1, constants) for name, half, warps, constants in ONE_PASS]
    kernels += [kernel(name, True, half, 4, stages, constants) for name, half, stages, constants in PASSES]
    for configuration, made in zip(kernels, compiled(*kernels), strict=True):
        what = f"{configuration.name} with {configuration.constants}: {made.registers} registers, {made.stack} spilled"
        assert made.shared <= SHARED_MEMORY, what
        assert made.stack <= SPILLED, what
        assert "wgmma.mma_async" in made.assembly, what


def test_a_single_signal_spills_no_more_than_many() -> None:
    kernels = [kernel(name, True, False, 4, 1, constants) for name, constants in SINGLE]
    for configuration, made in zip(kernels, compiled(*kernels), strict=True):
        what = f"{configuration.name}: {made.registers} registers, {made.stack} spilled"
        assert made.shared <= SHARED_MEMORY, what
        assert made.stack <= SPILLED, what


def test_the_largest_frames_spill_no_more_than_they_did() -> None:
    kernels = [kernel(name, passes, True, 8, 1, constants) for name, passes, _, constants in LARGEST]
    for (_, _, spilled, _), configuration, made in zip(LARGEST, kernels, compiled(*kernels), strict=True):
        what = f"{configuration.name} with {configuration.constants}: {made.registers} registers, {made.stack} spilled"
        assert made.shared <= SHARED_MEMORY, what
        assert made.stack <= spilled, what
        assert "wgmma.mma_async" in made.assembly, what
