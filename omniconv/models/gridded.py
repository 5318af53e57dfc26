"""A convolutional network on a lattice, for clouds of points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omniconv._errors import check_choice, check_integer, describe
from omniconv._references import CCNN_PAPER, GRIDIFICATION_PAPER
from omniconv._typing import PerAxis, Signal, per_axis
from omniconv.domains import Edges
from omniconv.kernels import SIREN, KernelFactory
from omniconv.models._network import Network
from omniconv.models.ccnn import CCNN
from omniconv.nn import Degridify, Gridify, Pointwise, observed
from omniconv.nn.heads import Head
from omniconv.supports import Gaussian, SupportFactory


class GriddedNet(Network):
    """Classes of clouds, or of their points: a `Gridify`, a `CCNN` on the lattice, and with head "dense" a `Degridify`.

    `in_channels`: features of a point, at least 1; positions may be among them. `out_features`: at least 1.
    `resolution`: nodes per axis, at least 2, one or one per axis; `dim`: axes, where it is one number.
    `width`: channels on the lattice. `blocks`, `kernel`, `support`, `reach`, `mixing`, `dropout`, `engine`: as in
    `CCNN`, for the convolutions on the lattice. `neighbours`, `edges`, `aggregate`: as in `Gridify`.
    `head`: "pool", an output for the cloud, or "dense", one for every point, to which the point's own features are
    added by a linear map, because what is smaller than a cell does not survive on the lattice.

    `forward(x, positions, mask=None, edges=None)` takes `batch in_channels points` and positions (batch, points, dim),
    best within [-1, 1] (`omniconv.domains.centred`), and returns `batch out_features`, or `batch out_features points`.
    `mask` (batch, points), bool, is False where a cloud is padded: what lies there changes nothing.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> model = GriddedNet(3, 10, resolution=5, width=8, blocks=1)
    >>> points = 2 * torch.rand(2, 3, 40) - 1
    >>> model(points, points.transpose(1, 2)).shape
    torch.Size([2, 10])

    van der Linden et al. 2023 (Learned gridification); Romero et al. 2022 (CCNN).
    """

    takes_positions = True
    references = (GRIDIFICATION_PAPER, CCNN_PAPER)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        resolution: PerAxis[int],
        *,
        dim: int = 3,
        width: int = 64,
        blocks: int = 3,
        neighbours: int = 9,
        edges: str = "both",
        aggregate: str = "mean",
        kernel: KernelFactory = SIREN,
        support: SupportFactory = Gaussian,
        reach: PerAxis[int] | None = None,
        mixing: str = "separable",
        head: str = "pool",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, input_dropout=input_dropout, **place)
        sizes = per_axis("resolution", resolution, dim, lambda n, v: check_integer(n, v, minimum=2))
        check_choice("head", head, ("pool", "dense"))
        options: dict[str, Any] = {"kernel": kernel, "support": support, "reach": reach, "mixing": mixing}
        options |= {"blocks": blocks, "dropout": dropout, "engine": engine}
        between: dict[str, Any] = {"neighbours": neighbours, "aggregate": aggregate}
        self.gridify = Gridify(in_channels, width, sizes, dim, edges=edges, **between, **place)
        outputs = out_features if head == "pool" else width
        self.body = CCNN(width, outputs, sizes, width=width, head=head, **options, **place)
        self.degridify, self.skip = None, None
        if head == "dense":
            self.degridify = Degridify(width, out_features, sizes, dim, hidden=width, **between, **place)
            self.skip = Pointwise(in_channels, out_features, **place)
        self._refer_to(self.body.grid)
        given = {name: value for name, value in self._shape().items() if name not in ("tokens", "span", "size")}
        shape = {"resolution": sizes, "dim": dim, "width": width, "edges": edges, "head": head}
        self.arguments = {**given, **shape, **options, **between}

    @property
    def head(self) -> Head:  # type: ignore[override]
        """That of the body."""
        return self.body.head

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        for part in (self.gridify, self.body, self.degridify, self.skip):
            if part is not None:
                part.reset_parameters()

    def forward(  # type: ignore[override]
        self, x: Signal, positions: Tensor, mask: Tensor | None = None, *, edges: Edges | None = None
    ) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[1] != self.in_channels:
            raise ValueError(f"`x` must be (batch, {self.in_channels}, points); got {describe(x)}.")
        features = self._input(x, mask)
        y = self.body(self.gridify(features, positions, mask, edges=edges))
        if self.degridify is None or self.skip is None:
            return y
        return self.degridify(y, positions, mask) + observed(self.skip(features), mask)
