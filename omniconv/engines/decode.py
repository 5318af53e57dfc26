"""One step of autoregressive decoding of gated long convolutions whose filters are modal recurrences.

The input of a mixer's step is one sample of its input projection, `projected` (batch, 3 channels): a query, a key and a
value, each `channels` wide. A short causal convolution, of three taps as a rule, goes over all of them, the recurrence
of a long filter over what key and value make, and the query gates what comes out. What a step has to remember is

    window  (taps - 1, batch, 3 channels)   the last projected samples, the oldest first, in their dtype
    state   (modes, 2, batch, ...)          real and imaginary part of the recurrence, in float32 or bfloat16

both changed in place, of the same size after every step, so that a step can be recorded once and replayed. On a CUDA
device one kernel does all of a mixer's step in one pass over the state; everywhere else, in float64, for heads of more
than 64 channels, and for short convolutions of other than three taps, it is plain PyTorch: `reference_gated_step` and
`reference_multi_head_step`, which say what is computed. Nothing here has gradients.

Massaroli et al. 2023, Laughing Hyena Distillery; Poli et al. 2023, Hyena Hierarchy.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, describe
from omniconv.engines._tensor_cores import refuse_package

TAPS = 3
"""Of the short convolution that the kernel takes."""

STATES = (torch.float32, torch.bfloat16, torch.float64)
"""Dtypes of a state; the last is for plain PyTorch."""

WIDEST = 64
"""Heads that the kernel takes: a program holds the state of a head, and wider ones do not fit its registers."""

Projected = Annotated[Tensor, "batch 3*channels: query, key, value"]
Window = Annotated[Tensor, "taps-1 batch 3*channels"]
Modal = Annotated[Tensor, "modes 2 filters: real and imaginary parts"]


@torch.no_grad()
def gated_step(
    projected: Projected,
    window: Window,
    state: Annotated[Tensor, "modes 2 batch channels"],
    *,
    short_taps: Annotated[Tensor, "3*channels taps"],
    short_bias: Annotated[Tensor, "3*channels"],
    poles: Modal,
    residues: Modal,
    direct: Annotated[Tensor, "channels"],
    inputs: Annotated[Tensor, "modes channels"] | None = None,
) -> Annotated[Tensor, "batch channels"]:
    """One step of an order-2 Hyena mixer, with a filter for every channel c; `window` and `state` are moved on.

        q, k, v = short convolution of projected       sum_j short_taps[:, j] projected_{t-j} + short_bias, j = 0, 1, ..
        u = k v
        y = direct u + Re sum_n residues_n X_n         the state is read before it takes the sample in
        X_n <- poles_n X_n + inputs_n u
        result = q y

    So the long filter has the tap `direct` at lag 0 and Re sum_n residues_n inputs_n poles_n^(t-1) at lag t >= 1. A
    weight of the layer's skip connection belongs to `direct`.

    `projected`: float32, bfloat16 or float16 (float64 too in plain PyTorch), which is the dtype of the result.
    `residues`, `direct`, `inputs`: float32, and so is the arithmetic; but a state of float32 is multiplied in float64
    and rounded once, as it is kept. `poles` should be float64 there: what a pole was rounded by adds up, step by step.
    `inputs` are the gains of the states, None for 1: where the state is bfloat16 they balance it, with the residues
    divided by them.

    Raises `ValueError`, or `TypeError` for what is no tensor of floating-point numbers, that names the argument.

    >>> window, state = torch.zeros(2, 1, 3), torch.zeros(1, 2, 1, 1)
    >>> now = dict(short_taps=torch.tensor([[1.0, 0, 0]]).expand(3, 3), short_bias=torch.zeros(3))
    >>> modal = dict(poles=torch.tensor([[[0.5], [0.0]]]), residues=torch.tensor([[[1.0], [0.0]]]))
    >>> def step(k): return gated_step(torch.tensor([[1.0, k, 1]]), window, state, **now, **modal, direct=torch.ones(1))
    >>> [step(k).item() for k in (4.0, 0.0, 0.0)]
    [4.0, 4.0, 2.0]
    """
    check_gated(projected, window, state)
    check_parameters(window, state, short_taps, short_bias, poles, residues, direct, inputs)
    if runs_fused(projected, window, state):
        from omniconv.engines.triton import decode

        with torch.cuda.device_of(projected):
            return decode.gated_step(projected, window, state, short_taps, short_bias, poles, residues, direct, inputs)
    return reference_gated_step(
        projected,
        window,
        state,
        short_taps=short_taps,
        short_bias=short_bias,
        poles=poles,
        residues=residues,
        direct=direct,
        inputs=inputs,
    )


@torch.no_grad()
def multi_head_step(
    projected: Projected,
    window: Window,
    state: Annotated[Tensor, "modes 2 batch n_filters head_width head_width"],
    *,
    short_taps: Annotated[Tensor, "3*channels taps"],
    short_bias: Annotated[Tensor, "3*channels"],
    poles: Modal,
    residues: Modal,
    direct: Annotated[Tensor, "n_filters"],
    inputs: Annotated[Tensor, "modes n_filters"] | None = None,
) -> Annotated[Tensor, "batch channels"]:
    """One step of a MultiHyena mixer: channels = n_filters head_width, a filter m for each head of that width.

        q, k, v = short convolution of projected, each (n_filters, head_width)
        z[m, i, j] = k[m, i] v[m, j]
        w[m, i, j] = the recurrence of filter m, as in `gated_step`, of every entry of z[m]
        result[m, j] = sum_i w[m, i, j] q[m, i]

    The widths are those of `state`. Everything else is as in `gated_step`; with heads of width 1 it is `gated_step`.

    Raises `ValueError`, or `TypeError` for what is no tensor of floating-point numbers, that names the argument.
    """
    check_multi_head(projected, window, state)
    check_parameters(window, state, short_taps, short_bias, poles, residues, direct, inputs)
    if runs_fused(projected, window, state):
        from omniconv.engines.triton import decode

        with torch.cuda.device_of(projected):
            return decode.multi_head_step(
                projected, window, state, short_taps, short_bias, poles, residues, direct, inputs
            )
    return reference_multi_head_step(
        projected,
        window,
        state,
        short_taps=short_taps,
        short_bias=short_bias,
        poles=poles,
        residues=residues,
        direct=direct,
        inputs=inputs,
    )


@torch.no_grad()
def reference_gated_step(
    projected: Projected,
    window: Window,
    state: Annotated[Tensor, "modes 2 batch channels"],
    *,
    short_taps: Annotated[Tensor, "3*channels taps"],
    short_bias: Annotated[Tensor, "3*channels"],
    poles: Modal,
    residues: Modal,
    direct: Annotated[Tensor, "channels"],
    inputs: Annotated[Tensor, "modes channels"] | None = None,
) -> Annotated[Tensor, "batch channels"]:
    """`gated_step` in plain PyTorch, on any device and in any precision."""
    check_gated(projected, window, state)
    check_parameters(window, state, short_taps, short_bias, poles, residues, direct, inputs)
    q, k, v = short_convolution(projected, window, short_taps, short_bias, precision(projected, state)).chunk(3, dim=-1)
    y = recurrence(k * v, state, poles, residues, direct, inputs)
    return (q * y).to(projected.dtype)


@torch.no_grad()
def reference_multi_head_step(
    projected: Projected,
    window: Window,
    state: Annotated[Tensor, "modes 2 batch n_filters head_width head_width"],
    *,
    short_taps: Annotated[Tensor, "3*channels taps"],
    short_bias: Annotated[Tensor, "3*channels"],
    poles: Modal,
    residues: Modal,
    direct: Annotated[Tensor, "n_filters"],
    inputs: Annotated[Tensor, "modes n_filters"] | None = None,
) -> Annotated[Tensor, "batch channels"]:
    """`multi_head_step` in plain PyTorch, on any device and in any precision."""
    check_multi_head(projected, window, state)
    check_parameters(window, state, short_taps, short_bias, poles, residues, direct, inputs)
    samples = short_convolution(projected, window, short_taps, short_bias, precision(projected, state))
    q, k, v = samples.unflatten(1, (3, *state.shape[3:5])).unbind(1)  # each batch, n_filters, head_width
    w = recurrence(k[..., :, None] * v[..., None, :], state, poles, residues, direct, inputs)
    return (w * q[..., :, None]).sum(-2).flatten(1).to(projected.dtype)


def short_convolution(projected: Projected, window: Window, taps: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """The taps over the projected sample and those before it, (batch, 3 channels); the window moves on."""
    taps = taps.to(dtype)
    result = taps[:, 0] * projected.to(dtype) + bias.to(dtype)
    for lag, sample in enumerate(window.flip(0), start=1):
        result = result + taps[:, lag] * sample.to(dtype)
    for older, newer in zip(window, [*window[1:], projected], strict=False):  # none to move where there is one tap
        older.copy_(newer)
    return result


def recurrence(
    u: Annotated[Tensor, "batch filters *entries"],
    state: Annotated[Tensor, "modes 2 batch filters *entries"],
    poles: Modal,
    residues: Modal,
    direct: Tensor,
    inputs: Tensor | None,
) -> Annotated[Tensor, "batch filters *entries"]:
    """What the filters give for one more sample of every entry; the state moves on."""

    wide = u.dtype if state.dtype == torch.bfloat16 else torch.float64

    def over(values: Tensor, dtype: torch.dtype) -> Tensor:
        """Values (..., filters) as (..., 1, filters, 1, ...), which broadcast over batch and entries."""
        return values.to(dtype)[(..., None, slice(None), *[None] * (u.ndim - 2))]

    c, d = over(residues, u.dtype).unbind(1)
    real, imaginary = state.to(u.dtype).unbind(1)
    y = over(direct, u.dtype) * u + (c * real - d * imaginary).sum(0)
    a, b = over(poles, wide).unbind(1)
    real, imaginary = state.to(wide).unbind(1)
    entered = u.to(wide) if inputs is None else over(inputs, wide) * u
    moved = torch.stack([a * real - b * imaginary + entered, a * imaginary + b * real], dim=1)
    state.copy_(moved)
    return y


def precision(projected: Tensor, state: Tensor) -> torch.dtype:
    """That of the arithmetic: float32, or float64 where either is."""
    return torch.promote_types(torch.promote_types(projected.dtype, state.dtype), torch.float32)


def runs_fused(projected: Tensor, window: Tensor, state: Tensor) -> bool:
    """Whether the kernel for graphics processors runs this step."""
    if not projected.is_cuda or len(window) != TAPS - 1 or (state.ndim == 6 and state.shape[-1] > WIDEST):
        return False
    return torch.float64 not in (projected.dtype, state.dtype) and refuse_package() is None


def check_gated(projected: Any, window: Any, state: Any) -> None:
    """Raise unless the state is (modes, 2, batch, channels) and what it meets fits it."""
    check_floating_tensor("state", state)
    if state.ndim != 4 or state.shape[1] != 2:
        raise ValueError(f"`state` must be (modes, 2, batch, channels); got {describe(state)}.")
    check_memory(projected, window, state, channels=state.shape[3])


def check_multi_head(projected: Any, window: Any, state: Any) -> None:
    """Raise unless the state is (modes, 2, batch, n_filters, head_width, head_width) and what it meets fits it."""
    check_floating_tensor("state", state)
    if state.ndim != 6 or state.shape[1] != 2 or state.shape[4] != state.shape[5]:
        raise ValueError(
            f"`state` must be (modes, 2, batch, n_filters, head_width, head_width); got {describe(state)}."
        )
    check_memory(projected, window, state, channels=state.shape[3] * state.shape[4])


def check_memory(projected: Any, window: Any, state: Tensor, channels: int) -> None:
    """Raise unless the sample and the window are of the state's batch, and what is written in place can be."""
    batch = state.shape[2]
    check_tensor("projected", projected, (batch, 3 * channels), state, "(batch, 3 channels)")
    check_floating_tensor("window", window)
    before = len(window) if window.ndim == 3 else TAPS - 1
    check_tensor("window", window, (before, batch, 3 * channels), state, "(taps - 1, batch, 3 channels)")
    if window.dtype != projected.dtype:
        raise ValueError(f"`window` must have the dtype of `projected`, {projected.dtype}; got {describe(window)}.")
    if state.dtype not in STATES:
        raise ValueError(f"`state` must be float32 or bfloat16, or float64 in plain PyTorch; got {describe(state)}.")
    for name, memory in (("window", window), ("state", state)):
        if not memory.is_contiguous():
            raise ValueError(f"`{name}` must be contiguous, it is written in place; got strides {memory.stride()}.")


def check_parameters(
    window: Tensor,
    state: Tensor,
    short_taps: Any,
    short_bias: Any,
    poles: Any,
    residues: Any,
    direct: Any,
    inputs: Any,
) -> None:
    """Raise unless the parameters fit the window and the state."""
    (before, _, width), modes, filters = window.shape, state.shape[0], state.shape[3]
    check_tensor("short_taps", short_taps, (width, before + 1), state, "(3 channels, taps)")
    check_tensor("short_bias", short_bias, (width,), state, "(3 channels,)")
    check_tensor("poles", poles, (modes, 2, filters), state, "(modes, 2, filters), real and imaginary parts")
    check_tensor("residues", residues, (modes, 2, filters), state, "(modes, 2, filters), real and imaginary parts")
    check_tensor("direct", direct, (filters,), state, "one per filter")
    if inputs is not None:
        check_tensor("inputs", inputs, (modes, filters), state, "(modes, filters)")


def check_tensor(name: str, value: Any, shape: tuple[int, ...], state: Tensor, axes: str) -> None:
    """Raise unless it is of floating-point numbers, of that shape, on the device of the state."""
    check_floating_tensor(name, value)
    if tuple(value.shape) != shape or value.device != state.device:
        raise ValueError(
            f"`{name}` must be {axes}, here {shape} on {state.device} for a state of shape {tuple(state.shape)}; got "
            f"{describe(value)} on {value.device}."
        )
