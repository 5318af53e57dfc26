"""Signals on a grid that are moved by an element of a group."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import check_choice, check_floating_tensor, describe
from omniconv._precision import HALF
from omniconv.groups._group import Elements, Group, Samples, check_group

NEAR = 1e-6
"""Elements and matrices that differ by less are the same."""


def transform(
    x: Tensor, group: Group, g: Elements, samples: Samples | None = None, *, interpolation: str = "bilinear"
) -> Tensor:
    """The signal moved by g about the middle of its grid: (g f)(x) = f(g^-1 x), and (g f)(x, h) = f(g^-1 x, g^-1 h).

    `x`: `batch channels *size`, or `batch channels group *size` at `samples`, which g has to map to themselves.
    `g`: one element, (numbers,), or one for each signal, (batch, numbers). `interpolation`: "bilinear" or "nearest",
    for what lies between samples; zero beyond the edges. Where one g maps the grid to itself, a quarter turn or a
    mirror, samples are only moved, and not a bit is lost; axes of different sizes are exchanged with them. Elements
    for each signal interpolate, and have derivatives; they move no signals on the group.
    Raises `ValueError` for samples that g maps to others.

    >>> from omniconv.groups import SO2
    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> transform(image, SO2(), torch.tensor([torch.pi / 2])).flatten().tolist()
    [2.0, 4.0, 1.0, 3.0]
    """
    check_floating_tensor("x", x)
    check_group(group)
    if samples is not None and not isinstance(samples, Samples):
        raise TypeError(f"`samples` must be omniconv.groups.Samples; got {describe(samples)}.")
    check_floating_tensor("g", g)
    if g.shape != (group.numbers,) and (samples is not None or g.shape != (*x.shape[:1], group.numbers)):
        each = "" if samples is not None else f", or one for each signal, ({len(x) if x.ndim else 0}, {group.numbers})"
        raise ValueError(f"`g` must be one element of {group}, ({group.numbers},){each}; got {describe(g)}.")
    if x.ndim != group.dim + (2 if samples is None else 3):
        axes = "" if samples is None else ", group"
        raise ValueError(f"`x` must be (batch, channels{axes}, *size), {group.dim} axes in size; got {describe(x)}.")
    if samples is not None and x.shape[2] != len(samples):
        raise ValueError(f"`x` must have {len(samples)} elements on its group axis, as `samples`; got {describe(x)}.")
    check_choice("interpolation", interpolation, ("bilinear", "nearest"))
    if g.ndim == 2:
        return interpolated(x, group.matrix(group.inverse(g)).double().to(x.device), interpolation)
    if samples is not None:
        x = x.index_select(2, sources(group, g, samples).to(x.device))
    matrix = group.matrix(g).double().cpu()
    if bool((matrix.abs().round() - matrix.abs()).abs().max() < NEAR) and bool(
        (matrix.round().abs().sum(0) == 1).all()
    ):
        return permuted(x, matrix.round().long())
    return interpolated(x, torch.linalg.inv(matrix), interpolation)


def sources(group: Group, g: Elements, samples: Samples) -> Tensor:
    """For every sample h the index of g^-1 h among the samples."""
    apart, index = nearest(group, g, samples)
    if bool((apart > NEAR).any()):
        raise ValueError(f"`g` must map the samples of {group} to themselves; it takes one {apart.max():.2g} away.")
    return index


def nearest(group: Group, g: Elements, samples: Samples) -> tuple[Tensor, Tensor]:
    """For every sample h the distance of g^-1 h from the nearest sample, and the index of that."""
    elements = samples.elements
    back = group.relative(g.to(elements).expand_as(elements), elements)
    apart, index = group.distance(back[:, None], elements).min(1)
    return apart, index


def permuted(x: Tensor, matrix: Tensor) -> Tensor:
    """x moved by a matrix of zeros and one 1 or -1 per row and column."""
    dim = len(matrix)
    source = matrix.abs().argmax(1)  # the axis from which each axis comes
    signs = matrix.gather(1, source[:, None])[:, 0]
    first = x.ndim - dim
    moved = x.permute(*range(first), *[first + int(axis) for axis in source])
    return moved.flip([first + axis for axis in range(dim) if signs[axis] < 0])


def interpolated(x: Tensor, back: Tensor, interpolation: str) -> Tensor:
    """x at the points back p, for the points p of its grid, measured from the middle; one matrix, or one each."""
    if x.dtype in HALF:  # positions in half precision are off by more than a sample
        return interpolated(x.float(), back, interpolation).to(x.dtype)
    dim = back.shape[-1]
    size = x.shape[-dim:]
    axes = [torch.arange(n, dtype=torch.float64, device=back.device) - (n - 1) / 2 for n in size]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    points = (grid.flatten(0, -2) @ back.mT).unflatten(-2, size)
    scale = torch.tensor([2 / n for n in size], dtype=torch.float64, device=back.device)
    wanted = (points * scale).flip(-1)  # the framework counts axes from the last
    flat = x.flatten(1, -dim - 1)
    if dim == 1:  # the framework has no series: one row of an image
        flat, wanted = flat.unsqueeze(2), torch.cat([wanted, torch.zeros_like(wanted)], -1).unsqueeze(-3)
    where = wanted.to(x).expand(len(x), *wanted.shape[-dim - 1 - (dim == 1) :])
    moved = F.grid_sample(flat, where, mode=interpolation, padding_mode="zeros", align_corners=False)
    return moved.reshape(x.shape)
