"""Depthwise convolutions of large images as products with DFT matrices: one pass over memory per stage.

The stages, matrices and scales are those of `monarch2d`; between them R, P and Q lie in a workspace, and each is a
product of all rows with a constant:

    `rows_pass`      x to R, of (image, j, h)        reads x and a gate, writes 2 JP HP numbers per image
    `columns_pass`   R to P, of (image, j, f)        reads R and the spectrum, writes 2 JP FP numbers
    `columns_pass`   P to Q, of (image, j, h)        reads P, writes 2 JP HP numbers
    `rows_back`      Q to y                          reads Q and a gate, writes y

with JP, HP, FP the frequencies along rows, samples and frequencies down columns, as multiples of DEPTH, and numbers of
two bytes for half-precision signals, else of four. Batch and channels are taken in slices whose workspace is at most
WORKSPACE bytes, part of which stays in the cache. Flops per image, of h x w samples: 4 h w JP + 8 h JP FP for the
transform, as many for the inverse.

`correlate_pass` reads R of both signals and sums over the batch: a program goes through the batch of a channel.
Taps are transformed, and transformed back, like images.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._problem import Problem
from omniconv.engines.triton._dot import dot, nearest
from omniconv.engines.triton.monarch2d import OPERANDS, TRAILER, operands, waves, with_contiguous_images

WORKSPACE = 2**26
"""Bytes that the stages of a slice may take, unless one image takes more."""
DEPTH = 32
"""What sizes are multiples of: terms of the sums that are added at a time, at most."""
TILE = 64
"""What the columns of tables are multiples of: columns of the tiles of products, at most."""
ROWS = {
    torch.float16: {"TILE": 64, "DEPTH": 32, "num_warps": 4, "num_stages": 3},
    torch.float32: {"TILE": 64, "DEPTH": 32, "num_warps": 4, "num_stages": 2},
}
COLUMNS = {
    torch.float16: {"TILE": 64, "F": 64, "DEPTH": 32, "num_warps": 4, "num_stages": 3},
    torch.float32: {"TILE": 64, "F": 32, "DEPTH": 32, "num_warps": 4, "num_stages": 2},
}
CORRELATE = {
    torch.float16: {"TILE": 64, "F": 32, "DEPTH": 32, "num_warps": 4, "num_stages": 3},
    torch.float32: {"TILE": 64, "F": 32, "DEPTH": 16, "num_warps": 4, "num_stages": 2},
}


@triton.jit
def rows_pass(
    x, before, sizes, table, r, channels, height, width, xb, xc, xh, xw, pb, pc, HP, JP, WP, TP, plane,
    BEFORE: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """R[i, j, h] = sum_w x[i, h, w] E[w, j] / sizes[i], in two parts `plane` apart; E is a table (2, WP, TP)."""
    image = tl.program_id(0)
    b, c = (image // channels).to(tl.int64), (image % channels).to(tl.int64)
    h, j = tl.program_id(1) * TILE + tl.arange(0, TILE), tl.program_id(2) * TILE + tl.arange(0, TILE)
    gain = 1 / tl.load(sizes + image)
    rr = tl.zeros((TILE, TILE), tl.float32)
    ri = tl.zeros((TILE, TILE), tl.float32)
    for start in range(0, WP, DEPTH):
        w = start + tl.arange(0, DEPTH)
        inside = (h < height)[:, None] & (w < width)[None, :]
        place = x + b * xb + c * xc + h.to(tl.int64)[:, None] * xh + w.to(tl.int64)[None, :] * xw
        signal = tl.load(place, mask=inside, other=0).to(tl.float32)
        if BEFORE:
            gate = before + b * pb + c * pc + h[:, None] * width + w[None, :]
            signal *= tl.load(gate, mask=inside, other=0).to(tl.float32)
        signal = (signal * gain).to(OPERANDS)
        wave = table + w[:, None] * TP + j[None, :]
        rr = dot(signal, tl.load(wave), rr, OPERANDS)
        ri = dot(signal, tl.load(wave + WP * TP), ri, OPERANDS)
    at = r + (image.to(tl.int64) * JP + j[None, :]) * HP + h[:, None]
    inside = (j < JP)[None, :] & (h < HP)[:, None]
    tl.store(at, rr.to(OPERANDS), mask=inside)
    tl.store(at + plane, ri.to(OPERANDS), mask=inside)


@triton.jit
def product(a, a_plane, b, b_plane, inside, length, pitch, TILE: tl.constexpr, F: tl.constexpr, DEPTH: tl.constexpr,
            OPERANDS: tl.constexpr):  # fmt: skip
    """Complex a @ b: `a` points at the first DEPTH columns of TILE rows, `b` at DEPTH rows, `pitch` apart, of F."""
    real = tl.zeros((TILE, F), tl.float32)
    minus = tl.zeros((TILE, F), tl.float32)
    imaginary = tl.zeros((TILE, F), tl.float32)
    for start in range(0, length, DEPTH):
        ar = tl.load(a + start, mask=inside, other=0)
        ai = tl.load(a + a_plane + start, mask=inside, other=0)
        br, bi = tl.load(b + start * pitch), tl.load(b + b_plane + start * pitch)
        real = dot(ar, br, real, OPERANDS)
        minus = dot(ai, bi, minus, OPERANDS)
        imaginary = dot(ar, bi, imaginary, OPERANDS)
        imaginary = dot(ai, br, imaginary, OPERANDS)
    return real - minus, imaginary


@triton.jit
def columns_pass(
    a, table, spectrum, factors, out, rows, channels, JP, NI, NO, TP, a_plane, out_plane, out_pitch, spectrum_pitch,
    PRODUCT: tl.constexpr, CONJUGATE: tl.constexpr, SCALE: tl.constexpr,
    TILE: tl.constexpr, F: tl.constexpr, DEPTH: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """out[i, j, :] = a[i, j, :] @ table, times the spectrum of the channel i % channels, or times factors[i].

    The table is (2, NI, TP). The rows (i, j) of `a` are NI apart; those of `out` NO, its images `out_pitch`.
    """
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    column, depth = tl.program_id(1) * F + tl.arange(0, F), tl.arange(0, DEPTH)
    exists = (row < rows)[:, None]
    b = table + depth[:, None] * TP + column[None, :]
    real, imaginary = product(
        a + row[:, None] * NI + depth[None, :], a_plane, b, NI * TP, exists, NI, TP, TILE, F, DEPTH, OPERANDS
    )
    image, inside = row // JP, exists & (column < NO)[None, :]
    place = (row % JP)[:, None] * NO + column[None, :]
    if PRODUCT:
        at = spectrum + (image % channels)[:, None] * spectrum_pitch + place
        kr = tl.load(at, mask=inside, other=0).to(tl.float32)
        ki = tl.load(at + JP * NO, mask=inside, other=0).to(tl.float32)
        if CONJUGATE:
            ki = -ki
        real, imaginary = real * kr - imaginary * ki, real * ki + imaginary * kr
    if SCALE:
        factor = tl.load(factors + image, mask=row < rows, other=0)[:, None]
        real, imaginary = real * factor, imaginary * factor
    at = out + image[:, None] * out_pitch + place
    tl.store(at, real.to(OPERANDS), mask=inside)
    tl.store(at + out_plane, imaginary.to(OPERANDS), mask=inside)


@triton.jit
def rows_back(
    q, table, factors, after, y, channels, height, width, yb, yc, qb, qc, HP, JP, TP, plane,
    AFTER: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """y[i, h, w] = factors[i] Re sum_j Q[i, j, h] C[j, w], times a gate; C is a table (2, JP, TP)."""
    image = tl.program_id(0)
    b, c = (image // channels).to(tl.int64), (image % channels).to(tl.int64)
    h, w = tl.program_id(1) * TILE + tl.arange(0, TILE), tl.program_id(2) * TILE + tl.arange(0, TILE)
    q += image.to(tl.int64) * JP * HP
    total = tl.zeros((TILE, TILE), tl.float32)
    for start in range(0, JP, DEPTH):
        j = start + tl.arange(0, DEPTH)
        at, inside = j[:, None] * HP + h[None, :], (h < HP)[None, :]
        place = j[:, None] * TP + w[None, :]
        qr = tl.trans(tl.load(q + at, mask=inside, other=0))
        total = dot(qr, tl.load(table + place), total, OPERANDS)
        qi = tl.trans(tl.load(q + plane + at, mask=inside, other=0))
        total = dot(qi, tl.load(table + JP * TP + place), total, OPERANDS)
    total *= tl.load(factors + image)
    at, inside = h[:, None] * width + w[None, :], (h < height)[:, None] & (w < width)[None, :]
    if AFTER:
        total *= tl.load(after + b * qb + c * qc + at, mask=inside, other=0).to(tl.float32)
    tl.store(y + b * yb + c * yc + at, nearest(total, y.dtype.element_ty), mask=inside)


@triton.jit
def correlate_pass(
    v, r, v_sizes, r_sizes, table, out, batch, channels, JP, HP, FP, TP, plane, out_pitch,
    TILE: tl.constexpr, F: tl.constexpr, DEPTH: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """The sum over the batch of (V A) * conj (R A), unscaled: TILE frequencies j and F frequencies f of a channel."""
    channel = tl.program_id(0)
    j, f = tl.program_id(1) * TILE + tl.arange(0, TILE), tl.program_id(2) * F + tl.arange(0, F)
    depth, exists = tl.arange(0, DEPTH), (j < JP)[:, None]
    a = table + depth[:, None] * TP + f[None, :]
    sr = tl.zeros((TILE, F), tl.float32)
    si = tl.zeros((TILE, F), tl.float32)
    for b in range(batch):
        image = b * channels + channel
        at = (image.to(tl.int64) * JP + j[:, None]) * HP + depth[None, :]
        vr, vi = product(v + at, plane, a, HP * TP, exists, HP, TP, TILE, F, DEPTH, OPERANDS)
        xr, xi = product(r + at, plane, a, HP * TP, exists, HP, TP, TILE, F, DEPTH, OPERANDS)
        size = tl.load(v_sizes + image) * tl.load(r_sizes + image)
        sr += (vr * xr + vi * xi) * size
        si += (vi * xr - vr * xi) * size
    at = out + channel.to(tl.int64) * out_pitch + j[:, None] * FP + f[None, :]
    inside = exists & (f < FP)[None, :]
    tl.store(at, sr, mask=inside)
    tl.store(at + JP * FP, si, mask=inside)


def padded(n: int, multiple: int = DEPTH) -> int:
    """The next multiple."""
    return -(-n // multiple) * multiple


def half(frame: tuple[int, ...]) -> int:
    """Frequencies along rows, as stored."""
    return padded(frame[1] // 2 + 1)


def slices(batch: int, channels: int, image_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Batch and channels in pieces whose images of `image_bytes` take at most WORKSPACE bytes, whole batches first."""
    images = max(1, WORKSPACE // image_bytes)
    b = min(batch, images)
    c = images // b
    for first in range(0, channels, c):
        for start in range(0, batch, b):
            yield slice(start, min(start + b, batch)), slice(first, min(first + c, channels))


def magnitudes(x: Tensor, dtype: torch.dtype) -> Tensor:
    """What images are divided by, (batch, channels): for float16 so much that no transform passes 2^15."""
    if dtype == torch.float32:
        return torch.ones(x.shape[:2], dtype=torch.float32, device=x.device)
    largest = torch.linalg.vector_norm(x, float("inf"), dim=(2, 3), dtype=torch.float32).clamp_min(1e-30)
    area = x.shape[2] * x.shape[3]
    return largest * 2.0 ** max(0, (area - 1).bit_length() - 15)


def transformed_rows(
    x: Signal, sizes: Tensor, frame: int, positions: range, dtype: torch.dtype, before: Tensor | None = None
) -> Tensor:
    """R of the images over `sizes`, (2, images, JP, HP); `positions` of the columns in their frame."""
    (batch, channels, height, width), device = x.shape, x.device
    count = frame // 2 + 1
    jp, hp, wp, tp = padded(count), padded(height), padded(width), padded(count, TILE)
    table = waves(count, positions, frame, "none", (wp, tp), True, dtype, device)
    r = torch.empty(2, batch * channels, jp, hp, dtype=dtype, device=device)
    gate = x if before is None else before
    rows_pass[batch * channels, triton.cdiv(hp, TILE), triton.cdiv(jp, TILE)](
        x, gate, sizes, table, r, channels, height, width, *x.stride(), *gate.stride()[:2], hp, jp, wp, tp,
        r[0].numel(), BEFORE=before is not None, OPERANDS=OPERANDS[dtype], **ROWS[dtype],
    )  # fmt: skip
    return r


def transformed_columns(
    a: Tensor,
    table: Tensor,
    out: Tensor,
    out_plane: int,
    spectrum: Tensor | None = None,
    conjugate: bool = False,
    factors: Tensor | None = None,
) -> Tensor:
    """Rows of `a` (2, images, JP, NI) times a table, times a spectrum or factors, into `out` of that many columns.

    The parts of `out` are `out_plane` numbers apart, its images `out.stride(-3)`.
    """
    _, images, jp, ni = a.shape
    no, dtype = out.shape[-1], a.dtype
    tile = COLUMNS[dtype]
    columns_pass[triton.cdiv(images * jp, tile["TILE"]), triton.cdiv(no, tile["F"])](
        a, table, a if spectrum is None else spectrum, a if factors is None else factors, out,
        images * jp, 1 if spectrum is None else spectrum.shape[0], jp, ni, no, table.shape[2], a[0].numel(), out_plane,
        out.stride(-3), 0 if spectrum is None else spectrum.stride(0),
        PRODUCT=spectrum is not None, CONJUGATE=conjugate, SCALE=factors is not None,
        OPERANDS=OPERANDS[dtype], **tile,
    )  # fmt: skip
    return out


def untransformed_rows(
    q: Tensor, factors: Tensor, y: Signal, frame: int, positions: range, after: Tensor | None = None
) -> None:
    """Write the images of Q (2, images, JP, HP), times `factors`, into `y` (batch, channels, height, width)."""
    (channels, height, width), (_, images, jp, hp), dtype = y.shape[1:], q.shape, q.dtype
    tp = padded(width, TILE)
    table = waves(frame // 2 + 1, positions, frame, "half", (jp, tp), False, dtype, q.device)
    gate = y if after is None else after
    rows_back[images, triton.cdiv(height, TILE), triton.cdiv(width, TILE)](
        q, table, factors, gate, y, channels, height, width, *y.stride()[:2], *gate.stride()[:2], hp, jp, tp,
        q[0].numel(), AFTER=after is not None, OPERANDS=OPERANDS[dtype], **ROWS[dtype],
    )  # fmt: skip


def prepare(taps: Taps, problem: Problem, frame: tuple[int, ...]) -> Tensor:
    """Spectra of the taps, (channels, 2 JP FP + TRAILER): at most 1, over a power of two whose exponent follows."""
    dtype, device = operands(problem), taps.device
    (o_h, o_w), (k_h, k_w), (n_h, n_w), jp, fp = (
        problem.origin,
        problem.kernel_size,
        frame,
        half(frame),
        padded(frame[0]),
    )
    images = taps.float()[None]
    sizes = magnitudes(images, dtype)
    exponents = torch.linalg.vector_norm(images[0], 1, dim=(1, 2)).clamp_min(1e-30).log2().ceil()
    factors = sizes[0] * torch.exp2(-exponents)
    spectra = torch.empty(taps.shape[0], 2 * jp * fp + TRAILER, dtype=dtype, device=device)
    spectra[:, 2 * jp * fp] = exponents
    table = waves(n_h, range(-o_h, k_h - o_h), n_h, "none", (padded(k_h), padded(n_h, TILE)), True, dtype, device)
    for _, c in slices(1, taps.shape[0], 2 * jp * padded(k_h) * dtype.itemsize):
        r = transformed_rows(images[:, c], sizes[:, c].contiguous(), n_w, range(-o_w, k_w - o_w), dtype)
        out = spectra[c, : 2 * jp * fp].unflatten(1, (2, jp, fp))[:, 0]
        transformed_columns(r, table, out, jp * fp, factors=factors[c])
    return spectra


def run(
    x: Signal,
    spectrum: Tensor,
    problem: Problem,
    frame: tuple[int, ...],
    conjugate: bool = False,
    before: Tensor | None = None,
    after: Tensor | None = None,
) -> Signal:
    """after * F^-1(F(before * x) * spectrum), or with the conjugate spectrum."""
    dtype, device = operands(problem), x.device
    (height, width), (n_h, n_w), jp, fp = problem.size, frame, half(frame), padded(frame[0])
    hp = padded(height)
    a = waves(n_h, range(height), n_h, "none", (hp, padded(n_h, TILE)), True, dtype, device)
    b = waves(n_h, range(height), n_h, "whole", (fp, padded(height, TILE)), False, dtype, device)
    y = torch.empty(x.shape, dtype=x.dtype, device=device)
    before, after = (None if g is None else with_contiguous_images(g.expand_as(x)) for g in (before, after))
    sizes = magnitudes(x, dtype)
    if before is not None:
        sizes = sizes * magnitudes(before, dtype)
    factors = sizes * torch.exp2(spectrum[:, 2 * jp * fp].float())
    for piece in slices(problem.batch, x.shape[1], 2 * jp * (hp + fp) * dtype.itemsize):
        gates = [None if gate is None else gate[piece] for gate in (before, after)]
        r = transformed_rows(x[piece], sizes[piece].contiguous(), n_w, range(width), dtype, gates[0])
        p = r.new_empty(*r.shape[:3], fp)
        transformed_columns(r, a, p[0], p[0].numel(), spectrum[piece[1]], conjugate)
        transformed_columns(p, b, r[0], r[0].numel())
        untransformed_rows(r, factors[piece].contiguous(), y[piece], n_w, range(width), gates[1])
    return y


def taps_gradient(grad: Signal, x: Signal, problem: Problem, frame: tuple[int, ...]) -> Taps:
    """The sum over the batch of F^-1(F grad * conj F x), at the lags of the taps.

    Beside a slice's workspace it holds the spectra of all channels in float32, 8 JP FP bytes each per piece of batch.
    """
    dtype, device, channels = operands(problem), x.device, x.shape[1]
    (height, width), (n_h, n_w), jp, fp = problem.size, frame, half(frame), padded(frame[0])
    table = waves(n_h, range(height), n_h, "none", (padded(height), padded(n_h, TILE)), True, dtype, device)
    pieces = list(slices(problem.batch, channels, 4 * jp * padded(height) * dtype.itemsize))
    parts = len({b.start for b, _ in pieces})
    spectra = torch.empty(channels, parts, 2, jp, fp, dtype=torch.float32, device=device)
    for i, piece in enumerate(pieces):
        sizes = [magnitudes(signal[piece], dtype) for signal in (grad, x)]
        v, r = (
            transformed_rows(signal[piece], size, n_w, range(width), dtype)
            for signal, size in zip((grad, x), sizes, strict=True)
        )
        out = spectra[piece[1], i % parts]
        tile = CORRELATE[dtype]
        correlate_pass[out.shape[0], triton.cdiv(jp, tile["TILE"]), triton.cdiv(fp, tile["F"])](
            v, r, *sizes, table, out, len(v[0]) // out.shape[0], out.shape[0], jp, padded(height), fp, table.shape[2],
            v[0].numel(), out.stride(0), OPERANDS=OPERANDS[dtype], **tile,
        )  # fmt: skip
    return taps_from(spectra.sum(1) if parts > 1 else spectra[:, 0], problem, frame)


def taps_from(spectra: Tensor, problem: Problem, frame: tuple[int, ...]) -> Taps:
    """Taps of spectra (channels, 2, JP, FP)."""
    dtype, device, (channels, _, jp, fp) = operands(problem), spectra.device, spectra.shape
    (o_h, o_w), (k_h, k_w), (n_h, n_w) = problem.origin, problem.kernel_size, frame
    table = waves(n_h, range(-o_h, k_h - o_h), n_h, "whole", (fp, padded(k_h, TILE)), False, dtype, device)
    sizes = torch.linalg.vector_norm(spectra, float("inf"), dim=(1, 2, 3)).clamp_min(1e-30)
    taps = torch.empty(1, channels, k_h, k_w, dtype=torch.float32, device=device)
    for _, c in slices(1, channels, 2 * jp * (padded(k_h) + fp) * dtype.itemsize):
        p = (spectra[c] / sizes[c, None, None, None]).to(dtype).transpose(0, 1).contiguous()
        q = p.new_empty(*p.shape[:3], padded(k_h))
        transformed_columns(p, table, q[0], q[0].numel())
        untransformed_rows(q, sizes[c], taps[:, c], n_w, range(-o_w, k_w - o_w))
    return taps[0]
