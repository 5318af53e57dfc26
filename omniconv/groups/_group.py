"""The contract of a symmetry group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeAlias

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, check_integer, describe
from omniconv._references import Cited

Elements: TypeAlias = Annotated[Tensor, "*batch numbers"]
Coordinates: TypeAlias = Annotated[Tensor, "*batch coordinates"]
Points: TypeAlias = Annotated[Tensor, "*batch dim"]

Count: TypeAlias = int | tuple[int, ...] | list[int]
"""Elements of a grid; of a product of groups, for each of its factors."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Elements of a group with the weights of a quadrature: the mean of f over the group is sum_i weights_i f(g_i).

    `elements`: (count, numbers). `weights`: (count,), which sum to 1. Groups make them on the CPU in float64.
    `kept`: of a choice that is learned, 1 for every element that is kept and 0 for others, with its slope; None: all.
    `magnification`: by which they lengthen a vector at most, if that is known.
    `counts`: of elements of each factor of a product of groups, if it is known that these are every one with every
    other, the last changing fastest, and that weights are products too.
    Raises `ValueError` that names what does not fit the elements.
    """

    elements: Tensor
    weights: Tensor
    kept: Tensor | None = None
    magnification: float | None = None
    counts: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.elements, Tensor) or self.elements.ndim != 2:
            raise ValueError(f"`elements` must be (count, numbers); got {describe(self.elements)}.")
        for name, value in (("weights", self.weights), ("kept", self.kept)):
            fits = isinstance(value, Tensor) and value.shape == self.elements.shape[:1]
            if not fits and not (name == "kept" and value is None):
                raise ValueError(
                    f"`{name}` must be ({len(self.elements)},), a number for each of `elements`; got {describe(value)}."
                )

    def __len__(self) -> int:
        return len(self.weights)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Samples:
        """The same on another device or in another precision."""
        kept = None if self.kept is None else self.kept.to(device, dtype)
        elements, weights = self.elements.to(device, dtype), self.weights.to(device, dtype)
        return Samples(elements, weights, kept, self.magnification, self.counts)


class Group(Cited, ABC):
    """A group of transformations of R^dim: pure functions of tensors of elements, of any batch shape, dtype and device.

    `dim`: of the space on which it acts, whose axes are those of a signal in their order. `numbers`: in which an
    element is stored. `continuous`: for each coordinate of the chart `log`, whether it is continuous; others tell
    components apart, as 0 and 1 do rotations and reflections. The identity has the coordinates 0.
    `features`: numbers that describe an element to a kernel network, at least 1. `order`: number of elements, None if
    infinite. `magnification`: by which a sampled element lengthens a vector at most.

    A group is an immutable value: two of one kind with the same parameters are equal. A new one gives its attributes
    and the methods that begin with an underscore, whose arguments were checked; batch axes broadcast.
    """

    dim: int
    numbers: int
    continuous: tuple[bool, ...]
    features: int
    order: int | None = None
    magnification: float = 1.0

    @abstractmethod
    def _compose(self, g: Elements, h: Elements) -> Elements: ...

    @abstractmethod
    def _inverse(self, g: Elements) -> Elements: ...

    @abstractmethod
    def _exp(self, a: Coordinates) -> Elements: ...

    @abstractmethod
    def _log(self, g: Elements) -> Coordinates: ...

    @abstractmethod
    def _matrix(self, g: Elements) -> Tensor: ...

    @abstractmethod
    def _describe(self, g: Elements) -> Tensor: ...

    @abstractmethod
    def _density(self, a: Coordinates) -> Tensor: ...

    @abstractmethod
    def _at(self, uniform: Tensor) -> Elements: ...

    @abstractmethod
    def _grid(self, count: Count, offset: Tensor) -> Samples: ...

    @property
    def coordinates(self) -> int:
        """Number of coordinates."""
        return len(self.continuous)

    def compose(self, g: Elements, h: Elements) -> Elements:
        """The product gh, which acts as h and then g."""
        return self._compose(self._checked("g", g), self._checked("h", h))

    def inverse(self, g: Elements) -> Elements:
        """The element with which g composes to the identity."""
        return self._inverse(self._checked("g", g))

    def exp(self, a: Coordinates) -> Elements:
        """The element with these coordinates."""
        return self._exp(self._checked("a", a, self.coordinates))

    def log(self, g: Elements) -> Coordinates:
        """Coordinates of the element, the inverse of `exp`; a circle is cut at pi.

        Raises `ValueError` for numbers that are no element and have none.
        """
        self._check_chart("`g`", self._checked("g", g))
        return self._log(g)

    def matrix(self, g: Elements) -> Tensor:
        """The linear map of R^dim that g is, (*batch, dim, dim)."""
        return self._matrix(self._checked("g", g))

    def act(self, g: Elements, x: Points) -> Points:
        """The points moved by g, (*batch, dim)."""
        return (self.matrix(g) * self._checked("x", x, self.dim).unsqueeze(-2)).sum(-1)

    def determinant(self, g: Elements) -> Tensor:
        """By how much g magnifies volumes, |det|, (*batch)."""
        return torch.linalg.det(self.matrix(g)).abs()

    def relative(self, g: Elements, h: Elements) -> Elements:
        """g^-1 h, which is h as seen from g: the same when both are moved by one element."""
        return self.compose(self.inverse(g), h)

    def distance(self, g: Elements, h: Elements) -> Tensor:
        """|log(g^-1 h)|, (*batch)."""
        relative = self.relative(g, h)
        self._check_chart("`g` and `h`", relative)
        return self._log(relative).norm(dim=-1)

    def describe(self, g: Elements) -> Tensor:
        """Features of elements for a kernel network, (*batch, features): continuous on the whole group, without a cut,
        and between -1 and 1 for g^-1 h of all g and h that are sampled.
        """
        return self._describe(self._checked("g", g))

    def density(self, a: Coordinates) -> Tensor:
        """The density of the left Haar measure in the continuous coordinates of `log`, (*batch); 1 at the identity."""
        return self._density(self._checked("a", a, self.coordinates))

    def at(self, uniform: Tensor) -> Elements:
        """The elements that numbers in [0, 1) stand for, one number per coordinate: uniform numbers give elements that
        have the Haar measure, within the range of what is not compact.
        """
        return self._at(self._checked("uniform", uniform, self.coordinates))

    def identity(self, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Elements:
        """The element that changes nothing, (numbers,)."""
        return self._exp(torch.zeros(self.coordinates, dtype=dtype, device=device))

    def grid(self, count: Count | None = None, *, offset: Tensor | None = None) -> Samples:
        """Elements that are spread evenly, the identity among them.

        `count`: of elements; for groups with several factors one number for each; None: all of a finite group.
        `offset`: of the whole grid by a part of a cell, (coordinates,), in [0, 1): where it is drawn uniformly, the
        grid's mean of every function is right in expectation. None: no offset.
        """
        if count is None:
            if self.order is None:
                raise ValueError(f"`count` must be given for {self}, which is infinite.")
            count = self._all()
        if isinstance(count, list):  # as JSON has it
            count = tuple(count)
        if offset is None:
            offset = torch.zeros(self.coordinates, dtype=torch.float64, device="cpu")
        offset = self._checked("offset", offset, self.coordinates).to("cpu", torch.float64)
        if offset.ndim != 1 or bool(((offset < 0) | (offset >= 1)).any()):
            raise ValueError(f"`offset` must be {self.coordinates} numbers in [0, 1); got {offset.tolist()}.")
        return self._measured(self._grid(count, offset))

    def draw(self, count: int, *, generator: torch.Generator) -> Samples:
        """Elements that are drawn independently of one another from the Haar measure."""
        if not isinstance(generator, torch.Generator):
            raise TypeError(
                f"`generator` must be a torch.Generator; got {describe(generator)}. Make one, as by "
                "`torch.Generator().manual_seed(0)`."
            )
        size = check_integer("count", count), self.coordinates
        uniform = torch.rand(*size, generator=generator, dtype=torch.float64, device=generator.device)
        return self._measured(evenly(self._at(uniform)))

    def _all(self) -> Count:
        """The count of all elements of a finite group."""
        assert self.order is not None  # as was checked
        return self.order

    def _outside(self, g: Elements) -> Tensor | None:
        """Where numbers have no coordinates, (*batch); None: nowhere."""
        return None

    def _check_chart(self, what: str, g: Elements) -> None:
        """Raise where numbers have no coordinates, but not while a compiler looks on, which reads no numbers."""
        if torch.compiler.is_compiling():
            return
        outside = self._outside(g)
        if outside is not None and bool(outside.any()):
            wrong = g[outside].detach()[0].tolist() if g.ndim > 1 else g.tolist()
            raise ValueError(
                f"{what} must be elements of {self}, whose scales and determinants are positive; got {wrong}, which "
                "has no coordinates."
            )

    def _measured(self, samples: Samples) -> Samples:
        """The samples, with what they magnify."""
        lengths = torch.linalg.matrix_norm(self._matrix(samples.elements), ord=2)
        return replace(samples, magnification=lengths.max().item())

    def _checked(self, name: str, value: Any, numbers: int | None = None) -> Tensor:
        """Return the tensor, or raise unless it holds so many floating-point numbers on its last axis."""
        check_floating_tensor(name, value)
        tensor: Tensor = value
        wanted = self.numbers if numbers is None else numbers
        if tensor.ndim == 0 or tensor.shape[-1] != wanted:
            raise ValueError(f"`{name}` must have {wanted} numbers on its last axis for {self}; got {describe(value)}.")
        return tensor


def evenly(elements: Elements) -> Samples:
    """Samples that weigh the same."""
    return Samples(elements, elements.new_full((len(elements),), 1 / len(elements)))


def wrap(angle: Tensor) -> Tensor:
    """The same angle in (-pi, pi]."""
    turned = (torch.pi - torch.remainder(torch.pi - angle, 2 * torch.pi)).clamp(max=torch.pi)
    turned = torch.where(turned > -torch.pi, turned, turned + 2 * torch.pi)
    return torch.where((angle > -torch.pi) & (angle <= torch.pi), angle, turned)  # not a digit of small angles is lost


def rotation(angle: Tensor) -> Tensor:
    """The rotation of the plane from the first axis towards the second, (*batch, 2, 2)."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def times(first: Tensor, second: Tensor) -> Tensor:
    """The product of small matrices, entry by entry: autocast and tf32 would round the framework's own."""
    return (first.unsqueeze(-1) * second.unsqueeze(-3)).sum(-2)


NEAR = 1e-8
"""Square of a radius below which the first terms of a series take the place of a quotient that becomes 0 / 0."""


def of_radius(square: Tensor, exact: Callable[[Tensor], Tensor], *series: float) -> Tensor:
    """`exact(r)` of the root r of `square`; near 0 series[0] + series[1] r^2 + .., so that derivatives exist there."""
    near = square < NEAR
    values = exact(torch.where(near, torch.ones_like(square), square).sqrt())
    return torch.where(near, sum(term * square**power for power, term in enumerate(series)), values)


def line(count: Count, offset: Tensor) -> Tensor:
    """offset / count, (1 + offset) / count, .. in [0, 1), as a column."""
    number = check_integer("count", count)
    return (torch.arange(number, dtype=torch.float64, device="cpu") + offset)[:, None] / number


def whole(uniform: Tensor, count: int) -> Tensor:
    """The numbers in [0, 1) brought down to multiples of 1 / count, from which rounding may have taken them."""
    return (uniform * count + 4 * count * torch.finfo(uniform.dtype).eps).floor() / count


def check_group(group: Any) -> None:
    """Raise `TypeError` unless `group` is one."""
    if not isinstance(group, Group):
        raise TypeError(f"`group` must be an omniconv.groups.Group, as omniconv.groups.SO2(); got {describe(group)}.")


def check_order(group: Group, count: Count) -> int:
    """Return the count, or raise unless it is the order of the finite group."""
    if group.order is None or count != group.order:
        raise ValueError(f"`count` must be {group.order}, the number of elements of {group}; got {count!r}.")
    return group.order
