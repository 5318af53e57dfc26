"""Depthwise convolutions of images as products with DFT matrices, a few images of one channel per program.

y = F^-1(F x * F k) on a frame of N_h x N_w samples, in which nothing wraps around on a zero axis, and which is the
period of a circular one. A transform is a product with a matrix, so a frame may have any length, and only the n samples
of an axis enter: the matrices are rectangular. Rows are real, so half of their frequencies do, N_w // 2 + 1; for n
samples and 2n - 1 taps those are n. With x of (h, w), frequencies f down the columns and j along the rows,

    R[h, j] = sum_w x[h, w] E[w, j]          Z[j, f] = sum_h R[h, j] A[h, f]          P = Z * K
    Q[j, h] = sum_f P[j, f] B[f, h]          y[h, w] = Re sum_j Q[j, h] C[j, w]

each a product of data with a constant on its right, the images of a program stacked in the rows: 64 rows of frequencies
fill the tensor cores' instruction, and sums stay in registers from one stage to the next. R and Q are turned once each.
The lags of the taps are in their spectrum: outputs are samples 0 .. n - 1 of the frame, and the gradient in x is the
same program with the conjugate spectrum.

Half-precision signals have float16 operands, since bfloat16 matrices would cost 5e-3 in accuracy. float16 has a small
range: every image is divided by its largest magnitude, the spectrum by no less than the sum of the taps' magnitudes,
and both are multiplied back in float32 at the end. float32 signals take three tf32 products.

Traffic: `convolve` reads x, the gates and the spectrum (2 J FP numbers per program, from the cache but once per
channel) and writes y. `correlate` reads both signals, once per block of f, and writes 8 J FP bytes per program. Flops
of an image of H x W samples in tiles: 4 H W J + 8 H J FP for its transform, as many for the inverse; `convolve` takes
both, `correlate` two transforms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._problem import Problem
from omniconv.engines.triton._dot import dot, nearest
from omniconv.engines.triton._kept import kept

TRAILER = 8
"""Numbers after a channel's spectrum: the exponent of its scale, and room that keeps channels aligned."""

LAGS = {torch.float16: 32, torch.float32: 16}
"""Taps per axis in a block, by the dtype of operands."""
WARPS, STAGES = 4, 2
"""Warps of a program, and iterations of a loop whose loads are under way at once."""
PROGRAMS = 528
"""Programs that fill the device: four on each of its 132 multiprocessors."""
OPERANDS = {torch.float32: tl.float32, torch.float16: tl.float16}


@triton.jit
def complex_dot(ar, ai, br, bi, cr, ci, OPERANDS: tl.constexpr):
    """c + a @ b of complex matrices in two parts."""
    cr = dot(ar, br, cr, OPERANDS)
    ci = dot(ar, bi, ci, OPERANDS)
    cr = dot(-ai, bi, cr, OPERANDS)
    ci = dot(ai, br, ci, OPERANDS)
    return cr, ci


@triton.jit
def block(table, part, row, column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """R x C entries of one part of a table (2, HEIGHT, WIDTH), from `row` and `column` on."""
    rows, columns = row + tl.arange(0, R), column + tl.arange(0, C)
    return tl.load(table + (part * HEIGHT + rows[:, None]) * WIDTH + columns[None, :])


@triton.jit
def turn(x, G: tl.constexpr, A: tl.constexpr, B: tl.constexpr, OPERANDS: tl.constexpr):
    """Rows (image, a) and columns b to rows (image, b) and columns a."""
    x = x.to(OPERANDS)
    if G == 1:
        return tl.trans(x)
    return tl.reshape(tl.permute(tl.reshape(x, (G, A, B)), (0, 2, 1)), (G * B, A))


@triton.jit
def per_row(values, G: tl.constexpr, A: tl.constexpr):
    """One value per image as one per row (image, a)."""
    return tl.reshape(tl.broadcast_to(values[:, None], (G, A)), (G * A,))


@triton.jit
def places(first, channel, batch, height, width, sb, sc, sh, sw, G: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """Offsets of G images of a channel as rows (image, h) and columns w, and which of them exist."""
    row, w = tl.arange(0, G * H), tl.arange(0, W)
    b, h = first + row // H, row % H
    inside = ((b < batch) & (h < height))[:, None] & (w < width)[None, :]
    down = b.to(tl.int64) * sb + channel.to(tl.int64) * sc + h.to(tl.int64) * sh
    return down[:, None] + (w.to(tl.int64) * sw)[None, :], inside


@triton.jit
def unit(x, G: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OPERANDS: tl.constexpr):
    """Images divided by their largest magnitudes, and these, one per image: float16 has a small range."""
    if OPERANDS == tl.float32:
        return x, tl.full((G,), 1.0, tl.float32)
    # A floor, for an image of zeros.
    size = tl.maximum(tl.max(tl.max(tl.abs(tl.reshape(x, (G, H, W))), 2), 1), 1e-30)
    return (x * per_row(1 / size, G, H)[:, None]).to(OPERANDS), size


@triton.jit
def rows(x, table, G: tl.constexpr, H: tl.constexpr, W: tl.constexpr, J: tl.constexpr, OPERANDS: tl.constexpr):
    """R as rows (image, j) and columns h, in two parts."""
    none = tl.zeros((G * H, J), tl.float32)
    rr = dot(x, block(table, 0, 0, 0, W, J, W, J), none, OPERANDS)
    ri = dot(x, block(table, 1, 0, 0, W, J, W, J), none, OPERANDS)
    return turn(rr, G, H, J, OPERANDS), turn(ri, G, H, J, OPERANDS)


@triton.jit
def columns(
    rr, ri, table, f, M: tl.constexpr, H: tl.constexpr, F: tl.constexpr, FP: tl.constexpr, OPERANDS: tl.constexpr
):
    """Z at F frequencies from f on, as rows (image, j), in two parts."""
    none = tl.zeros((M, F), tl.float32)
    ar, ai = block(table, 0, 0, f, H, FP, H, F), block(table, 1, 0, f, H, FP, H, F)
    return complex_dot(rr, ri, ar, ai, none, none, OPERANDS)


@triton.jit
def convolve(
    x, y, before, after, spectrum, e_table, a_table, b_table, c_table, batch, channels, height, width, xb, xc, xh, xw,
    pb, pc, qb, qc, CONJUGATE: tl.constexpr, BEFORE: tl.constexpr, AFTER: tl.constexpr, G: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, J: tl.constexpr, F: tl.constexpr, FP: tl.constexpr, TRAILER: tl.constexpr,
    OPERANDS: tl.constexpr,
):  # fmt: skip
    """y = after * F^-1(F(before * x) * spectrum) for G images of a channel; gates have contiguous images."""
    # One axis of programs: the others are bounded by 65535, and a batch is not.
    channel, first = tl.program_id(0) % channels, tl.program_id(0) // channels * G
    at, inside = places(first, channel, batch, height, width, xb, xc, xh, xw, G, H, W)
    signal = tl.load(x + at, mask=inside, other=0).to(tl.float32)
    if BEFORE:
        at, inside = places(first, channel, batch, height, width, pb, pc, width, 1, G, H, W)
        signal *= tl.load(before + at, mask=inside, other=0).to(tl.float32)
    signal, size = unit(signal, G, H, W, OPERANDS)
    rr, ri = rows(signal, e_table, G, H, W, J, OPERANDS)
    spectrum += channel.to(tl.int64) * (2 * J * FP + TRAILER)
    frequency = tl.arange(0, G * J) % J
    qr = tl.zeros((G * J, H), tl.float32)
    qi = tl.zeros((G * J, H), tl.float32)
    for f in range(0, FP, F):
        zr, zi = columns(rr, ri, a_table, f, G * J, H, F, FP, OPERANDS)
        bins = frequency[:, None] * FP + (f + tl.arange(0, F))[None, :]
        kr = tl.load(spectrum + bins).to(tl.float32)
        ki = tl.load(spectrum + J * FP + bins).to(tl.float32)
        if CONJUGATE:
            ki = -ki
        pr, pi = (zr * kr - zi * ki).to(OPERANDS), (zr * ki + zi * kr).to(OPERANDS)
        br, bi = block(b_table, 0, f, 0, FP, H, F, H), block(b_table, 1, f, 0, FP, H, F, H)
        qr, qi = complex_dot(pr, pi, br, bi, qr, qi, OPERANDS)
    total = tl.zeros((G * H, W), tl.float32)
    total = dot(turn(qr, G, J, H, OPERANDS), block(c_table, 0, 0, 0, J, W, J, W), total, OPERANDS)
    total = dot(turn(qi, G, J, H, OPERANDS), block(c_table, 1, 0, 0, J, W, J, W), total, OPERANDS)
    total *= per_row(size * tl.exp2(tl.load(spectrum + 2 * J * FP).to(tl.float32)), G, H)[:, None]
    if AFTER:
        at, inside = places(first, channel, batch, height, width, qb, qc, width, 1, G, H, W)
        total *= tl.load(after + at, mask=inside, other=0).to(tl.float32)
    area = tl.cast(height * width, tl.int64)
    at, inside = places(first, channel, batch, height, width, channels * area, area, width, 1, G, H, W)
    tl.store(y + at, nearest(total, y.dtype.element_ty), mask=inside)


@triton.jit
def correlate(
    grad, x, spectra, e_table, a_table, batch, height, width, groups, gb, gc, gh, gw, xb, xc, xh, xw,
    G: tl.constexpr, H: tl.constexpr, W: tl.constexpr, J: tl.constexpr, F: tl.constexpr, FP: tl.constexpr,
    OPERANDS: tl.constexpr,
):  # fmt: skip
    """The sum of F grad * conj F x over `groups` times G images of a channel, at F frequencies f."""
    channel, part, f = tl.program_id(0), tl.program_id(1), tl.program_id(2) * F
    sr = tl.zeros((G * J, F), tl.float32)
    si = tl.zeros((G * J, F), tl.float32)
    for lap in range(groups):
        first = (part * groups + lap) * G
        at, inside = places(first, channel, batch, height, width, xb, xc, xh, xw, G, H, W)
        signal, size = unit(tl.load(x + at, mask=inside, other=0).to(tl.float32), G, H, W, OPERANDS)
        rr, ri = rows(signal, e_table, G, H, W, J, OPERANDS)
        xr, xi = columns(rr, ri, a_table, f, G * J, H, F, FP, OPERANDS)
        at, inside = places(first, channel, batch, height, width, gb, gc, gh, gw, G, H, W)
        signal, loud = unit(tl.load(grad + at, mask=inside, other=0).to(tl.float32), G, H, W, OPERANDS)
        rr, ri = rows(signal, e_table, G, H, W, J, OPERANDS)
        vr, vi = columns(rr, ri, a_table, f, G * J, H, F, FP, OPERANDS)
        size = per_row(size * loud, G, J)[:, None]
        sr += (vr * xr + vi * xi) * size
        si += (vi * xr - vr * xi) * size
    bins = tl.arange(0, J)[:, None] * FP + (f + tl.arange(0, F))[None, :]
    spectra += (channel.to(tl.int64) * tl.num_programs(1) + part) * (2 * J * FP)
    tl.store(spectra + bins, tl.sum(tl.reshape(sr, (G, J, F)), 0))
    tl.store(spectra + J * FP + bins, tl.sum(tl.reshape(si, (G, J, F)), 0))


@triton.jit
def transform_taps(
    taps, spectrum, e_table, a_table, height, width, HP, WP, K: tl.constexpr, J: tl.constexpr, F: tl.constexpr,
    FP: tl.constexpr, TRAILER: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """The spectrum of a channel's taps at F frequencies f, over a power of two whose exponent comes last.

    The power is at least the sum of the taps' magnitudes. The tables are (2, J, WP) and (2, HP, FP), with the lags of
    the taps in HP and WP, multiples of K.
    """
    channel = tl.program_id(0)
    j, f, k = tl.arange(0, J), tl.program_id(1) * F + tl.arange(0, F), tl.arange(0, K)
    taps += channel.to(tl.int64) * height * width
    spectrum += channel.to(tl.int64) * (2 * J * FP + TRAILER)
    largest = tl.zeros((K, K), tl.float32)
    total = tl.zeros((K, K), tl.float32)
    for a in range(0, HP, K):
        for b in range(0, WP, K):
            inside = (a + k < height)[:, None] & (b + k < width)[None, :]
            tile = tl.abs(tl.load(taps + (a + k)[:, None] * width + (b + k)[None, :], mask=inside, other=0))
            largest, total = tl.maximum(largest, tile), total + tile
    # Floors, for a kernel of zeros.
    peak = tl.maximum(tl.max(tl.max(largest, 1), 0), 1e-30)
    exponent = tl.ceil(tl.log2(tl.maximum(tl.sum(tl.sum(total, 1), 0), 1e-30)))
    zr = tl.zeros((J, F), tl.float32)
    zi = tl.zeros((J, F), tl.float32)
    for a in range(0, HP, K):
        rr = tl.zeros((J, K), tl.float32)
        ri = tl.zeros((J, K), tl.float32)
        for b in range(0, WP, K):
            inside = (a + k < height)[None, :] & (b + k < width)[:, None]
            tile = tl.load(taps + (a + k)[None, :] * width + (b + k)[:, None], mask=inside, other=0) / peak
            lags = j[:, None] * WP + (b + k)[None, :]
            rr = dot(tl.load(e_table + lags), tile, rr, OPERANDS)
            ri = dot(tl.load(e_table + J * WP + lags), tile, ri, OPERANDS)
        lags = (a + k)[:, None] * FP + f[None, :]
        ar, ai = tl.load(a_table + lags), tl.load(a_table + HP * FP + lags)
        zr, zi = complex_dot(rr.to(OPERANDS), ri.to(OPERANDS), ar, ai, zr, zi, OPERANDS)
    shrink, bins = peak * tl.exp2(-exponent), j[:, None] * FP + f[None, :]
    tl.store(spectrum + bins, (zr * shrink).to(OPERANDS))
    tl.store(spectrum + J * FP + bins, (zi * shrink).to(OPERANDS))
    if tl.program_id(1) == 0:
        tl.store(spectrum + 2 * J * FP, exponent.to(OPERANDS))


@triton.jit
def taps_of(
    spectra, taps, b_table, c_table, parts, height, width, HP, WP, K: tl.constexpr, J: tl.constexpr, F: tl.constexpr,
    FP: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """K x K taps whose spectrum is the sum of the `parts` of `spectra` (channels, parts, 2, J, FP).

    The tables are (2, FP, HP) and (2, WP, J), with the lags of the taps in HP and WP, multiples of K.
    """
    channel = tl.program_id(0)
    a = (tl.program_id(1) // (WP // K)) * K + tl.arange(0, K)
    b = (tl.program_id(1) % (WP // K)) * K + tl.arange(0, K)
    j, f = tl.arange(0, J), tl.arange(0, F)
    spectra += channel.to(tl.int64) * parts * (2 * J * FP)
    largest = tl.zeros((J, F), tl.float32)
    for part in range(2 * parts):
        for g in range(0, FP, F):
            tile = tl.load(spectra + part * (J * FP) + j[:, None] * FP + (g + f)[None, :])
            largest = tl.maximum(largest, tl.abs(tile))
    # A floor, for a gradient of zeros.
    peak = tl.maximum(tl.max(tl.max(largest, 1), 0) * parts, 1e-30)
    qr = tl.zeros((J, K), tl.float32)
    qi = tl.zeros((J, K), tl.float32)
    for g in range(0, FP, F):
        sr = tl.zeros((J, F), tl.float32)
        si = tl.zeros((J, F), tl.float32)
        for part in range(parts):
            bins = part * (2 * J * FP) + j[:, None] * FP + (g + f)[None, :]
            sr += tl.load(spectra + bins)
            si += tl.load(spectra + J * FP + bins)
        lags = (g + f)[:, None] * HP + a[None, :]
        br, bi = tl.load(b_table + lags), tl.load(b_table + FP * HP + lags)
        qr, qi = complex_dot((sr / peak).to(OPERANDS), (si / peak).to(OPERANDS), br, bi, qr, qi, OPERANDS)
    out = tl.zeros((K, K), tl.float32)
    lags = b[:, None] * J + j[None, :]
    out = dot(tl.load(c_table + lags), qr, out, OPERANDS)
    out = dot(tl.load(c_table + WP * J + lags), qi, out, OPERANDS)
    inside = (b < width)[:, None] & (a < height)[None, :]
    tl.store(taps + channel.to(tl.int64) * height * width + a[None, :] * width + b[:, None], out * peak, mask=inside)


@dataclass(frozen=True)
class Tiles:
    """Compile-time sizes: G images of H x W samples, J frequencies along rows, blocks F of the FP down columns."""

    G: int
    H: int
    W: int
    J: int
    F: int
    FP: int


def tiles(size: tuple[int, ...], frame: tuple[int, ...], dtype: torch.dtype) -> Tiles:
    """Tiles for images of `size` samples, at most 64 per axis, in a frame of `frame`, for operands of `dtype`."""
    height, width = (max(16, triton.next_power_of_2(n)) for n in size)
    j = max(16, triton.next_power_of_2(frame[1] // 2 + 1))
    if height * width == 4096:
        j = 64
    # 64 rows of frequencies fill the tensor cores' instruction; larger tiles of images do not fit the registers.
    g = max(1, min(64 // j, 4096 // (height * width)))
    widest = {16: 64, 32: 64, 64: 32} if dtype == torch.float16 else {16: 32, 32: 16, 64: 16}
    f = min(widest[height], max(16, triton.next_power_of_2(frame[0])))
    return Tiles(g, height, width, j, f, -(-frame[0] // f) * f)


@kept
def waves(
    frequencies: int,
    positions: range,
    frame: int,
    weight: str,
    shape: tuple[int, int],
    positions_first: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """A matrix of waves in two parts (2, *shape), zero-padded; its rows are frequencies unless `positions_first`.

    `weight`: "none" for exp(-2 pi i f p / frame). "whole" for the inverse of a complex transform, the conjugate over
    `frame`. "half" for that of a real one, Re sum_f w_f Q_f exp(2 pi i f p / frame) = Qr Cr + Qi Ci: the waves as they
    are times w_f, 1 / frame or twice that where a frequency stands for its conjugate too.
    """
    f = torch.arange(frequencies, device="cpu")
    p = torch.arange(positions.start, positions.stop, device="cpu")
    angle = (f[:, None] * p % frame).double() * (-2 * math.pi / frame)
    wave = torch.stack([angle.cos(), angle.sin()])
    if weight != "none":
        wave /= frame
    if weight == "whole":
        wave[1].neg_()
    if weight == "half":
        wave *= torch.where((f == 0) | (2 * f == frame), 1.0, 2.0)[:, None]
    if positions_first:
        wave = wave.mT
    table = torch.zeros(2, *shape, dtype=dtype, device="cpu")
    table[:, : wave.shape[1], : wave.shape[2]] = wave
    return table


def prepare(taps: Taps, problem: Problem, frame: tuple[int, ...]) -> Tensor:
    """Spectra of the taps, (channels, 2 J FP + TRAILER): at most 1, over a power of two whose exponent follows."""
    device, dtype = taps.device, operands(problem)
    tile = tiles(problem.size, frame, dtype)
    taps = taps.float().contiguous()
    (o_h, o_w), (k_h, k_w), (n_h, n_w) = problem.origin, problem.kernel_size, frame
    padded_h, padded_w = (-(-k // LAGS[dtype]) * LAGS[dtype] for k in (k_h, k_w))
    e = waves(n_w // 2 + 1, range(-o_w, k_w - o_w), n_w, "none", (tile.J, padded_w), False, dtype, device)
    a = waves(n_h, range(-o_h, k_h - o_h), n_h, "none", (padded_h, tile.FP), True, dtype, device)
    spectrum = torch.empty(taps.shape[0], 2 * tile.J * tile.FP + TRAILER, dtype=dtype, device=device)
    grid = (taps.shape[0], tile.FP // tile.F)
    transform_taps[grid](
        taps, spectrum, e, a, k_h, k_w, padded_h, padded_w, K=LAGS[dtype], J=tile.J, F=tile.F, FP=tile.FP,
        TRAILER=TRAILER, OPERANDS=OPERANDS[dtype], num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return spectrum


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
    device, dtype = x.device, operands(problem)
    tile = tiles(problem.size, frame, dtype)
    (height, width), (n_h, n_w) = problem.size, frame
    half = n_w // 2 + 1
    e = waves(half, range(width), n_w, "none", (tile.W, tile.J), True, dtype, device)
    a = waves(n_h, range(height), n_h, "none", (tile.H, tile.FP), True, dtype, device)
    b = waves(n_h, range(height), n_h, "whole", (tile.FP, tile.H), False, dtype, device)
    c = waves(half, range(width), n_w, "half", (tile.J, tile.W), False, dtype, device)
    y = torch.empty(x.shape, dtype=x.dtype, device=device)
    gates = [x if gate is None else with_contiguous_images(gate.expand_as(x)) for gate in (before, after)]
    channels = x.shape[1]
    convolve[(channels * -(-problem.batch // tile.G),)](
        x, y, *gates, spectrum, e, a, b, c, problem.batch, channels, height, width, *x.stride(),
        *gates[0].stride()[:2], *gates[1].stride()[:2], CONJUGATE=conjugate, BEFORE=before is not None,
        AFTER=after is not None, G=tile.G, H=tile.H, W=tile.W, J=tile.J, F=tile.F, FP=tile.FP, TRAILER=TRAILER,
        OPERANDS=OPERANDS[dtype], num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return y


def taps_gradient(grad: Signal, x: Signal, problem: Problem, frame: tuple[int, ...]) -> Taps:
    """The sum over the batch of F^-1(F grad * conj F x), at the lags of the taps.

    Its workspace holds one spectrum per program, 8 J FP bytes: at most one per channel and group of images.
    """
    device, dtype = x.device, operands(problem)
    tile = tiles(problem.size, frame, dtype)
    (height, width), (n_h, n_w), half = problem.size, frame, frame[1] // 2 + 1
    e = waves(half, range(width), n_w, "none", (tile.W, tile.J), True, dtype, device)
    a = waves(n_h, range(height), n_h, "none", (tile.H, tile.FP), True, dtype, device)
    channels, pieces = x.shape[1], tile.FP // tile.F
    parts, groups = share(problem.batch, tile.G, channels * pieces)
    spectra = torch.empty(channels, parts, 2, tile.J, tile.FP, dtype=torch.float32, device=device)
    correlate[channels, parts, pieces](
        grad, x, spectra, e, a, problem.batch, height, width, groups, *grad.stride(), *x.stride(), G=tile.G,
        H=tile.H, W=tile.W, J=tile.J, F=tile.F, FP=tile.FP, OPERANDS=OPERANDS[dtype], num_warps=WARPS,
        num_stages=STAGES,
    )  # fmt: skip
    return taps_from(spectra, problem, frame, tile)


def taps_from(spectra: Tensor, problem: Problem, frame: tuple[int, ...], tile: Tiles) -> Taps:
    """Taps of the sum over the second axis of spectra (channels, parts, 2, J, FP)."""
    channels, parts = spectra.shape[:2]
    (o_h, o_w), (k_h, k_w), (n_h, n_w) = problem.origin, problem.kernel_size, frame
    dtype, device = operands(problem), spectra.device
    padded_h, padded_w = (-(-k // LAGS[dtype]) * LAGS[dtype] for k in (k_h, k_w))
    b = waves(n_h, range(-o_h, k_h - o_h), n_h, "whole", (tile.FP, padded_h), False, dtype, device)
    c = waves(n_w // 2 + 1, range(-o_w, k_w - o_w), n_w, "half", (padded_w, tile.J), True, dtype, device)
    taps = torch.empty(channels, k_h, k_w, dtype=torch.float32, device=device)
    taps_of[channels, padded_h // LAGS[dtype] * (padded_w // LAGS[dtype])](
        spectra, taps, b, c, parts, k_h, k_w, padded_h, padded_w, K=LAGS[dtype], J=tile.J, F=tile.F, FP=tile.FP,
        OPERANDS=OPERANDS[dtype], num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return taps


def with_contiguous_images(x: Tensor) -> Tensor:
    """The tensor, copied if its last two axes are not contiguous."""
    return x if x.stride()[2:] == (x.shape[3], 1) else x.contiguous()


def operands(problem: Problem) -> torch.dtype:
    """The dtype of the factors of the matrix products."""
    return torch.float32 if problem.dtype == torch.float32 else torch.float16


def share(batch: int, images: int, channels: int) -> tuple[int, int]:
    """(programs per channel, groups of `images` in each): enough programs to fill the device, and no more."""
    groups = -(-batch // images)
    each = -(-groups // min(groups, -(-PROGRAMS // channels)))
    return -(-groups // each), each
