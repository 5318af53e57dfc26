"""Hyena, and what it may remember: all inputs of its long convolution, or the state of a recurrence."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.bench.decode.mixers import Action, Mixer, Prompt, Sample, State, linear
from omniconv.bench.decode.sizes import Sizes
from omniconv.bench.decode.systems import random_system
from omniconv.engines import convolve
from omniconv.engines.decode import Projected, Window, gated_step, multi_head_step


class Hyena(Mixer):
    """Order 2: a projection to query, key and value, a short convolution over them, a long one, a gate, a projection.

    Its memory begins with the window of the short convolution.
    """

    def __init__(self, sizes: Sizes, filters: int, device: str, *, balanced: bool = False) -> None:
        super().__init__()
        self.width = sizes.width
        self.project = linear(sizes.width, 3 * sizes.width, sizes, device)
        self.out = linear(sizes.width, sizes.width, sizes, device)
        self.short_taps = torch.randn(3 * sizes.width, 3, dtype=sizes.dtype, device=device) / 3**0.5
        self.short_bias = 0.1 * torch.randn(3 * sizes.width, dtype=sizes.dtype, device=device)
        self.system = random_system(filters, sizes.modes, device, balanced=balanced)

    def window(self, batch: int) -> Window:
        """The last two projected samples, of random numbers."""
        return torch.randn(2, batch, 3 * self.width, dtype=self.short_taps.dtype, device=self.short_taps.device)

    def taps(self, length: int) -> Taps:
        return self.system.taps(length)

    def step(self, x: Sample, state: State, reach: int) -> Sample:
        return self.out(self.mix(self.project(x), state, reach))

    def prefill(self, x: Prompt, state: State, taps: Taps | None) -> Prompt:
        assert taps is not None
        projected = self.project(x)
        state[0].copy_(projected[:, -2:].transpose(0, 1))
        short = convolve(projected.transpose(1, 2), self.short_taps, causal=True) + self.short_bias[:, None]
        q, k, v = short.chunk(3, dim=1)
        y = self.mix_all(q, k, v, state, taps)
        return self.out(y.transpose(1, 2))

    def mix(self, projected: Projected, state: State, reach: int) -> Sample:
        """A step between the projections."""
        raise NotImplementedError

    def mix_all(self, q: Signal, k: Signal, v: Signal, state: State, taps: Taps) -> Signal:
        """The long convolution and the gates of a prompt, and its memory."""
        raise NotImplementedError


class CachedHyena(Hyena):
    """Remembers all that went into the long convolution, (length, batch, width): an output is a product with the taps.

    The taps are kept with the lag along the first axis, as many as there may be tokens.
    """

    def __init__(self, sizes: Sizes, device: str) -> None:
        super().__init__(sizes, sizes.width, device)
        self.kept = torch.empty(0, sizes.width, dtype=sizes.dtype, device=device)

    def init_state(self, batch: int, length: int) -> State:
        if len(self.kept) < length:
            self.kept = self.system.taps(length).T.to(self.kept.dtype).contiguous()
        return [self.window(batch), self.kept.new_empty(length, batch, self.width).normal_()]

    def mix(self, projected: Projected, state: State, reach: int) -> Sample:
        window, cache = state
        newest, last, oldest = self.short_taps.unbind(1)
        short = torch.addcmul(torch.addcmul(self.short_bias, newest, projected), last, window[1])
        q, k, v = torch.addcmul(short, oldest, window[0]).chunk(3, dim=-1)
        window[0].copy_(window[1])
        window[1].copy_(projected)
        torch.mul(k, v, out=cache[reach - 1])
        return q * cached_output(cache, self.kept, reach).to(q.dtype)

    def mix_all(self, q: Signal, k: Signal, v: Signal, state: State, taps: Taps) -> Signal:
        u = k * v
        state[1][: u.shape[-1]].copy_(u.permute(2, 0, 1))
        return q * convolve(u, taps, causal=True)

    def alone(self, state: State, reach: int) -> Action:
        return partial(cached_output, state[1], self.kept, reach)

    def moved(self, state: State, reach: int) -> int:
        return state[1][:reach].numel() * state[1].element_size()


class DistilledHyena(Hyena):
    """Remembers the state of the filters' recurrences, in float32 or bfloat16."""

    grows = False

    def __init__(self, sizes: Sizes, kept: torch.dtype, device: str, *, head_width: int = 1) -> None:
        super().__init__(sizes, sizes.width // head_width, device, balanced=kept == torch.bfloat16)
        self.head_width, self.kept = head_width, kept

    def init_state(self, batch: int, length: int) -> State:
        modes, _, filters = self.system.poles.shape
        shape = (modes, 2, batch, filters, *self.entries())
        return [self.window(batch), torch.empty(shape, dtype=self.kept, device=self.system.poles.device).normal_()]

    def entries(self) -> tuple[int, ...]:
        """Axes of the state of one filter of one signal."""
        return ()

    def parameters_of_step(self) -> dict[str, Any]:
        """What a step takes beside the sample and the memory."""
        return {"short_taps": self.short_taps, "short_bias": self.short_bias, **self.system._asdict()}

    def mix(self, projected: Projected, state: State, reach: int) -> Sample:
        return gated_step(projected, state[0], state[1], **self.parameters_of_step())

    def mix_all(self, q: Signal, k: Signal, v: Signal, state: State, taps: Taps) -> Signal:
        u = k * v
        state[1].copy_(self.system.after(u))
        return q * convolve(u, taps, causal=True)

    def alone(self, state: State, reach: int) -> Action:
        return partial(self.mix, torch.randn_like(state[0][0]), state, reach)

    def moved(self, state: State, reach: int) -> int:
        return 2 * state[1].nbytes


class MultiHyena(DistilledHyena):
    """A filter for every head, over all products of a key and a value of its channels."""

    def entries(self) -> tuple[int, ...]:
        return self.head_width, self.head_width

    def mix(self, projected: Projected, state: State, reach: int) -> Sample:
        return multi_head_step(projected, state[0], state[1], **self.parameters_of_step())

    def mix_all(self, q: Signal, k: Signal, v: Signal, state: State, taps: Taps) -> Signal:
        """Key by key: memory is that of `head_width` signals, not of its square."""
        width, batch = self.head_width, q.shape[0]
        q, k, v = (values.unflatten(1, (-1, width)) for values in (q, k, v))
        y = torch.zeros_like(q)
        for i in range(width):
            z = (k[:, :, i : i + 1] * v).transpose(1, 2).flatten(0, 1)  # batch values, filters, length
            state[1][..., i, :].copy_(self.system.after(z).unflatten(2, (batch, width)).transpose(3, 4))
            w = convolve(z, taps, causal=True).unflatten(0, (batch, width)).transpose(1, 2)
            y += q[:, :, i : i + 1] * w
        return y.flatten(1, 2)


def cached_output(
    cache: Annotated[Tensor, "length batch width"], taps: Annotated[Tensor, "length width"], reach: int
) -> Sample:
    """sum_s taps[reach-1-s] cache[s] over the first `reach` samples, in float32."""
    if cache.is_cuda:
        from omniconv.bench.decode.cached import fused_cached_output

        return fused_cached_output(cache, taps, reach)
    return (cache[:reach].float() * taps[:reach].flip(0)[:, None].float()).sum(0)
