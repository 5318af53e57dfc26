"""The residues of given poles, by linear least squares."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from omniconv.engines.recurrent import halves, powers_of
from omniconv.recurrence.hankel import Response
from omniconv.recurrence.poles import Poles

RIDGE = 1e-10
"""Relative to the columns of a least-squares problem: enough that columns of absent modes have a residue of zero."""


Columns = Annotated[Tensor, "channels samples columns"]


def powers(poles: Poles, length: int) -> Columns:
    """Real and imaginary parts of poles^t, t = 0 .. length - 1: first those of all real parts."""
    return powers_of(halves(poles), length)


def responses(poles: Poles, residues: Poles, length: int) -> Response:
    """Re sum_n residues_n poles_n^t, t = 0 .. length - 1."""
    parts = torch.cat([residues.real, -residues.imag], dim=-1)
    return (powers(poles, length) @ parts[..., None])[..., 0]


def fit_residues(response: Response, poles: Poles, there: Tensor) -> Poles:
    """The residues with the least sum over t of (response[t] - Re sum_n residues_n poles_n^t)^2.

    `there`: which modes there are. Residues of real poles are real, those of absent modes are 0.
    """
    free = columns_of(poles, there)
    design = powers(poles, response.shape[1]) * free[:, None]
    scale = design.square().sum(1).sqrt().clamp(min=1e-300)
    ridge = RIDGE * torch.eye(scale.shape[1], dtype=design.dtype, device=design.device)
    design = torch.cat([design / scale[:, None], ridge.expand(len(design), -1, -1)], dim=1)
    target = torch.nn.functional.pad(response, (0, design.shape[1] - response.shape[1]))
    q, r = torch.linalg.qr(design)
    solved = torch.linalg.solve_triangular(r, q.mT @ target[..., None], upper=True)[..., 0]
    real, imaginary = (solved * free / scale).chunk(2, dim=-1)
    return torch.complex(real, -imaginary)


def columns_of(poles: Poles, there: Tensor) -> Tensor:
    """Which columns of `powers` count: those of modes that are there, and no imaginary parts of real poles."""
    return torch.cat([there, there & (poles.imag != 0)], dim=1).double()
