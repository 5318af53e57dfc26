"""Matrices of discrete Fourier transforms, the factors between them, and the order of the spectra that they make.

A transform of M points at the frequencies (k + shift) / M, k = 0 .. M - 1, is X[k] = sum_n x[n] e(-n (k + shift) / M)
with e(t) = exp(2 pi i t). For M = R S, n = r S + s and k = p + R q, it is a transform of length R along r with the same
shift, a factor for each (p, s), and a plain transform of length S along s:

    X[p + R q] = sum_s e(-s q / S) e(-s (p + shift) / M) sum_r e(-r (p + shift) / R) x[r S + s].

Everything is computed in float64 on the CPU, and kept on the device. Matrices are divided by the square root of their
size, so that every stage keeps the norm of a signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv.engines.triton._kept import kept


@dataclass(frozen=True)
class Frame:
    """The transform of `outer` x `rows` x `columns` complex points at the frequencies (k + shift) / points.

    A program holds rows x columns points; `outer` is 1 where that is the whole frame. `shift`: 1/4 for frames in which
    nothing may wrap around, 0 for cyclic ones.
    """

    outer: int
    rows: int
    columns: int
    shift: float

    @property
    def inner(self) -> int:
        """Points that a program holds."""
        return self.rows * self.columns

    @property
    def points(self) -> int:
        """Points of the frame."""
        return self.outer * self.inner

    @property
    def inner_shift(self) -> float:
        """`shift` of the transform that a program holds: the outer transform has taken care of it, if there is one."""
        return self.shift if self.outer == 1 else 0.0


@kept
def transform(size: int, shift: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Real and imaginary parts of e(-r (p + shift) / size) / sqrt(size): shape (2, p, r)."""
    return (rotations(size, size, size, shift) / math.sqrt(size)).to(dtype)


@kept
def three_products(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What multiplies by the plain transform b + i c in three real products instead of four: b, c - b and -(b + c).

    (x + i y)(b + i c) has the real part (x + y) b - y (b + c) and the imaginary part (x + y) b + x (c - b). For the
    inverse, which has -c for c, the last two change places. Shape (3, size, size).
    """
    b, c = rotations(size, size, size, 0.0) / math.sqrt(size)
    return torch.stack([b, c - b, -(b + c)]).to(dtype)


@kept
def inner_factors(frame: Frame, dtype: torch.dtype, device: torch.device) -> Tensor:
    """e(-s (p + inner_shift) / inner) for rows p and columns s, in the order and form of `words`."""
    re, im = rotations(frame.rows, frame.columns, frame.inner, frame.inner_shift)
    order = tile_order(frame.rows, frame.columns)
    return words(torch.complex(re, im).flatten()[order], dtype)


@kept
def outer_factors(frame: Frame, block: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """e(-s (p + shift) / points) for the outer transform as a product of two tables, s = block u + v, in float32.

    Real and imaginary parts of e(-block u (p + shift) / points), shape (2, u, p), and of e(-v (p + shift) / points),
    shape (2, p, v).
    """
    coarse = rotations(frame.outer, frame.inner // block, frame.points, frame.shift, block)
    fine = rotations(frame.outer, block, frame.points, frame.shift)
    return coarse.transpose(1, 2).contiguous().float(), fine.float()


@kept
def twist(frame: Frame, device: torch.device) -> Tensor:
    """e(-n shift / points), which turns a plain transform into one at shifted frequencies: shape (points,)."""
    re, im = rotations(1, frame.points, frame.points, frame.shift)
    return torch.complex(re, im)[0].to(torch.complex64)


def rotations(frequencies: int, positions: int, total: int, shift: float, step: int = 1) -> Tensor:
    """Real and imaginary parts of e(-step s (p + shift) / total) in float64: shape (2, p, s)."""
    product = (torch.arange(frequencies, device="cpu").double() + shift)[:, None] * (
        step * torch.arange(positions, device="cpu")
    ).double()
    angle = -2 * math.pi / total * product.remainder(total)
    return torch.stack([angle.cos(), angle.sin()])


def tile_order(rows: int, columns: int) -> Tensor:
    """Index, in a flattened matrix of rows x columns, of the elements in the order in which threads hold a product.

    A thread's accumulators on tensor cores lie in pairs of columns, eight rows apart. Read in this order, four at a
    time, a table arrives in the registers that need it, without a detour through shared memory.
    """
    at = torch.arange(rows * columns, device="cpu").reshape(rows // 16, 2, 8, columns // 8, 4, 2)
    return at.permute(3, 0, 2, 4, 1, 5).flatten()


@kept
def spectrum_order(frame: Frame, device: torch.device) -> Tensor:
    """The frequency at each place of a spectrum: outer x rows x columns, the last two in the order of `tile_order`.

    k = o + outer (p + rows q) for the outer frequency o, the row p and the column q.
    """
    rows, columns, outer = (torch.arange(n, device="cpu") for n in (frame.rows, frame.columns, frame.outer))
    inner = (rows[:, None] + frame.rows * columns).flatten()
    inner = inner[tile_order(frame.rows, frame.columns)]
    return (outer[:, None] + frame.outer * inner).flatten()


def words(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Complex values in the form in which kernels that multiply in `dtype` read them, along the last axis.

    float16: a pair in each 32-bit word. float32: all real parts, then all imaginary parts.
    """
    if dtype == torch.float16:
        return torch.view_as_real(values).to(torch.float16).view(torch.int32).squeeze(-1)
    return torch.cat([values.real, values.imag], -1).float()
