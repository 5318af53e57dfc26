"""Poles of the recurrences behind impulse responses, by three methods that need no starting point.

Each takes responses g[t] (channels, length) in float64, the taps from lag 1 on, and an even or odd `order`, and returns
as many poles per channel, (channels, order), in conjugate pairs but for real ones, wherever they lie.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from omniconv.recurrence.hankel import Response, leading_eigenvalues

Poles = Annotated[Tensor, "channels modes, complex"]


def esprit(response: Response, order: int) -> Poles:
    """Eigenvalues of the map that shifts the leading eigenvectors U of the Hankel matrix by a row: U[:-1] A = U[1:].

    Roy and Kailath 1989 (ESPRIT).
    """
    return torch.linalg.eigvals(shift(leading_eigenvalues(response, order)[1]))


def shift(basis: Tensor) -> Tensor:
    """The least-squares A of U[:-1] A = U[1:], for an orthonormal U (channels, rows, order)."""
    last = basis[:, -1:]
    # U[:-1]^T U[:-1] = 1 - u u^T with the last row u, whose inverse is 1 + u u^T / (1 - u^T u).
    left = basis[:, :-1].mT @ basis[:, 1:]
    rest = (1 - last.square().sum(-1, keepdim=True)).clamp(min=torch.finfo(basis.dtype).eps)
    return left + last.mT @ (last @ left) / rest


def balanced_truncation(response: Response, order: int) -> Poles:
    """Poles of the balanced realisation, of which the least observable and controllable states are cut off.

    With S = U diag(e) U^T and the signs of the eigenvalues e, A = |e|^-1/2 U^T S' U diag(sign e) |e|^-1/2 where S' is S
    shifted by a sample.

    Kung 1978; Silverman and Bettayeb 1980.
    """
    values, basis = leading_eigenvalues(response[:, :-1], order)
    rows = basis.shape[1]
    shifted = response[:, 1 : 2 * rows].unfold(1, rows, 1)
    root = values.abs().clamp(min=torch.finfo(values.dtype).tiny).rsqrt()
    left = root[:, :, None] * basis.mT
    right = basis * (values.sign() * root)[:, None]
    return torch.linalg.eigvals(left @ (shifted @ right))


def prony(response: Response, order: int) -> Poles:
    """Roots of the polynomial that predicts a sample from the `order` before it with the least squared error.

    All zero where there is nothing to predict from: silence, or an impulse at the end, is predicted by no polynomial.

    Prony 1795, with least squares.
    """
    rows = response.unfold(1, order + 1, 1)  # the samples before, and the one to predict
    before, now = rows[..., :-1], rows[..., -1:]
    size = before.abs().amax((1, 2), keepdim=True)
    heard = size > torch.finfo(rows.dtype).eps * now.abs().amax(1, keepdim=True)
    size = torch.where(heard, size, 1.0)  # squares neither vanish nor overflow
    before, now = torch.where(heard, before / size, 0.0), torch.where(heard, now / size, 0.0)
    scale = torch.where(heard, before.square().sum((1, 2), keepdim=True) / order, 1.0)
    gram = before.mT @ before + 1e-14 * scale * torch.eye(order, dtype=rows.dtype, device=rows.device)
    weights = torch.linalg.solve(gram, before.mT @ now)[..., 0]
    companion = torch.zeros(len(response), order, order, dtype=rows.dtype, device=rows.device)
    companion[:, :-1, 1:] = torch.eye(order - 1, dtype=rows.dtype, device=rows.device)
    companion[:, -1] = weights
    return torch.linalg.eigvals(companion)


METHODS = {"esprit": esprit, "balanced": balanced_truncation, "prony": prony}


def one_of_each_pair(poles: Poles, radius: float) -> tuple[Poles, Tensor]:
    """Of conjugate pairs the pole of positive imaginary part, and real poles; none beyond `radius`, (0, 1).

    (channels, modes) with as many modes as any channel has, and which of them are there; those that are not are 0.
    """
    kept = poles.imag >= 0
    order = kept.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : int(kept.sum(1).max())]
    there = kept.gather(1, order)
    chosen = torch.where(there, poles.gather(1, order), 0)
    size = chosen.abs()
    return torch.where(size > radius, chosen * (radius / size.clamp(min=1e-300)), chosen), there
