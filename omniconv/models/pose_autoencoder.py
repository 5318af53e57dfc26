"""What a signal shows, apart from how it is turned: an autoencoder with a code that is invariant and a pose."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_integer, describe
from omniconv._place import check_place
from omniconv._references import SYMMETRY_PAPER, Cited
from omniconv._typing import PerAxis, Signal, per_axis
from omniconv.groups import SO2, Elements, transform
from omniconv.kernels import SIREN, KernelFactory
from omniconv.models._pretrained import Pretrained
from omniconv.nn import BatchNorm, Conv, LiftingProduct, Standardize
from omniconv.nn._group_layer import UPRIGHT
from omniconv.supports import SupportFactory

WIDE = partial(SIREN, bandwidth=0.25, hidden=64)
"""The kernel of the lift if none is given: it fills the whole image, and needs more units than one of a few samples."""

SHORTEST = 1e-6
"""A mean over the group that is shorter says no direction, as a share of the mean size of what it is taken of."""


class Posed(NamedTuple):
    """What a `PoseAutoencoder` makes of signals.

    `code`: (batch, code), the same however a signal is turned. `pose`: (batch, 1), an element of SO2 for each, by which
    the canonical signal is turned. `canonical`: what the code shows, `batch in_channels *size`, in the unit of the
    signals. `reconstruction`: the canonical signal turned by the pose.
    """

    code: Tensor
    pose: Elements
    canonical: Signal
    reconstruction: Signal


class PoseAutoencoder(Cited, Pretrained):
    """Autoencoder of images: an invariant code z, a pose R in SO(2), and x as R c(z), a canonical image that is turned.

    standardize; lift to the group (`LiftingProduct`), norm, ReLU; `depth` times: circular convolution over the angles,
    which is the convolution on SO(2), norm, ReLU. Of these features f(h), z is an MLP of their mean and maximum over
    the group, and R the rotation nearest to the mean of s(h) h with a linear map s of f: where x is turned by g, f(h)
    becomes f(g^-1 h), z stays and R becomes g R. c(z) is an MLP.

    `in_channels`: at least 1. `size`: samples per axis, one int for both, at least 2.
    `samples`: of SO2, at least 3. `width`: channels on the group. `depth`: convolutions on it, at least 0.
    `code`: numbers in a code. `hidden`: units of the layers of both MLPs. `kernel`, `support`: as in `LiftingProduct`.

    `forward(x)` takes `batch in_channels *size`, and returns what it finds, `Posed`.
    What lies outside of the disk that the grid holds is not looked at, and canonical signals have their mean there.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> model = PoseAutoencoder(1, 16, samples=8, width=8, code=4, hidden=16).eval()
    >>> x = torch.randn(2, 1, 16, 16)
    >>> posed, turned = model(x), model(torch.rot90(x, 1, (-2, -1)))
    >>> torch.allclose(posed.code, turned.code, atol=1e-5)
    True
    >>> ((turned.pose - posed.pose) % (2 * torch.pi) * 2 / torch.pi).round().tolist()
    [[1.0], [1.0]]

    Urbano and Romero 2024; on the group alone, with continuous kernels, where they have steerable convolutions.
    """

    references = (SYMMETRY_PAPER,)

    def __init__(
        self,
        in_channels: int,
        size: PerAxis[int],
        *,
        samples: int = 32,
        width: int = 64,
        depth: int = 2,
        code: int = 32,
        hidden: int = 256,
        kernel: KernelFactory = WIDE,
        support: SupportFactory = UPRIGHT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_place(device, dtype)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        group, count = SO2(), check_integer("samples", samples, minimum=3)
        sizes = {name: check_integer(name, value) for name, value in (("code", code), ("hidden", hidden))}
        self.standardize = Standardize(in_channels, **place)
        options: dict[str, Any] = {"kernel": kernel, "support": support, "bias": False, **place}
        sides = per_axis("size", size, group.dim, check_integer)
        self.lift = LiftingProduct(in_channels, width, sides, group, count, reach=max(1, min(sides) // 2), **options)
        self.lift_norm = BatchNorm(width, **place)
        depth, around = check_integer("depth", depth, minimum=0), {"boundary": "circular", "bias": False, **place}
        self.convs = nn.ModuleList(Conv(width, width, count, **around) for _ in range(depth))
        self.norms = nn.ModuleList(BatchNorm(width, **place) for _ in range(depth))
        self.direction = nn.Linear(width, 1, bias=False, **place)
        self.encoder = mlp(2 * width, sizes["hidden"], 1, sizes["code"], place)
        self.size = self.lift.grid.size
        pixels = in_channels * self.size[0] * self.size[1]
        self.decoder = mlp(sizes["code"], sizes["hidden"], 2, pixels, place)
        self.arguments = {"in_channels": in_channels, "size": self.size, "samples": count, "width": width}
        self.arguments |= {"depth": depth, **sizes, "kernel": kernel, "support": support}

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        linear = (part for part in (*self.encoder, *self.decoder) if hasattr(part, "reset_parameters"))
        for part in (self.standardize, self.lift, self.lift_norm, *self.convs, *self.norms, self.direction, *linear):
            part.reset_parameters()

    def encode(self, x: Signal) -> tuple[Tensor, Elements]:
        """The codes and the poses of signals."""
        if isinstance(x, Tensor) and tuple(x.shape[2:]) != self.size:
            raise ValueError(f"`x` must be (batch, {self.lift.in_channels}, *{self.size}); got {describe(x)}.")
        features = F.relu(self.lift_norm(self.lift(self.standardize(x)).flatten(2)))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features = F.relu(norm(conv(features)))
        features = features.to(self.direction.weight.dtype)  # of signals in half precision
        invariant = torch.cat([features.mean(2), features.amax(2)], 1)
        return self.encoder(invariant), self._pose(features)

    def _pose(self, features: Tensor) -> Elements:
        """The rotation nearest to the mean of s(h) h, of features (batch, width, group)."""
        scores = self.direction(features.transpose(1, 2))[..., 0]
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        of_group = self.lift.group.matrix(self.lift.samples.elements).to(scores)
        mean = torch.einsum("bh,hij->bij", scores, of_group) / len(of_group)
        cosine, sine = mean[:, 0, 0] + mean[:, 1, 1], mean[:, 1, 0] - mean[:, 0, 1]
        length = cosine.square() + sine.square()
        far = length > (SHORTEST * scores.abs().mean(1)).square()  # else it says no direction, and has no slope
        cosine, sine = torch.where(far, cosine, 1.0), torch.where(far, sine, 0.0)
        return torch.atan2(sine, cosine)[:, None]

    def decode(self, code: Tensor) -> Signal:
        """The canonical signals of codes, in the unit of the signals."""
        return self._in_unit(self._standard(code))

    def _standard(self, code: Tensor) -> Signal:
        return self.decoder(code).unflatten(1, (-1, *self.size))

    def _in_unit(self, standard: Signal) -> Signal:
        """Standardised signals in the unit of the signals."""
        mean, std = self.standardize.mean.to(standard), self.standardize.std.to(standard)
        return standard * std[:, None, None] + mean[:, None, None]

    def forward(self, x: Signal) -> Posed:
        code, pose = self.encode(x)
        standard = self._standard(code)
        turned = transform(standard, self.lift.group, pose)  # standardised: what enters at the edges is the mean
        return Posed(code, pose, self._in_unit(standard), self._in_unit(turned))


def mlp(inputs: int, hidden: int, layers: int, outputs: int, place: dict[str, Any]) -> nn.Sequential:
    """So many layers of hidden units with ReLU, and a linear map."""
    widths = [inputs] + [hidden] * layers
    steps = [(nn.Linear(a, b, **place), nn.ReLU()) for a, b in pairwise(widths)]
    return nn.Sequential(*(part for step in steps for part in step), nn.Linear(widths[-1], outputs, **place))
