"""The kernels of causal layers, as taps and, where they have one, as their exact recurrence."""

from __future__ import annotations

from torch import Tensor, nn

from omniconv.nn import Conv
from omniconv.recurrence.recurrence import Recurrence


def kernels_of(layer: nn.Module) -> tuple[Tensor, Recurrence | None]:
    """The taps (channels, lags) of a layer, a channel for every pair of a dense one, and its exact recurrence."""
    if not isinstance(layer, Conv):
        raise TypeError(
            f"`taps` must be a tensor or a Conv; got {type(layer).__name__}. Networks are streamed: "
            "omniconv.recurrence.stream(model)."
        )
    layer.check_causal("`taps`: the layer")
    taps = layer.taps().double()
    return taps.flatten(0, -2), exact_recurrence(layer)


def exact_recurrence(conv: Conv, spacing: float = 1.0) -> Recurrence | None:
    """The recurrence of a kernel that is a sum of exponentials, which no support weighs; None if it is none.

    It goes on where the taps of the layer end. Only at the reference spacing no quadrature weighs the taps.
    """
    modes = conv.kernel.recurrence()
    if modes is None or not conv.support.everywhere_one or spacing != 1.0:
        return None
    residues = modes.residues * conv.gain.double()
    return Recurrence(modes.poles, residues * modes.poles, residues.sum(1).real)
