"""The laws of kernels."""

from __future__ import annotations

import copy

import torch

from omniconv.kernels import Kernel, KernelFactory
from omniconv.nn import Conv1d
from omniconv.supports import Gaussian
from omniconv.testing._device import stays
from omniconv.testing._tolerances import assert_close, expect


def check_kernel(factory: KernelFactory, *, dims: tuple[int, ...] = (1, 2, 3)) -> None:
    """Raise `AssertionError` unless the kernels that `factory` makes obey the contract of `Kernel`.

    Shapes and dtypes in every dimension, causal and not; a value depends on its own position alone; unit mean square
    over the window at construction; the same values and derivatives on a grid and as the taps of a recurrence, where
    the kernel offers them;
    derivatives in positions and parameters (float64); evaluation changes no state;
    state-dict and deep-copy round trips; a re-draw changes the parameters; construction on the meta device; a band
    limit of the right length, the sum of the filters' differentiable ones; tags that name parameters; no list that
    becomes a tensor, and no number that the host asks for, in `forward`; in a layer, on one axis, nearly the same
    result on a grid of half the spacing: within 1 % where the kernel knows its band limit, 10 % elsewhere.

    >>> from omniconv.kernels import SIREN
    >>> check_kernel(SIREN, dims=(1,))
    """
    for dim in dims:
        for causal in (False, True):
            kernel = make(factory, dim, channels=5, reach=6, causal=causal, dtype=torch.float64)
            check_values(kernel)
            check_pointwise(kernel)
            check_grid(kernel)
            check_recurrence(kernel)
            check_state(kernel, make(factory, dim, channels=5, reach=6, causal=causal, dtype=torch.float64))
            check_declarations(kernel)
            check_calibration(factory, dim, causal)
        check_derivatives(make(factory, dim, channels=2, reach=3, causal=False, dtype=torch.float64))
        check_meta(factory, dim)
        check_device(factory, dim)
        if dim == 1:
            check_resolution(factory)


def make(
    factory: KernelFactory,
    dim: int,
    *,
    channels: int,
    reach: int,
    causal: bool,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Kernel:
    """A kernel from the factory, as a layer would make it."""
    return factory(dim, channels, reach=(reach,) * dim, causal=(causal,) * dim, device=device, dtype=dtype)


def sample_positions(kernel: Kernel, points: int = 7) -> torch.Tensor:
    """Positions off the lattice, inside the kernel's window, reproducible and without the global generator."""
    generator = torch.Generator().manual_seed(points)
    positions = torch.rand(points, kernel.dim, generator=generator, dtype=torch.float64)
    return torch.where(torch.tensor(kernel.causal), positions, 2 * positions - 1)


def check_values(kernel: Kernel) -> None:
    """Shape and dtype follow the positions; values are finite."""
    for dtype in (torch.float32, torch.float64):
        values = kernel(sample_positions(kernel, 6).to(dtype).reshape(3, 2, kernel.dim))
        expect(
            values.shape == (3, 2, kernel.channels), f"values must be (*points, channels); got {tuple(values.shape)}"
        )
        expect(values.dtype == dtype, f"values must have the positions' dtype {dtype}; got {values.dtype}")
        expect(bool(values.isfinite().all()), "values must be finite")


def check_pointwise(kernel: Kernel) -> None:
    """A value depends on its own position alone."""
    positions = sample_positions(kernel)
    alone = torch.cat([kernel(position[None]) for position in positions])
    error = (kernel(positions) - alone).abs().max().item()
    expect(error < 1e-12, f"a value must depend on its own position alone; together they differ by {error:.1e}")


def check_grid(kernel: Kernel) -> None:
    """On grids, one of a single lag too, the values of `forward` and their derivatives, if the kernel offers them."""
    for steps, spacing in (((6, 4, 3), (1.0, 1.5, 1.9)), ((3, 0, 1), (0.7, 1.0, 3.0)), ((0, 11, 2), (1.0, 0.5, 1 / 3))):
        n, step = steps[: kernel.dim], spacing[: kernel.dim]
        given = kernel.on_grid(n, step, torch.float64)
        if given is None:
            return
        expected = kernel(grid_positions(kernel, n, step))
        expect(given.shape == expected.shape, f"on_grid must be {tuple(expected.shape)}; got {tuple(given.shape)}")
        assert_close(given, expected, "on_grid", 1e-12)
        compare_derivatives("on_grid", kernel, given, expected)
        rounded = kernel.on_grid(n, step, torch.float32)
        expect(rounded is not None and rounded.dtype == torch.float32, "on_grid must have the dtype asked for")
        assert_close(given if rounded is None else rounded, expected, "on_grid")


def check_recurrence(kernel: Kernel) -> None:
    """The taps of the recurrence, if there is one, are the values at the multiples of the spacing, with derivatives.

    `to_modal` is that of the reference grid, without a graph.
    """
    now = kernel.to_modal()
    expect((now is None) == (kernel.recurrence() is None), "to_modal and recurrence must both be there, or both None")
    for spacing in (1.0, 0.7):
        modes = kernel.recurrence(spacing)
        if modes is None or now is None:
            return
        expected = kernel(grid_positions(kernel, (7,), (spacing,)))
        assert_close(modes.taps(8).T, expected, "the taps of recurrence", 1e-12)
        compare_derivatives("recurrence", kernel, modes.taps(8).T, expected)
        if spacing == 1:
            assert_close(now.taps(8).T, expected, "the taps of to_modal", 1e-12)
            expect(not now.poles.requires_grad and not now.residues.requires_grad, "to_modal must have no graph")


def compare_derivatives(what: str, kernel: Kernel, actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Raise unless two results have the same derivatives in the parameters."""
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=expected.dtype)
    parameters = [parameter for parameter in kernel.parameters() if parameter.requires_grad]
    derivatives = (torch.autograd.grad((values * weights).sum(), parameters) for values in (actual, expected))
    for one, other in zip(*derivatives, strict=True):
        error = (one - other).norm().item()
        expect(error <= 1e-10 * (1 + other.norm().item()), f"{what}: derivatives differ by {error:.1e}")


def grid_positions(kernel: Kernel, steps: tuple[int, ...], spacing: tuple[float, ...]) -> torch.Tensor:
    """The positions of a grid, `*grid dim`, as the kernel's `on_grid` takes it."""
    axes = [
        torch.arange(0 if past else -n, n + 1, dtype=torch.float64) * (step / max(far, 1))
        for n, step, past, far in zip(steps, spacing, kernel.causal, kernel.reach, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def check_calibration(factory: KernelFactory, dim: int, causal: bool) -> None:
    """Unit mean square over the window, on average over draws."""
    squares = []
    for _ in range(8):
        kernel = make(factory, dim, channels=16, reach=6, causal=causal)
        squares.append(kernel(kernel.reference_positions().float()).square().mean().item())
    mean = sum(squares) / len(squares)
    expect(0.8 < mean < 1.25, f"a new kernel must have unit mean square over its window; got {mean:.2f}")


def check_derivatives(kernel: Kernel) -> None:
    """First derivatives in positions and parameters agree with differences, in float64."""
    names, parameters = zip(*kernel.named_parameters(), strict=True)
    positions = sample_positions(kernel, 3).requires_grad_()

    def evaluate(positions: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(kernel, dict(zip(names, values, strict=True)), (positions,))
        return result

    copies = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    torch.autograd.gradcheck(evaluate, (positions, *copies), fast_mode=True)


def check_state(kernel: Kernel, other: Kernel) -> None:
    """Evaluation changes no state; copies and loaded kernels are equal; a re-draw differs."""
    positions = sample_positions(kernel)
    before = copy.deepcopy(kernel.state_dict())
    values = kernel(positions)
    after = kernel.state_dict()
    expect(all(torch.equal(before[name], after[name]) for name in before), "evaluation must not change the state")
    expect(torch.equal(copy.deepcopy(kernel)(positions), values), "a deep copy must give the same values")
    other.load_state_dict(kernel.state_dict())
    expect(torch.equal(other(positions), values), "a kernel with the same state must give the same values")
    other.reset_parameters()
    expect(not torch.equal(other(positions), values), "reset_parameters must draw anew")


def check_declarations(kernel: Kernel) -> None:
    """Band limit and tags have the declared form."""
    limit = kernel.bandlimit()
    expect(limit is None or (len(limit) == kernel.dim and min(limit) >= 0), "bandlimit must be None or one per axis")
    widths = kernel.bandwidths()
    if widths is not None:
        told = widths.ndim == 2 and widths.shape[1] == kernel.dim and bool((widths >= 0).all())
        expect(told, "bandwidths must be None or at least 0, (filters, dim)")
        again = perturbed(kernel).bandwidths()
        fixed = again is not None and torch.equal(again, widths)  # by what is no parameter, such as an order
        expect(widths.requires_grad or fixed, "bandwidths must have a derivative in the parameters")
        added = widths.sum(0).tolist()
        close = limit is not None and all(abs(a - b) <= 1e-6 * b for a, b in zip(limit, added, strict=True))
        expect(close, f"bandlimit must be the sum of the bandwidths, {added}; got {limit}")
    unknown = set(kernel.parameter_tags()) - {name for name, _ in kernel.named_parameters()}
    expect(not unknown, f"parameter_tags must name parameters; unknown: {sorted(unknown)}")


@torch.no_grad()
def perturbed(kernel: Kernel) -> Kernel:
    """A copy whose parameters are elsewhere: a new draw may leave some of them where they began."""
    moved, generator = copy.deepcopy(kernel), torch.Generator().manual_seed(0)
    for parameter in moved.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return moved


def check_device(factory: KernelFactory, dim: int) -> None:
    """Host and device do not meet in `forward` and its derivatives."""
    for device in ("cpu", "meta"):  # on the second, what comes from the host is of another device
        kernel = make(factory, dim, channels=5, reach=6, causal=False, device=device)
        positions = torch.zeros(3, dim, device=device)

        def evaluate(kernel: Kernel = kernel, positions: torch.Tensor = positions) -> None:
            kernel(positions).sum().backward()

        stays(evaluate, f"forward of {type(kernel).__name__}")


def check_resolution(factory: KernelFactory) -> None:
    """A layer computes nearly the same integral on a grid of half the spacing, for a smooth signal."""
    for causal in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            layer = Conv1d(1, 4, 128, kernel=factory, support=Gaussian, causal=causal, dtype=torch.float64)
        coarse, fine = layer(smooth(128)), layer(smooth(255), spacing=0.5)[..., ::2]
        error = ((fine - coarse).norm() / coarse.norm()).item()
        known = layer.kernel.bandlimit() is not None
        limit = 0.01 if known else 0.1
        told = f"at half the spacing a layer with a kernel {'with' if known else 'without'} band limit differs by "
        told += (
            f"{error:.1%}, above {limit:.0%}. Lower the frequencies that it is drawn with: those well below that of "
        )
        expect(error < limit, f"{told}Nyquist are resolved on the reference grid")


def smooth(n: int) -> torch.Tensor:
    """A wave that begins and ends softly, in n samples."""
    t = torch.linspace(0, 1, n, dtype=torch.float64)
    return (torch.cos(40 * t) * torch.sin(torch.pi * t) ** 2)[None, None]


def check_meta(factory: KernelFactory, dim: int) -> None:
    """A kernel built on the meta device comes to life by `to_empty` and `reset_parameters`."""
    kernel = make(factory, dim, channels=5, reach=6, causal=False, device="meta")
    expect(all(parameter.is_meta for parameter in kernel.parameters()), "`device` must reach every parameter")
    kernel = kernel.to_empty(device="cpu")
    kernel.reset_parameters()
    values = kernel(sample_positions(kernel).float())
    expect(bool(values.isfinite().all()) and bool(values.any()), "a kernel from the meta device must be initialised")
