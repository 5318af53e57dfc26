"""Filters as recurrences: their taps, and the states that a prompt leaves."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 256
"""Samples whose part of a state one product of matrices makes."""


class System(NamedTuple):
    """A filter's recurrence, as `gated_step` takes it."""

    poles: Annotated[Tensor, "modes 2 filters"]
    residues: Annotated[Tensor, "modes 2 filters"]
    direct: Annotated[Tensor, "filters"]
    inputs: Annotated[Tensor, "modes filters"] | None

    def powers(self, exponents: Annotated[Tensor, "exponents"]) -> Annotated[Tensor, "filters exponents modes"]:
        """The poles to powers, in complex128."""
        logarithms = torch.view_as_complex(self.poles.double().permute(2, 0, 1).contiguous()).log()
        return torch.exp(exponents[None, :, None] * logarithms[:, None])

    def taps(self, length: int) -> Annotated[Tensor, "filters length"]:
        """direct at lag 0, Re sum_n residues_n inputs_n poles_n^(t-1) at lag t >= 1, mode by mode."""
        residues = torch.view_as_complex(self.residues.double().transpose(1, 2).contiguous())
        if self.inputs is not None:
            residues = residues * self.inputs
        taps = torch.zeros(len(self.direct), length, dtype=torch.float64, device=self.direct.device)
        taps[:, 0] = self.direct
        lags = torch.arange(length - 1, device=taps.device)
        for mode, weights in enumerate(residues):
            one = self._replace(poles=self.poles[mode : mode + 1])
            taps[:, 1:] += (weights[:, None] * one.powers(lags)[..., 0]).real
        return taps.float()

    def after(self, u: Annotated[Tensor, "batch filters length"]) -> Annotated[Tensor, "modes 2 batch filters"]:
        """X_n = inputs_n sum_s poles_n^(length-1-s) u_s: of blocks by a Vandermonde matrix, then of all of them."""
        batch, _, length = u.shape
        block = min(BLOCK, length)
        blocks = -(-length // block)
        parts = F.pad(u.float(), (blocks * block - length, 0)).unflatten(-1, (blocks, block)).transpose(0, 1)
        exponents = torch.arange(block - 1, -1, -1, device=u.device)
        within = torch.view_as_real(self.powers(exponents)).flatten(2).float()
        entered = (parts.flatten(1, 2) @ within).unflatten(1, (batch, blocks)).unflatten(-1, (-1, 2))
        across = self.powers(block * torch.arange(blocks - 1, -1, -1, device=u.device)).to(torch.complex64)
        states = (torch.view_as_complex(entered) * across[:, None]).sum(2)  # filters, batch, modes
        if self.inputs is not None:
            states = states * self.inputs.T[:, None]
        return torch.view_as_real(states).permute(2, 3, 1, 0)


def random_system(filters: int, modes: int, device: str, *, balanced: bool) -> System:
    """|poles| = exp(-exp(a)), a uniform in (-7, -1), angles in (0, pi); residues complex normal.

    They are scaled so that white noise comes out about as loud as it came in. `balanced`: so are the states. Poles are
    in float64, or, balanced for bfloat16, in float32.
    """
    decay = torch.exp(-7 + 6 * torch.rand(modes, filters, device=device))
    poles = torch.polar(torch.exp(-decay), torch.pi * torch.rand(modes, filters, device=device))
    gain = (1 - poles.abs().square()).sqrt()
    residues = torch.randn(modes, filters, dtype=torch.complex64, device=device) / modes**0.5
    if not balanced:
        residues = residues * gain
    poles, residues = (torch.view_as_real(values).transpose(1, 2).contiguous() for values in (poles, residues))
    if not balanced:  # as a step takes them whose state is in float32
        poles = poles.double()
    return System(poles, residues, torch.rand(filters, device=device), gain if balanced else None)
