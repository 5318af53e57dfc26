"""What stands for the kernels of a network in a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omniconv.nn import Conv
from omniconv.nn.causal import Part, Window
from omniconv.recurrence.certificate import Certificate, certify
from omniconv.recurrence.distill import ORDERS, distill
from omniconv.recurrence.layers import exact_recurrence
from omniconv.recurrence.modal import Modal
from omniconv.recurrence.recurrence import Recurrence

EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}
"""A relative error of taps that is rounding, by the dtype of a layer."""


@dataclass(frozen=True)
class StreamedLayer:
    """What a convolution became. `name`: of the layer in the network.

    `form`: "taps" (exact, it remembers samples), "modal" (the kernel is a recurrence, but goes on behind its last tap)
    or "distilled".
    `states`: real numbers that are stored per channel, or pair of channels of a dense layer: samples of taps, or two
    for every mode, of which a real pole takes one as a conjugate pair does.
    `relative`, `l1`: the largest error of a kernel, relative in l2, and in the sum of moduli.
    """

    name: str
    form: str
    states: int
    relative: float
    l1: float


@dataclass
class Distiller:
    """Makes recurrences of the kernels of a network where it may, and notes what they became."""

    spacing: float
    lowpass: bool
    tol: float | None
    order: int | None
    horizon: int | None
    layers: list[StreamedLayer] = field(default_factory=list)
    modal: dict[str, Modal] = field(default_factory=dict)
    """The recurrences, by the name of the convolution."""

    def __call__(self, name: str, conv: Conv) -> Part:
        taps = conv.taps(self.spacing, self.lowpass).double()
        exact = EXACT[torch.promote_types(conv.gain.dtype, torch.float32)]
        for form, recurrence, found in self._candidates(name, conv, taps):
            asked = form == "distilled" and self.order is not None
            limit = exact if self.tol is None or self.order is not None else max(self.tol, exact)
            if asked or found.relative.max() <= limit:
                relative, l1 = float(found.relative.max()), float(found.l1.max())
                self.layers.append(StreamedLayer(name, form, 2 * recurrence.modes, relative, l1))
                self.modal[name] = Modal(recurrence, taps, found.l1.unflatten(0, taps.shape[:-1]))
                return self.modal[name]
        self.layers.append(StreamedLayer(name, "taps", taps.shape[-1] - 1, 0.0, 0.0))
        return Window(taps)

    def _candidates(self, name: str, conv: Conv, taps: Tensor) -> Iterator[tuple[str, Recurrence, Certificate]]:
        """Recurrences that may stand for the taps, the best first; if not asked, none that take more memory."""
        flat, past = taps.flatten(0, -2), taps.shape[-1] - 1
        if past < 3 or (self.order is not None and past <= self.order):
            return  # the taps are no more numbers than a state
        most = past // (2 * len(taps)) if taps.ndim == 3 else past // 2  # of states, for a pair of channels
        exact = None if self.lowpass else exact_recurrence(conv, self.spacing)
        if exact is not None and exact.modes <= most:
            yield "modal", exact, certify(flat, exact, horizon=self.horizon)
        if self.order is not None and self.order > past // 2:
            raise ValueError(
                f"`order` (={self.order}) must be at most {past // 2} for {name}, which has {past + 1} taps. Give a "
                "smaller order, or a tolerance."
            )
        orders = [self.order] if self.order is not None else [each for each in ORDERS if each <= min(most, past // 2)]
        for order in orders if self.order is not None or self.tol is not None else []:
            recurrence, report = distill(flat, order=order, horizon=self.horizon)
            yield "distilled", recurrence, report.certificate
