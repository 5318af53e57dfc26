"""Convolution with a sum of decaying exponentials, by its recurrence: for kernels that are state spaces.

The taps k[t] = Re sum_n residues_n poles_n^t are never formed beyond the first `chunk` of them. The signal is cut into
chunks of c samples; with the state X, n complex numbers,

    y[i] = sum_{j <= i} k[i - j] x[j] + Re sum_n residues_n poles_n^(i+1) X_n    within a chunk, i, j = 0 .. c - 1,
    X'_n = poles_n^c X_n + sum_j poles_n^(c-1-j) x[j]                            from a chunk to the next,

three products of matrices for all chunks at once and a recurrence over them: O(length (c + 4 modes)) multiplications
per channel, whatever the reach. It takes poles and residues, of which no `taps` tell, so that it stands beside
`convolve` and is none of `ENGINES`.

Powers are computed in float64 by repeated squaring: exact for poles of zero and on the unit circle alike. The state is
carried in float64, and rounded where it enters a product. For gradients the signal and the states before the chunks
are kept, which are 2 modes / chunk times as large.

On a graphics processor one kernel does all of it in one pass over the signal, and keeps the signal alone.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import check_floating_tensor, check_integer, describe
from omniconv._typing import Signal
from omniconv.engines._float32 import full_float32
from omniconv.engines._operator import check_reverse_mode
from omniconv.engines._tensor_cores import refuse_machine

CHUNK = 64
"""Samples per chunk: products within a chunk cost as much as those with the states of 32 modes."""

Poles = Annotated[Tensor, "channels modes, complex"]
State = Annotated[Tensor, "batch channels modes, complex"]


def convolve_modes(x: Signal, poles: Poles, residues: Poles, *, chunk: int = CHUNK) -> Signal:
    """Causal convolution of a series with the taps Re sum_n residues_n poles_n^t: y[t] = sum_{s <= t} k[t - s] x[s].

    `x`: (batch, channels, length), any length of at least 1, and any floating-point dtype, which is that of the result.
    `poles`, `residues`: (channels, modes), of modulus at most 1 for a result that does not overflow. They should be of
    complex128: what a pole was rounded by grows with the lag. `chunk`: samples per chunk, at least 1.

    Differentiable to any order in all three. Raises `ValueError` or `TypeError` that names the argument.

    >>> x = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    >>> convolve_modes(x, torch.tensor([[0.5 + 0j]]), torch.tensor([[2 + 0j]])).tolist()
    [[[2.0, 1.0, 0.5, 2.25]]]
    """
    check_modes(x, poles, residues, None)
    if refuse_fused(x, poles, check_integer("chunk", chunk)) is None:
        return convolve_fused(x, poles, residues, chunk)
    return prefill_modes(x, poles, residues, chunk=chunk)[0]


def convolve_fused(x: Signal, poles: Poles, residues: Poles, chunk: int) -> Signal:
    """`convolve_modes` by the kernel for graphics processors, and by its like for the gradient of the signal."""
    tables = Tables.of(poles, residues, chunk, torch.float32)
    return chunks(x, tables.within, tables.entry, tables.leaving, tables.factor, False)


def refuse_fused(x: Signal, poles: Poles, chunk: int) -> str | None:
    """Why the kernel for graphics processors cannot run this, as a clause; None if it can."""
    if x.device.type != "cuda":
        return f"the device is {x.device.type}; it needs a CUDA device"
    if (reason := refuse_machine("cuda")) is not None:
        return reason
    if x.dtype == torch.float64:
        return "it has no float64"
    if poles.shape[-1] > 64:
        return f"there are {poles.shape[-1]} modes; it has room for 64"
    return None if chunk in (32, 64) else f"the chunk is {chunk}; it takes 32 or 64"


def prefill_modes(
    x: Signal, poles: Poles, residues: Poles, state: State | None = None, *, chunk: int = CHUNK
) -> tuple[Signal, State]:
    """The convolution of `convolve_modes` that goes on from `state`, and the state after the last sample.

    The states are those of a recurrence sample by sample, X_t = poles X_{t-1} + x_t, y_t = Re sum_n residues_n X_t, so
    that either can continue the other. Without a `state` nothing came before.

    >>> poles, residues = torch.tensor([[0.5 + 0j]]), torch.tensor([[2 + 0j]])
    >>> y, state = prefill_modes(torch.ones(1, 1, 2), poles, residues)
    >>> prefill_modes(torch.zeros(1, 1, 1), poles, residues, state)[0].tolist()
    [[[1.5]]]
    """
    check_modes(x, poles, residues, state)
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return prefill_modes(x, poles, residues, state, chunk=chunk)
    chunk = min(check_integer("chunk", chunk), x.shape[-1])
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    tables = Tables.of(poles, residues, chunk, exact.dtype)
    batch, _, length = x.shape
    count = -(-length // chunk)
    parts = in_chunks(exact, chunk)
    start = parts.new_zeros(len(poles), batch, tables.entry.shape[-1])
    if state is not None:
        start = halves(state.transpose(0, 1)).to(parts.dtype)
    rest = length - (count - 1) * chunk  # samples of the last chunk
    with full_float32(device):
        entered = (parts.flatten(1, 2) @ tables.entry).unflatten(1, (batch, count))
        before = carry(torch.cat([start[:, :, None], entered[:, :, :-1]], dim=2), tables.factor, False)
        y = torch.baddbmm(parts.flatten(1, 2) @ tables.within, before.flatten(1, 2), tables.leaving)
        last = parts[:, :, -1, :rest] @ tables.entry[:, -rest:]
    final = times(before[:, :, -1], tables.powers[:, rest, None]) + last
    return (
        y.unflatten(1, (batch, count)).transpose(0, 1).flatten(2)[..., :length].to(x.dtype),
        torch.complex(*final.chunk(2, dim=-1)).transpose(0, 1).to(poles.dtype),
    )


def in_chunks(x: Signal, chunk: int) -> Tensor:
    """The signal as (channels, batch, chunks, chunk), zeros at its end: products are one per channel."""
    count = -(-x.shape[-1] // chunk)
    padded = F.pad(x, (0, count * chunk - x.shape[-1]))
    return padded.unflatten(-1, (count, chunk)).transpose(0, 1).contiguous()


class Tables(NamedTuple):
    """The matrices of a chunk of c samples. Complex numbers of n modes are 2n real ones, first the n real parts.

    `within`: (channels, c, c), the taps at the lags i - j for sample j and output i.
    `entry`: (channels, c, 2n), poles^(c-1-j): sample j in the state after the chunk.
    `leaving`: (channels, 2n, c), residues poles^(i+1): the state before the chunk in output i.
    `factor`: (channels, 2n), poles^c in float64: the state before the chunk in the one after it.
    `powers`: (channels, c + 1, 2n), poles^j in float64.
    """

    within: Tensor
    entry: Tensor
    leaving: Tensor
    factor: Tensor
    powers: Tensor

    @staticmethod
    def of(poles: Poles, residues: Poles, chunk: int, dtype: torch.dtype) -> Tables:
        """Those of a chunk of so many samples; differentiable in poles and residues."""
        powers = powers_of(halves(poles.to(torch.complex128)), chunk + 1)
        weighted = times(powers, halves(residues.to(torch.complex128))[:, None])
        real, imaginary = weighted.chunk(2, dim=-1)
        taps = real[:, :-1].sum(-1).to(dtype)
        return Tables(
            within=F.pad(taps, (chunk - 1, 0)).unfold(-1, chunk, 1).flip(-2),
            entry=powers[:, :-1].flip(1).to(dtype),
            leaving=torch.cat([real, -imaginary], dim=-1)[:, 1:].transpose(1, 2).to(dtype),
            factor=powers[:, -1],
            powers=powers,
        )


def powers_of(base: Tensor, count: int) -> Tensor:
    """base^0 .. base^(count - 1) of complex numbers (channels, 2n), as (channels, count, 2n)."""
    n = base.shape[-1] // 2
    powers, square = torch.cat([torch.ones_like(base[:, :n]), torch.zeros_like(base[:, n:])], dim=-1), base[:, None]
    powers = powers[:, None]
    while powers.shape[1] < count:
        more = powers[:, : count - powers.shape[1]]
        powers, square = torch.cat([powers, times(more, square)], dim=1), times(square, square)
    return powers


def times(left: Tensor, right: Tensor) -> Tensor:
    """Products of complex numbers, the real parts before the imaginary ones; in real arithmetic, which compiles."""
    (a, b), (c, d) = left.chunk(2, dim=-1), right.chunk(2, dim=-1)
    return torch.cat([a * c - b * d, a * d + b * c], dim=-1)


def conjugate(values: Tensor) -> Tensor:
    """The conjugates of complex numbers, the real parts before the imaginary ones."""
    real, imaginary = values.chunk(2, dim=-1)
    return torch.cat([real, -imaginary], dim=-1)


def halves(values: Tensor) -> Tensor:
    """Complex numbers as real ones: the real parts before the imaginary ones."""
    return torch.cat([values.real, values.imag], dim=-1)


@torch.library.custom_op("omniconv::carry", mutates_args=())
def carry(entered: Tensor, factor: Tensor, reverse: bool) -> Tensor:
    """The recurrence X_g = factor X_{g-1} + entered_g over the chunks g, or with X_{g+1} in `reverse`.

    `entered`: (channels, batch, chunks, 2n). `factor`: (channels, 2n) in float64, the precision of the sums.
    """
    if entered.is_cuda and refuse_machine("cuda") is None:
        from omniconv.engines.triton.recurrent import carry_states

        with torch.cuda.device_of(entered):
            return carry_states(entered, factor, reverse)
    steps, factors = (torch.complex(*values.chunk(2, dim=-1)) for values in (entered, factor[:, None]))
    states, state = torch.empty_like(steps), factors.new_zeros(*steps.shape[:2], steps.shape[-1])
    order = range(steps.shape[2])
    for g in reversed(order) if reverse else order:
        state.mul_(factors).add_(steps[:, :, g])
        states[:, :, g] = state
    return halves(states)


@carry.register_fake
def _(entered: Tensor, factor: Tensor, reverse: bool) -> Tensor:
    return entered.new_empty(entered.shape)


def keep_carry(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    """The factor and the states, which the gradients need."""
    _, factor, ctx.reverse = inputs
    ctx.save_for_backward(factor, output)


def backward_carry(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    """The recurrence the other way round with the conjugate factor; and its product with the states one step before."""
    factor, states = ctx.saved_tensors
    through: Tensor = carry(grad, conjugate(factor), not ctx.reverse)
    later, earlier = (slice(1, None), slice(None, -1))[:: -1 if ctx.reverse else 1]
    product = times(through[:, :, later], conjugate(states[:, :, earlier]))
    return through, product.sum((1, 2), dtype=factor.dtype), None


carry.register_autograd(backward_carry, setup_context=keep_carry)


@torch.library.custom_op("omniconv::chunks", mutates_args=())
def chunks(x: Tensor, within: Tensor, entry: Tensor, leaving: Tensor, factor: Tensor, reverse: bool) -> Tensor:
    """The map of a signal that the tables of a chunk make, M(x), by the kernel; its transpose in `reverse`.

    `x`: (batch, channels, length) in float32 or half precision, of any strides.
    """
    from omniconv.engines.triton.recurrent import convolve_chunks

    with torch.cuda.device_of(x):
        return convolve_chunks(x, within, entry, leaving, factor, reverse)


@chunks.register_fake
def _(x: Tensor, within: Tensor, entry: Tensor, leaving: Tensor, factor: Tensor, reverse: bool) -> Tensor:
    return x.new_empty(x.shape)


def keep_chunks(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """All that goes in."""
    *operands, ctx.reverse = inputs
    ctx.save_for_backward(*operands)


def backward_chunks(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The transposed map for the signal; the tables' gradients, which are those of <grad, M(x)> or <x, M(grad)>."""
    x, *tables = ctx.saved_tensors
    dx = chunks(grad, *tables, not ctx.reverse) if ctx.needs_input_grad[0] else None
    if not any(ctx.needs_input_grad[1:5]):
        return dx, None, None, None, None, None
    return dx, *table_gradients(*((grad, x) if ctx.reverse else (x, grad)), *tables[1:]), None


chunks.register_autograd(backward_chunks, setup_context=keep_chunks)


def table_gradients(
    x: Tensor, grad: Tensor, entry: Tensor, leaving: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <grad, M(x)> in the tables, from the states that signal and cotangent lead to."""
    samples, cotangents = (in_chunks(values.float(), entry.shape[1]) for values in (x, grad))
    with full_float32(x.device.type):
        after, before = samples @ entry[:, None], cotangents @ leaving.mT[:, None]
    silence = torch.zeros_like(after[:, :, :1])
    # States before the chunks; what the later chunks ask of the states after them.
    states = carry(torch.cat([silence, after[:, :, :-1]], dim=2), factor, False)
    asked = carry(torch.cat([before[:, :, 1:], silence], dim=2), conjugate(factor), True)
    products = times(asked, conjugate(states)).sum((1, 2), dtype=factor.dtype)
    samples, cotangents, states, asked = (v.flatten(1, 2) for v in (samples, cotangents, states, asked))
    with full_float32(x.device.type):
        return samples.mT @ cotangents, samples.mT @ asked, states.mT @ cotangents, products


def check_modes(x: Any, poles: Any, residues: Any, state: Any) -> None:
    """Raise unless the shapes and dtypes fit."""
    check_floating_tensor("x", x)
    check_reverse_mode(x, poles, residues, state)
    for name, values in (("poles", poles), ("residues", residues)):
        if not isinstance(values, Tensor) or not values.dtype.is_complex:
            raise TypeError(f"`{name}` must hold complex numbers; got {describe(values)}.")
    if poles.ndim != 2 or poles.shape != residues.shape:
        raise ValueError(
            f"`poles` and `residues` must both be (channels, modes); got {describe(poles)} and {describe(residues)}."
        )
    if x.ndim != 3 or x.shape[1] != len(poles) or x.shape[2] < 1:
        raise ValueError(f"`x` must be (batch, {len(poles)}, length) of a length of at least 1; got {describe(x)}.")
    expected = (x.shape[0], *poles.shape)
    if state is not None and (not isinstance(state, Tensor) or not state.dtype.is_complex or state.shape != expected):
        raise ValueError(f"`state` must be complex, (batch, channels, modes), here {expected}; got {describe(state)}.")
