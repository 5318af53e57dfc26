"""Products of matrices on tensor cores, and in the interpreter."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def nearest(value, DTYPE: tl.constexpr):
    """A float32 tensor in another dtype, rounded to the nearest; the interpreter would cut bfloat16 off."""
    if INTERPRETED and DTYPE == tl.bfloat16:
        bits = value.to(tl.int32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        value = (bits & -65536).to(tl.float32, bitcast=True)
    return value.to(DTYPE)


@triton.jit
def dot(a, b, acc, OPERANDS: tl.constexpr):
    """acc + a @ b in float32, of operands (float32, computed in that precision) rounded to the dtype `OPERANDS`.

    float32 operands take three tf32 products. Operands should be float32 up to here: the interpreter has no arithmetic
    in bfloat16 but its conversions, so that it multiplies the rounded values in float32, as the hardware does.
    """
    if OPERANDS == tl.float32:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="tf32x3")
    if INTERPRETED:
        a, b = nearest(a.to(tl.float32), OPERANDS), nearest(b.to(tl.float32), OPERANDS)
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    return tl.dot(a.to(OPERANDS), b.to(OPERANDS), acc)
