"""Causal networks sample by sample, at constant memory, with a bound on what that changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from omniconv._errors import check_integer, check_number
from omniconv._typing import Signal, Tokens, check_bool
from omniconv.models import Network, Stepper
from omniconv.nn import Conv
from omniconv.nn.causal import Chain, Part, PerChannel, Window
from omniconv.nn.state import State
from omniconv.recurrence.distiller import Distiller, StreamedLayer
from omniconv.recurrence.modal import ExactModal, Modal
from omniconv.recurrence.saved import Stored, read_stream, write_stream


@dataclass(frozen=True)
class StreamCertificate:
    """How far the outputs of a stream can be off from those of its network, for every signal no longer than `horizon`.

    `unit`: bounds (out_features,) for signals whose samples do not exceed 1 in modulus once they are standardised;
    `within` gives those for other limits. Both are in exact arithmetic: rounding comes on top.
    `layers`: what every convolution became. `horizon`: samples; None for any number.
    """

    unit: PerChannel
    layers: tuple[StreamedLayer, ...]
    horizon: int | None
    _chain: Chain
    _silence: PerChannel

    def within(self, peak: float) -> PerChannel:
        """Bounds for signals whose samples do not exceed `peak`, (0, inf), after standardisation."""
        return bound_of(self._chain, self._silence, check_number("peak", peak, low=0.0))

    def __str__(self) -> str:
        """A table."""
        lines = [f"{'layer':24} {'form':>12} {'states':>7} {'relative l2':>12} {'l1':>10}"]
        lines += [
            f"{one.name:24} {one.form:>12} {one.states:7} {one.relative:12.2e} {one.l1:10.2e}" for one in self.layers
        ]
        where = "" if self.horizon is None else f", in the first {self.horizon} samples"
        return "\n".join([*lines, f"bound on the outputs, for inputs up to 1{where}: {self.unit.max():.3g}"])


class Stream(Stepper):
    """A causal network that takes samples as they come.

    `certificate`: how far its outputs can be off. `network`: a copy of what it stands for, in evaluation mode.
    `recurrences`: what convolutions became, by their names, but for those that stay taps.
    Built by `stream`.
    """

    def __init__(
        self,
        network: Network,
        chain: Chain,
        layers: tuple[StreamedLayer, ...],
        horizon: int | None,
        modal: Mapping[str, Modal],
    ):
        super().__init__(network, chain)
        self.recurrences = dict(modal)
        self._exact = Stepper(network, network.causal_part(self._exact_part))
        silence = torch.zeros(network.in_channels, dtype=torch.float64, device=network.head.readout.weight.device)
        self.certificate = StreamCertificate(bound_of(chain, silence, 1.0), layers, horizon, chain, silence)

    def _exact_part(self, name: str, conv: Conv) -> Part:
        """What stands for a convolution where the samples of a chunk meet its taps."""
        if name in self.recurrences:
            return ExactModal(self.recurrences[name])
        return Window(conv.taps(self.network.spacing[0], self.network.lowpass).double())

    def prefill(
        self,
        x: Signal | Tokens,
        state: State | None = None,
        *,
        lengths: Tensor | None = None,
        side: str = "right",
        last: bool = False,
        exact: bool = False,
    ) -> tuple[Tensor, State]:
        """The outputs behind every sample of a signal, and the state behind the last; arguments as in `LayerStepper`.

        `exact`: let the samples of `x` meet the taps themselves, and read only what came before through the
        recurrences: without a `state`, the outputs are those of the network. They are within the certificate either
        way; exact ones depend on how a signal is cut into chunks. Costs the network's convolutions besides.

        >>> from omniconv import CCNN
        >>> model = CCNN(1, 2, size=32, blocks=1, width=4, causal=True).eval()
        >>> x = torch.randn(3, 1, 32)
        >>> y, state = stream(model, order=2).prefill(x, exact=True)
        >>> torch.allclose(y[..., -1], model(x), atol=1e-5)
        True
        """
        run = self._exact.prefill if check_bool("exact", exact) else super().prefill
        return run(x, state, lengths=lengths, side=side, last=last)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the network and its recurrences into `folder`, as JSON and safetensors.

        Raises what `Network.save_pretrained` does, for the same reasons.
        """
        network = self.network
        network.save_pretrained(folder)
        about = {"horizon": self.certificate.horizon, "spacing": network.spacing[0], "lowpass": network.lowpass}
        write_stream(Path(folder), self.recurrences, self.certificate.layers, about)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: torch.device | str | None = None) -> Stream:
        """The stream that `save_pretrained` wrote into the local `folder`: nothing is fitted again, nothing executed.

        Raises `FileNotFoundError` for a missing file and `ValueError` that names the file for one that is damaged.
        """
        about, tensors = read_stream(Path(folder))
        network = Network.from_pretrained(folder, device=device)
        network.spacing, network.lowpass = (float(about["spacing"]),), bool(about["lowpass"])
        stored = Stored(network.spacing[0], network.lowpass, tensors)
        chain = network.causal_part(stored)
        layers = tuple(StreamedLayer(**layer) for layer in about["layers"])
        return cls(network, chain, layers, about["horizon"], stored.modal)


def stream(model: Network, *, tol: float | None = None, order: int | None = None, horizon: int | None = None) -> Stream:
    """A causal network as a recurrence: `init_state`, `step`, `prefill`, and a `certificate` of what that changes.

    Every convolution becomes a recurrence where one takes less memory than its taps and is within the tolerance, or,
    for modal kernels without a support, exact; the others remember as many samples as they have taps.
    Outputs are those of the network for the signal so far: with head "pool" the running mean, read out.

    `model`: a `CCNN` or `CKCNN` on causal series, with batch norm, a `Hyena`, or a view of one at another resolution;
    evaluation mode is what is streamed. `tol`: the relative l2 error that a kernel of a layer may have, (0, inf).
    `order`: instead of it, the order of every channel's recurrence, as in `distill` (but for kernels that reach back no
    farther than that, or than two samples, which stay taps). A real pole is stored as a complex number too, so that a
    channel has from `order` to twice as many real numbers of state: `states` in the table of the certificate.
    Without either all is exact.
    `horizon`: the length of the longest signal, if there is one; None for streams without end. It is as in `distill`.
    The certificate of a `Hyena` holds, but says little: norms over channels and products let its layers' worst cases
    grow up to what outputs can be at all. `omniconv.training.compare` says what a text does.
    Raises `ValueError` or `TypeError` that names the argument and the layer.

    >>> from omniconv import CCNN
    >>> model = CCNN(1, 2, size=32, blocks=1, width=4, causal=True).eval()
    >>> exact = stream(model)
    >>> x = torch.randn(3, 1, 32)
    >>> y, state = exact.prefill(x)
    >>> torch.allclose(y[..., -1], model(x), atol=1e-5), exact.certificate.unit.max().item()
    (True, 0.0)
    """
    if not isinstance(model, Network):
        raise TypeError(f"`model` must be a network of omniconv.models; got {type(model).__name__}.")
    if tol is not None:
        check_number("tol", tol, low=0.0)
    if order is not None:
        check_integer("order", order)
    if horizon is not None:
        check_integer("horizon", horizon)
    if tol is not None and order is not None:
        raise ValueError(f"`tol` and `order` exclude each other; got {tol} and {order}. Give one.")
    model = copy.deepcopy(model).eval()  # what is trained later changes no stream
    distiller = Distiller(model.spacing[0], model.lowpass, tol, order, horizon)
    return Stream(model, model.causal_part(distiller), tuple(distiller.layers), horizon, distiller.modal)


@torch.no_grad()
def bound_of(chain: Chain, silence: PerChannel, peak: float) -> PerChannel:
    """Bounds on the error of the outputs for inputs of that size."""
    return chain.bound((silence, silence + peak))[0]
