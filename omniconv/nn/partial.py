"""The part of a group on which a layer computes its outputs, learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omniconv._errors import check_number
from omniconv._precision import AtLeastFloat32, at_least_float32
from omniconv._references import PARTIAL_PAPER, Cited
from omniconv._tags import Tag, Tagged
from omniconv.groups import Count, Group, Samples
from omniconv.nn._kept_taps import KeptTaps, may_be_kept


class Partial(Cited, Tagged, AtLeastFloat32):
    """A learned neighbourhood of the identity of a group, and a learned choice of its components.

    An element g, of coordinates a = log g, becomes exp(u a): every continuous coordinate has a width u in [0, 1], from
    nothing but the identity to all that is sampled. Every component but that of the identity, such as the reflections,
    or an element of a finite group, is kept with the probability p = sigmoid(2 w). The number of elements stays what it
    is: those that are dropped weigh nothing. Weights follow the density of the Haar measure, and sum to 1.

    `group`, `samples`: as in `LiftingConv`.
    `temperature`: of the choice in training, (0, inf): its gradient is that of sigmoid((2 w + noise) / temperature).

    `forward(samples)` takes `Samples` of the whole group and returns those of the part. In training components are
    dropped at random; at evaluation those are kept that are more likely kept than not.
    A width is brought back to [0, 1] by `refresh(model)`, as after a step of the optimiser in a training loop. Widths
    begin at 1, choices at p = 0.88, and both learn at a tenth of the learning rate, without weight decay.

    >>> from omniconv.groups import SO2
    >>> part = Partial(SO2(), 4)
    >>> with torch.no_grad():
    ...     _ = part.width.fill_(0.5)
    >>> (part(SO2().grid(4)).elements[:, 0] / torch.pi).tolist()
    [0.0, 0.25, 0.5, -0.25]

    Romero and Lohit 2022.
    """

    references = (PARTIAL_PAPER,)
    components: Tensor

    def __init__(
        self,
        group: Group,
        samples: Count | None = None,
        *,
        temperature: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.group, self.count = group, samples
        self.temperature = check_number("temperature", temperature, low=0.0)
        self.continuous = torch.tensor(group.continuous, dtype=torch.bool)
        parts = group.log(group.grid(samples).elements)[:, ~self.continuous]
        others = parts[parts.abs().sum(1) > 1e-9]  # not that of the identity
        self.components = others.unique(dim=0) if len(others) else others
        dtype = at_least_float32(dtype)
        self.width = nn.Parameter(torch.empty(sum(group.continuous), device=device, dtype=dtype))
        self.choice = nn.Parameter(torch.empty(len(self.components), device=device, dtype=dtype))
        self.kept = KeptTaps()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.width.fill_(1.0)
        self.choice.fill_(1.0)

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring widths back to [0, 1]: what lies beyond changes nothing, and would take steps to come back from."""
        self.width.clamp_(0.0, 1.0)

    @property
    def random(self) -> bool:
        """Whether `forward` draws in training."""
        return len(self.choice) > 0

    @property
    def widths(self) -> Tensor:
        """u, one per continuous coordinate, in [0, 1]; beyond it the slope stays that of the end."""
        return self.width + (self.width.clamp(0.0, 1.0) - self.width).detach()

    @property
    def probabilities(self) -> Tensor:
        """p, with which each component but that of the identity is kept."""
        return torch.sigmoid(2 * self.choice)

    def forward(self, samples: Samples) -> Samples:
        sources = [*self.parameters(), samples.elements, samples.weights]
        if self.training or not may_be_kept(sources):
            return self._part(samples)
        elements, weights = self.kept.get("part", sources, lambda: self._tensors(samples))
        return Samples(elements, weights)

    def _tensors(self, samples: Samples) -> list[Tensor]:
        part = self._part(samples)
        return [part.elements, part.weights]

    def _part(self, samples: Samples) -> Samples:
        a = self.group.log(samples.elements)
        scale = a.new_ones(a.shape[-1]).masked_scatter(self.continuous.to(a.device), self.widths.to(a))
        near = a * scale
        weights = samples.weights * self.group.density(near) / self.group.density(a)
        weights = weights * self._keep(a[:, ~self.continuous.to(a.device)]).to(weights)
        return Samples(self.group.exp(near), weights / weights.sum())

    def _keep(self, discrete: Tensor) -> Tensor:
        """1 for elements that are kept, 0 for those that are not, with the slope of the soft choice."""
        known = torch.cat([torch.zeros_like(discrete[:1]), self.components.to(discrete)])
        which = (discrete[:, None] - known).abs().sum(-1).argmin(1)
        logits = 2 * self.choice
        if self.training:
            uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            logits = (logits + uniform.logit()) / self.temperature
        soft = torch.sigmoid(logits)
        keep = (logits > 0).to(soft) + soft - soft.detach()
        return torch.cat([keep.new_ones(1), keep])[which]

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(lr_scale=0.1, decay=False) for name, _ in self.named_parameters()}

    def extra_repr(self) -> str:
        return f"{self.group}, samples={self.count}, temperature={self.temperature}"
