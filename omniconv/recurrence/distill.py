"""From the taps of a causal convolution to a recurrence that computes nearly the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer, check_number
from omniconv._typing import check_bool
from omniconv.nn import Conv
from omniconv.recurrence.certificate import Certificate, certify
from omniconv.recurrence.hankel import DENSE, Response, check_taps
from omniconv.recurrence.layers import kernels_of
from omniconv.recurrence.poles import METHODS, Poles, one_of_each_pair
from omniconv.recurrence.polish import Fit, levenberg_marquardt, modal_interpolation
from omniconv.recurrence.recurrence import Recurrence
from omniconv.recurrence.residues import fit_residues, responses

ORDERS = (2, 4, 8, 16, 32, 64, 128)
"""What is tried one after the other where a tolerance is asked for."""

SAME = 1e-9
"""Relative error on the taps below which a recurrence is what they came from."""

ELEMENTS = 2**23
"""Numbers that the largest matrix of a fit may hold: so many channels are fitted at a time."""


@dataclass(frozen=True)
class Distillation:
    """What came of it. `order`, `method`: as in `distill`, or twice the modes, and "exact".

    `certificate`: the error of every channel. `radius`: the largest modulus of a pole.
    """

    order: int
    method: str
    certificate: Certificate
    radius: float

    @staticmethod
    def of(order: int, method: str, recurrence: Recurrence, certificate: Certificate) -> Distillation:
        """That of a recurrence."""
        return Distillation(order, method, certificate, float(recurrence.poles.abs().max()))

    def __str__(self) -> str:
        """A table."""
        found, lines = self.certificate, []
        rows = {
            "relative l2": found.relative,
            "l1": found.l1,
            "l2": found.l2,
            "peak": found.peak,
            **({} if found.hankel.isnan().all() else {"Hankel": found.hankel}),
        }
        lines.append(f"order {self.order}, {self.method}, {len(found.l1)} channels, largest pole {self.radius:.6f}")
        lines.append(f"{'error':12} {'median':>10} {'largest':>10}")
        lines += [f"{name:12} {values.median():10.2e} {values.max():10.2e}" for name, values in rows.items()]
        return "\n".join(lines)


@torch.no_grad()
def distill(
    taps: Response | Conv,
    *,
    order: int | None = None,
    tol: float | None = None,
    method: str = "esprit",
    horizon: int | None = None,
    refine: int = 10,
    steps: int = 3000,
    hankel: bool = False,
) -> tuple[Recurrence, Distillation]:
    """A recurrence whose taps are nearly these, and how far it is off: fitted channel by channel, without data.

    `taps`: (channels, length) of a causal kernel, lag 0 first; length 4 at least. The tap at lag 0 is kept as it is. Or
    a causal `Conv`, whose taps are taken, a channel for every pair of channels of a dense one; without `order` and
    `tol` one whose kernel is a sum of exponentials (`omniconv.kernels.Modal`) is converted exactly.
    `order`: poles per channel: a real one is one, a conjugate pair two. Of a pair one pole is stored, and one complex
    number of state for either kind, for all channels as many as for that with the most: `modes` of the recurrence are
    from order / 2 to order. Or
    `tol`: the relative l2 error that no channel exceeds, (0, inf); the smallest of the orders 2, 4, 8 .. 128 that keeps
    to it is taken. One of both; 16 without either.
    `horizon`: the lags at which errors count; None for all. The recurrence goes on where the taps end, and is fitted to
    fall silent there, unless some recurrence is exact on the taps: give the length of the longest signal if what it
    does behind that is of no concern.
    `method`: how poles are found. "esprit": from the space of the leading eigenvectors of the Hankel matrix.
    "balanced": balanced truncation of its realisation. "prony": linear prediction. "interpolation": Adam from random
    poles, the published way, with `steps` steps. Residues are least squares in each.
    `refine`: steps of Levenberg and Marquardt's method from there, in poles and residues; 0 for none.
    `hankel`: whether the report has the lower bound, which takes longer than the fit.

    All poles lie within the unit circle, at 1 - 1 / (20 length) at most. The fit is in float64, on the device of the
    taps. Raises `ValueError` or `TypeError` that names the argument, and if no order keeps to `tol`.

    >>> lags = torch.arange(128.0)
    >>> taps = torch.stack([0.8**lags, 0.9**lags * (0.3 * lags).cos()])
    >>> recurrence, report = distill(taps, tol=1e-4)
    >>> report.order, bool((recurrence.taps(128) - taps).abs().max() < 1e-4)
    (2, True)

    Massaroli et al. 2023 (Laughing Hyena), who fit by gradient descent.
    """
    if isinstance(taps, nn.Module):
        taps, exact = kernels_of(taps)
        if exact is not None and order is None and tol is None:
            return exact, Distillation.of(2 * exact.modes, "exact", exact, certify(taps, exact, horizon=horizon))
    taps = check_taps(taps)
    if taps.shape[1] < 4:
        raise ValueError(
            f"`taps` must have 4 lags at least; got {taps.shape[1]}. A kernel that short needs no recurrence."
        )
    check_choice("method", method, (*METHODS, "interpolation"))
    check_integer("refine", refine, minimum=0)
    check_integer("steps", steps)
    check_bool("hankel", hankel)
    if method == "interpolation" and order == 1:
        raise ValueError('`order` must be at least 2 for method="interpolation", whose poles are pairs; got 1.')
    if order is not None and tol is not None:
        raise ValueError(f"`order` and `tol` exclude each other; got {order} and {tol}. Give one.")
    largest = (taps.shape[1] - 1) // 2
    if tol is None:
        orders = [check_order(16 if order is None else order, largest, given=order is not None)]
    else:
        check_number("tol", tol, low=0.0)
        orders = [each for each in ORDERS if each <= largest] or [largest]
    for each in orders:
        recurrence = fitted(taps, each, Search(method, refine, steps, horizon))
        found = certify(taps, recurrence, horizon=horizon, states=each if hankel else None)
        if tol is None or found.relative.max() <= tol:
            return recurrence, Distillation.of(each, method, recurrence, found)
    raise ValueError(
        f"`tol` (={tol:g}) is not met by any order up to {orders[-1]}: the worst of {len(taps)} channels is off by "
        f"{found.relative.max():.2g} there. Ask for less, or keep this kernel as taps; one that is noise has no short "
        "recurrence."
    )


def check_order(order: int, largest: int, *, given: bool) -> int:
    """Return an order that so many taps can tell, or raise."""
    check_integer("order", order)
    if order > largest and given:
        raise ValueError(
            f"`order` (={order}) must be at most {largest}, half of the lags behind the first: fewer samples do not "
            "tell the states. Give a smaller order, or more taps."
        )
    return min(order, largest)


@dataclass(frozen=True)
class Search:
    """How poles and residues are sought; the arguments of `distill` of these names."""

    method: str
    refine: int
    steps: int
    horizon: int | None

    def silence(self, length: int) -> int:
        """Samples of silence behind a response that count: as many as it has, or up to the horizon."""
        return length if self.horizon is None else min(max(self.horizon - 1 - length, 0), length)


def fitted(taps: Response, order: int, search: Search) -> Recurrence:
    """The recurrence of that order; a part of the channels at a time."""
    length = taps.shape[1] + search.silence(taps.shape[1] - 1)
    count = max(1, ELEMENTS // max(length * 4 * order, min(length, 3 * (order + DENSE)) ** 2))
    radius = 1 - 1 / (20 * taps.shape[1])
    parts = [fit(part, order, search, radius) for part in taps[:, 1:].split(count)]
    modes = max(poles.shape[1] for poles, _ in parts)
    poles, residues = (torch.cat([widened(part[i], modes) for part in parts]) for i in (0, 1))
    return Recurrence(poles, residues, taps[:, 0])


def fit_linear(response: Response, order: int, method: str, radius: float) -> tuple[Poles, Poles, Tensor]:
    """Poles, residues and which there are, without a search.

    Poles beyond the radius are pulled in, which costs accuracy. With silence behind them responses have none, but
    their end is then part of what is fitted: these poles are taken for channels where they come nearer.
    """
    found = METHODS[method](response, order)
    poles, there = one_of_each_pair(found, radius)
    residues = fit_residues(response, poles, there)
    again = (found.abs() > radius).any(1).nonzero()[:, 0]
    if not len(again):
        return poles, residues, there
    some, length = response[again], response.shape[1]
    others, those = one_of_each_pair(METHODS[method](torch.nn.functional.pad(some, (0, length - 1)), order), radius)
    values = fit_residues(some, others, those)
    before, after = (
        (some - responses(p, r, length)).square().sum(1) for p, r in ((poles[again], residues[again]), (others, values))
    )
    modes, again = max(poles.shape[1], others.shape[1]), again[after < before]
    first = [widened(part, modes) for part in (poles, residues, there)]
    for whole, part in zip(first, (others, values, those), strict=True):
        whole[again] = widened(part, modes)[after < before]
    return first[0], first[1], first[2]


def widened(part: Tensor, modes: int) -> Tensor:
    """So many modes, those behind the last absent."""
    return torch.nn.functional.pad(part, (0, modes - part.shape[1]))


def fit(response: Response, order: int, search: Search, radius: float) -> Fit:
    """Poles and residues of responses, each scaled to unit norm meanwhile.

    Where all lags count, what is fitted is the response and the silence behind it: a slow pole that fits the taps well
    may go on for long behind them. A recurrence that is exact on the taps is taken for what they came from, and what it
    does behind them for the truth that they were cut off.
    """
    largest = response.abs().amax(1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    size: Annotated[Tensor, "channels 1"] = largest * (response / largest).norm(dim=1, keepdim=True)
    unit, length = torch.where(size > 0, response / size, 0.0), response.shape[1]
    silence = search.silence(length)
    if not silence:
        poles, residues = sought(unit, order, search, radius)
        return poles, residues * size
    poles, residues = sought(unit, order, replace(search, refine=0), radius)
    left = ((unit - responses(poles, residues, length)).norm(dim=1) > SAME).nonzero()[:, 0]
    if len(left):
        others = sought(torch.nn.functional.pad(unit[left], (0, silence)), order, search, radius)
        modes = max(poles.shape[1], others[0].shape[1])
        poles, residues = widened(poles, modes), widened(residues, modes)
        poles[left], residues[left] = (widened(part, modes) for part in others)
    return poles, residues * size


def sought(unit: Response, order: int, search: Search, radius: float) -> Fit:
    """Poles and residues of responses of unit norm, by the method that was asked for."""
    if search.method == "interpolation":
        poles, residues, there = modal_interpolation(unit, order, steps=search.steps, radius=radius)
    else:
        poles, residues, there = fit_linear(unit, order, search.method, radius)
    if search.refine:
        poles, residues = levenberg_marquardt(unit, poles, residues, there, steps=search.refine, radius=radius)
    return poles, residues
