"""A polish of poles and residues together: nonlinear least squares, and the published gradient descent."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omniconv.engines.recurrent import halves, times
from omniconv.recurrence.hankel import Response
from omniconv.recurrence.poles import Poles
from omniconv.recurrence.residues import columns_of, fit_residues, powers, responses

SMALLEST = 1e-6
"""Radius below which a pole stays as it is: its logarithm is too steep to search."""

Fit = tuple[Poles, Poles]
"""Poles and residues."""


def levenberg_marquardt(
    response: Response, poles: Poles, residues: Poles, there: Tensor, *, steps: int, radius: float
) -> Fit:
    """The nearest minimum of sum_t (response[t] - Re sum_n R_n lambda_n^t)^2 in poles and residues.

    lambda = exp(-exp(a) + i theta) is inside the unit circle for every a; a is bounded so that |lambda| <= `radius`.
    A step solves (J^T J + damping diag(J^T J)) delta = J^T residual, for every channel with a damping of its own, and
    is taken where it lowers the sum. Real poles stay real.
    """
    free = columns_of(poles, there & (poles.abs() > SMALLEST))
    both = torch.cat([free, columns_of(poles, there)], dim=1)  # decays, angles; real and imaginary parts
    lowest = math.log(-math.log(radius))
    damping = response.new_full((len(response), 1), 1e-3)
    error = (response - responses(poles, residues, response.shape[1])).square().sum(1)
    for _ in range(steps):
        delta = solved(response, poles, residues, both, damping)
        decay, angle, real, imaginary = delta.chunk(4, dim=1)
        moved = poles.abs() > SMALLEST
        log_decay = (-poles.abs().clamp(SMALLEST, radius).log()).log() + decay.clamp(-1, 1)
        size = torch.exp(-log_decay.clamp(min=lowest).exp())
        turned = torch.where(poles.imag == 0, poles.sgn(), torch.polar(torch.ones_like(size), poles.angle() + angle))
        new_poles = torch.where(moved, turned * size, poles)
        new_residues = residues + torch.complex(real, -imaginary)
        new_error = (response - responses(new_poles, new_residues, response.shape[1])).square().sum(1)
        better = new_error < error
        poles = torch.where(better[:, None], new_poles, poles)
        residues = torch.where(better[:, None], new_residues, residues)
        damping = torch.where(better[:, None], damping / 5, damping * 5).clamp(1e-12, 1e8)
        done = better & (error - new_error < 1e-8 * error)
        error = torch.where(better, new_error, error)
        if bool((done | (damping[:, 0] >= 1e8)).all()):
            break
    return poles, residues


def solved(response: Response, poles: Poles, residues: Poles, free: Tensor, damping: Tensor) -> Tensor:
    """The damped step in decays, angles and both parts of the residues, (channels, 4 modes)."""
    length = response.shape[1]
    waves = powers(poles, length)
    at = torch.arange(length, dtype=response.dtype, device=response.device)[:, None]
    ramp = at * times(waves, halves(residues)[:, None])  # t R lambda^t
    rate = (-poles.abs().clamp(min=SMALLEST, max=1 - 1e-15).log())[:, None]  # exp(a)
    real, imaginary = ramp.chunk(2, dim=-1)
    jacobian = torch.cat([-rate * real, -imaginary, waves], dim=-1) * free[:, None]
    cosine, sine = waves.chunk(2, dim=-1)
    rest = response - (cosine @ residues.real[..., None] - sine @ residues.imag[..., None])[..., 0]
    gram, slope = jacobian.mT @ jacobian, (jacobian.mT @ rest[..., None])[..., 0]
    diagonal = gram.diagonal(dim1=1, dim2=2)
    floor = 1e-12 * diagonal.amax(1, keepdim=True).clamp(min=1e-300)
    damped = gram + torch.diag_embed(damping * diagonal + floor)
    scale = damped.diagonal(dim1=1, dim2=2).rsqrt()  # the solution does not change, its rounding does
    factor, _ = torch.linalg.cholesky_ex(damped * scale[:, None] * scale[:, :, None])
    step = torch.cholesky_solve((slope * scale)[..., None], factor)[..., 0] * scale
    return torch.where(step.isfinite(), step, 0) * free


@torch.inference_mode(False)  # the descent needs gradients, whatever the caller's mode
def modal_interpolation(
    response: Response, order: int, *, steps: int, lr: float = 3e-3, radius: float, seed: int = 0
) -> tuple[Poles, Poles, Tensor]:
    """Poles, residues and which there are, by Adam from random poles in pairs on the squared error: the published way.

    |lambda| begins uniform in the logarithm of the decay between 1 / length and 1, the angle uniform on [0, pi].

    Massaroli et al. 2023 (Laughing Hyena).
    """
    response = response.clone()  # tensors of inference have no gradients for good
    channels, length = response.shape
    modes = max(1, order // 2)
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(2, channels, modes, generator=generator, dtype=torch.float64).to(response.device)
    log_decay = nn.Parameter(-math.log(length) * uniform[0])
    angle = nn.Parameter(math.pi * uniform[1])
    there = torch.ones(channels, modes, dtype=torch.bool, device=response.device)

    def poles() -> Poles:
        lowest = math.log(-math.log(radius))
        return torch.polar(torch.exp(-log_decay.clamp(min=lowest).exp()), angle)

    with torch.no_grad():
        first = fit_residues(response, poles(), there)
    parts = nn.Parameter(torch.stack([first.real, first.imag]))
    optimizer = torch.optim.Adam([log_decay, angle, parts], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    size = response.square().sum(1).clamp(min=1e-300)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            made = responses(poles(), torch.complex(parts[0], parts[1]), length)
            ((response - made).square().sum(1) / size).sum().backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return poles(), fit_residues(response, poles(), there), there
