"""The part of a group on which a layer computes its outputs, learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omniconv._errors import check_number, describe
from omniconv._place import check_place
from omniconv._precision import AtLeastFloat32, at_least_float32
from omniconv._references import PARTIAL_PAPER, Cited
from omniconv._tags import Tag, Tagged
from omniconv.groups import Count, Group, Product, Samples
from omniconv.groups._group import check_group
from omniconv.nn._kept_taps import may_be_kept
from omniconv.nn._poses import sampled
from omniconv.nn._refreshed import Refreshed


class Partial(Cited, Tagged, AtLeastFloat32, Refreshed):
    """A learned neighbourhood of the identity of a group, and a learned choice of its components.

    An element g, of coordinates a = log g, becomes exp(u a): every continuous coordinate has a width u in [0, 1], from
    nothing but the identity to all that is sampled. Every component but that of the identity, such as the reflections,
    or an element of a finite group, is kept with the probability p = sigmoid(2 w). The number of elements stays what it
    is: those that are dropped weigh nothing. Weights follow the density of the Haar measure, and sum to 1.

    `group`, `samples`: as in `LiftingConv`.
    `begin`: where widths begin, (0, 1]. At 1 a network is exactly invariant, and if its task is to tell apart what the
    group maps to one another, it has first to find that it can: then 0.9 learns faster.
    `temperature`: of the choice in training, (0, inf): its gradient is that of sigmoid((2 w + noise) / temperature).

    `forward(samples, centred=False)` takes `Samples` of the whole group and returns those of the part. In training
    components are dropped at random; at evaluation those are kept that are more likely kept than not. `centred` is for
    a fixed grid, which need not lie evenly about the identity, as four angles of which one is pi: where widths are
    below 1, its part is moved to be even.
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
    centre: Tensor

    def __init__(
        self,
        group: Group,
        samples: Count | None = None,
        *,
        begin: float = 1.0,
        temperature: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.group, self.count = group, samples
        check_group(group)
        self.begin = check_number("begin", begin, low=0.0, high=1.0)
        self.temperature = check_number("temperature", temperature, low=0.0)
        check_place(device, dtype)
        grid = sampled(group, samples)
        self._by_factors = chooses_by_factors(group)
        coordinates = group.log(grid.elements)
        self.register_buffer("centre", (grid.weights[:, None] * coordinates).sum(0).to(device), persistent=False)
        parts = self._discrete(coordinates)
        others = parts[parts.abs().sum(1) > 1e-9]  # not that of the identity
        components = others.unique(dim=0) if len(others) else others
        self.register_buffer("components", components.to(device), persistent=False)
        dtype = at_least_float32(dtype)
        self.width = nn.Parameter(torch.empty(sum(group.continuous), device=device, dtype=dtype))
        self.choice = nn.Parameter(torch.empty(len(self.components), device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.width.fill_(self.begin)
        self.choice.fill_(1.0)

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring widths back to [0, 1]: what lies beyond changes nothing, and would take steps to come back from."""
        self.kept_taps.clear()
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

    def forward(self, samples: Samples, centred: bool = False) -> Samples:
        if not isinstance(samples, Samples):
            raise TypeError(f"`samples` must be omniconv.groups.Samples of {self.group}; got {describe(samples)}.")
        sources = [*self.parameters(), samples.elements, samples.weights]
        if self.training or not may_be_kept(sources):
            made = self._part(samples, centred)
        else:
            made = self.kept_taps.get(centred, sources, lambda: self._part(samples, centred))
        elements, weights, kept = made
        return Samples(elements, weights, kept, samples.magnification, samples.counts if self._by_factors else None)

    def _part(self, samples: Samples, centred: bool) -> list[Tensor]:
        """Elements, weights, and which are kept."""
        a = self.group._log(samples.elements)  # of elements that a group made: a check would read them from the device
        widths = iter(self.widths.to(a.dtype).unbind())
        one = a.new_ones(())
        scale = torch.stack([next(widths) if flag else one for flag in self.group.continuous] or [one])
        scale = scale[: a.shape[-1]]  # the trivial group has no coordinates
        near = a * scale
        if centred:
            near = near - scale * (4 * (1 - scale)).clamp(max=1.0) * self.centre.to(a.dtype)
        keep = self._keep(self._discrete(a)).to(a.dtype)
        weights = keep * samples.weights * self.group.density(near) / self.group.density(a)
        total = weights.sum()
        # Of elements that were drawn one by one, perhaps none is of the component that is always kept.
        weights = torch.where(total > 0, weights / total.clamp(min=1e-12), samples.weights)
        return [self.group.exp(near), weights, torch.where(total > 0, keep, torch.ones_like(keep))]

    def _discrete(self, coordinates: Tensor) -> Tensor:
        """The coordinates that tell components apart."""
        columns = [coordinates[:, i] for i, flag in enumerate(self.group.continuous) if not flag]
        return torch.stack(columns, 1) if columns else coordinates[:, :0]

    def _keep(self, discrete: Tensor) -> Tensor:
        """1 for elements that are kept, 0 for those that are not, with the slope of the soft choice."""
        known = torch.cat([torch.zeros_like(discrete[:1]), self.components.to(discrete)])
        which = (discrete[:, None] - known).abs().sum(-1).argmin(1)
        logits = 2 * self.choice
        if self.training:
            uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            logits = (logits + uniform.logit()) / self.temperature
        soft = torch.sigmoid(logits)
        keep = (logits > 0).to(soft) + (soft - soft.detach())
        return torch.cat([keep.new_ones(1), keep])[which]

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(lr_scale=0.1, decay=False) for name, _ in self.named_parameters()}

    def extra_repr(self) -> str:
        return f"{self.group}, samples={self.count}, begin={self.begin}, temperature={self.temperature}"


def chooses_by_factors(group: Group) -> bool:
    """Whether a choice of the group's components is one of a single factor's: else a part is no product of parts."""
    factors = group.factors if isinstance(group, Product) else ()
    return sum(not all(factor.continuous) for factor in factors) <= 1
