"""Products of matrices on tensor cores, and in the interpreter."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b, acc, OPERANDS: tl.constexpr):
    """acc + a @ b in float32, of operands (float32, computed in that precision) rounded to the dtype `OPERANDS`.

    float32 operands take three tf32 products. Operands should be float32 up to here: the interpreter has no arithmetic
    in bfloat16 but its conversions, so that it multiplies the rounded values in float32, as the hardware does.
    """
    if OPERANDS == tl.float32:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="tf32x3")
    if INTERPRETED:
        return tl.dot(a.to(OPERANDS).to(tl.float32), b.to(OPERANDS).to(tl.float32), acc, input_precision="ieee")
    return tl.dot(a.to(OPERANDS), b.to(OPERANDS), acc)
