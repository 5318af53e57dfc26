"""Penalties on the kernels of a network: differentiable numbers to add to a loss.

Each is a sum over the convolutions of a model, and zero for a model without one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from omniconv._errors import check_choice, check_instance, check_integer, check_number
from omniconv._typing import Taps, check_bool
from omniconv.engines.fft import fast_length
from omniconv.nn._group_layer import GroupLayer
from omniconv.nn.conv import Conv, strict_precision
from omniconv.nn.non_stationary_conv import NonStationaryConv
from omniconv.nn.partial import Partial
from omniconv.nn.relaxed import Modulation


def kernel_norm(model: nn.Module) -> Tensor:
    """The sum over the convolutions, those on groups too, of |taps|^2, on the kernels as they are sampled.

    The square, unlike the norm itself, has a gradient where all taps are zero.

    >>> model = nn.Sequential(Conv(1, 2, 8), nn.GELU(), Conv(2, 1, 8))
    >>> bool(kernel_norm(model) == model[0].taps().square().sum() + model[2].taps().square().sum())
    True

    After Romero et al. 2022 (CKConv, FlexConv), who add the norm.
    """
    on_groups = (module for module in parts_of(model) if isinstance(module, GroupLayer))
    every = itertools.chain(
        (layer.taps().square().sum() for layer in convolutions(model)),
        (taps.square().sum() for layer in on_groups for taps, _ in layer.flattened(layer.inputs, layer.samples)),
    )
    return summed(every)


def all_pass(model: nn.Module, *, frequencies: int = 1024) -> Tensor:
    """How far the convolutions are from orthogonal ones, which keep every signal's energy at every frequency.

    With K(w) = sum_t taps[t] exp(-i w t), a layer adds the mean over w, in [0, 2 pi) on every axis, of
    depthwise and separable: the mean over channels of (|K_c(w)|^2 - 1)^2, before the channels are mixed;
    dense: |K(w) K(w)^H - 1|_F^2 / out_channels, or |K(w)^H K(w) - 1|_F^2 / in_channels where those are fewer.

    So a layer counts the same whatever its size, length and number of channels. The mean is exact, on as many
    frequencies as the taps ask for, but a dense layer of more than `frequencies`, at least 1, takes so many at random
    (from torch's global generator) at each call. Signals are taken as endless: edges are not looked at.

    >>> layer = Conv(2, 2, 8, mixing="depthwise")
    >>> bool(all_pass(layer) > 0)
    True

    Wang et al. 2020 (Orthogonal Convolutional Neural Networks), in the frequency domain.
    """
    check_integer("frequencies", frequencies)
    return summed(layer_all_pass(layer, frequencies) for layer in convolutions(model))


def layer_all_pass(layer: Conv, frequencies: int) -> Tensor:
    """What a layer adds to `all_pass`."""
    with strict_precision(layer.gain.device):
        transfer = spectrum(layer.taps(), layer.dim)
        if layer.mixing != "dense":
            return (squared(transfer) - 1).square().mean()
        if transfer.shape[-1] > frequencies:
            transfer = transfer[..., torch.randint(transfer.shape[-1], (frequencies,), device=transfer.device)]
        wide = layer.out_channels <= layer.in_channels
        rows = transfer.movedim(-1, 0) if wide else transfer.movedim(-1, 0).mT  # as few as there are
        identity = torch.eye(rows.shape[-2], dtype=rows.dtype, device=rows.device)
        return squared(rows @ rows.mH - identity).sum((-2, -1)).mean() / rows.shape[-2]


def spectrum(taps: Taps, dim: int) -> Tensor:
    """K(w) on frequencies enough for an exact mean of fourth powers, in one last axis."""
    # |K|^4 has 4 k - 3 terms exp(i w t), |t| <= 2 k - 2: on 2 k - 1 frequencies only the mean of t = 0 is not zero.
    sizes = [fast_length(2 * k - 1) for k in taps.shape[-dim:]]
    return torch.fft.fftn(taps, s=sizes, dim=tuple(range(-dim, 0))).flatten(-dim)


def squared(values: Tensor) -> Tensor:
    """|values|^2, by no root whose slope at zero is infinite."""
    return values.real.square() + values.imag.square()


def aliasing(model: nn.Module, *, per: str = "filter", nyquist: float = 1.0, supports: bool = True) -> Tensor:
    """By how much the kernels' frequencies exceed those that a grid carries, squared; zero below.

    f_l = max over axes of `layer.kernel.bandwidths()[l]`, l = 1 .. L; f_m = max over axes of the support's
    `bandwidth()`, 0 where it is not known; and f_N, the limit, is `nyquist`. A layer adds
    per "filter": sum_l max(f_l + f_m / L - f_N / L, 0)^2, where every filter has its share of the limit;
    per "kernel": max(sum_l f_l + f_m - f_N, 0)^2, where only their sum is limited.

    `nyquist`: in units of the reference grid's Nyquist frequency, (0, inf). 1 / D trains a network for spacing D.
    `supports`: whether f_m counts.
    Kernels that do not know their bandwidths add nothing; raises `ValueError` if that is so of all.

    >>> layer = Conv(1, 1, 8)  # a SIREN is one filter; per axis it knows one frequency
    >>> excess = layer.kernel.bandwidths().squeeze() + layer.support.bandwidth().squeeze() - 0.1
    >>> torch.allclose(aliasing(layer, nyquist=0.1), excess.square())
    True

    Romero et al. 2022 (FlexConv), with the frequency of a Gaussian cut at two standard deviations.
    """
    check_choice("per", per, ("filter", "kernel"))
    check_number("nyquist", nyquist, low=0.0)
    check_bool("supports", supports)
    layers = list(convolutions(model))
    known = [(layer, widths) for layer in layers if (widths := layer.kernel.bandwidths()) is not None]
    if layers and not known:
        names = sorted({type(layer.kernel).__name__ for layer in layers})
        raise ValueError(
            f"`model` must have a kernel that knows its bandwidths; {', '.join(names)} does not. Use another kernel, "
            "such as Gabor, or leave the penalty out."
        )
    return summed(excess(layer, widths, per, nyquist, supports) for layer, widths in known)


def excess(layer: Conv, widths: Tensor, per: str, nyquist: float, supports: bool) -> Tensor:
    """What a layer whose filters have these bandwidths adds to `aliasing`."""
    # What no parameter decides, such as an order, is told on the CPU.
    filters, window = widths.to(layer.gain.device).amax(1), layer.support.bandwidth() if supports else None
    highest = filters.new_zeros(()) if window is None else window.amax()
    if per == "filter":
        return (filters + (highest - nyquist) / len(filters)).clamp(min=0).square().sum()
    return (filters.sum() + highest - nyquist).clamp(min=0).square()


def admissibility(model: nn.Module) -> Tensor:
    """How far the filters of liftings and group convolutions are from wavelets, whose mean is zero.

    A layer adds the mean, over outputs and inputs, of (sum of taps)^2, as they are sampled on the reference grid.

    Romero et al. 2024 (Wavelet Networks).
    """
    layers = (module for module in parts_of(model) if isinstance(module, GroupLayer) and module.reach > 0)
    return summed(
        layer.flattened(layer.inputs, layer.samples)[-1][0].flatten(2).sum(2).square().mean() for layer in layers
    )


def narrowness(model: nn.Module) -> Tensor:
    """The sum over learned parts of groups of -ln u - ln p, of their widths u and probabilities p.

    Times a small factor it lets parts shrink only where the task gains by it. At a width of zero the logarithm is that
    of 1e-3.
    """
    found = parts(model)
    return summed(-part.widths.clamp(min=1e-3).log().sum() - part.probabilities.log().sum() for part in found)


def regrowth(model: nn.Module) -> Tensor:
    """The sum of max(u' - u, 0) over learned parts of groups that follow one another in the model, of widths u and u'.

    Romero and Lohit 2022, who ask that later layers have no more symmetry than those before.
    """
    widths = [part.widths for part in parts(model)]
    return summed((later - first).clamp(min=0).sum() for first, later in itertools.pairwise(widths))


def relaxation(model: nn.Module) -> Tensor:
    """The sum over relaxed layers of s^2: a pull towards symmetry."""
    amounts = (m.amount for m in parts_of(model) if isinstance(m, (Modulation, NonStationaryConv)))
    return summed(amount.square() for amount in amounts)


def parts(model: nn.Module) -> Iterator[Partial]:
    """Every learned part of a group in a model."""
    return (module for module in parts_of(model) if isinstance(module, Partial))


def convolutions(model: nn.Module) -> Iterator[Conv]:
    """Every convolution in a model."""
    return (module for module in parts_of(model) if isinstance(module, Conv))


def parts_of(model: nn.Module) -> Iterator[nn.Module]:
    """Every module of a model, or an error where that is none."""
    check_instance("model", model, nn.Module)
    return model.modules()


def summed(terms: Iterator[Tensor]) -> Tensor:
    """The sum of numbers, in their dtype and on their device."""
    total = next(terms, None)
    if total is None:
        return torch.zeros(())
    for term in terms:
        total = total + term
    return total
