"""Lifting and group convolutions as modules: kept taps, copies, devices, compilers, and bad input."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv.groups import O2, SO2, Count, Cyclic, Group, Samples, Scaling
from omniconv.kernels import Gabor, Table
from omniconv.nn import GroupConv, GroupProject, LiftingConv
from omniconv.nn._group_layer import GroupLayer
from omniconv.nn._group_steps import Step
from omniconv.testing import assert_close
from tests.cases import FACTORIZATIONS
from tests.nn.group_makers import F64, relative_error

small = partial(Gabor, hidden=4, depth=1)


def group_conv(factorization: str = "none", group: Group | None = None, count: Count = 4, **options: Any) -> GroupConv:
    kernel = options.pop("kernel", small)
    return GroupConv(2, 3, 5, group or SO2(), count, kernel=kernel, factorization=factorization, reach=2, **options)


MAKERS: dict[str, Callable[..., GroupLayer]] = {
    "lifting": partial(LiftingConv, 2, 3, 5, SO2(), 4, kernel=small, reach=2),
    "lifting-separable": partial(LiftingConv, 2, 3, 5, SO2(), 4, kernel=small, mixing="separable", reach=2),
    **{factorization: partial(group_conv, factorization) for factorization in FACTORIZATIONS},
}
"""Layers from 2 channels to 3 on a 5 x 5 grid, by name."""


def signal(layer: GroupLayer, dtype: torch.dtype = torch.float32, batch: int = 2) -> Tensor:
    """White noise that the layer takes."""
    group = () if isinstance(layer, LiftingConv) else (len(layer.samples),)
    return torch.randn(batch, 2, *group, 5, 5, dtype=dtype)


def fresh(layer: GroupLayer, *arguments: Any, **options: Any) -> Tensor:
    """The output of a copy that trains, and so keeps nothing."""
    return copy.deepcopy(layer).train()(*arguments, **options).detach()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kind of every step that samples its kernel."""
    made: list[str] = []

    def counted(sample: Callable[..., Tensor], kind: str) -> Callable[..., Tensor]:
        def count(*arguments: Any) -> Tensor:
            made.append(kind)
            return sample(*arguments)

        return count

    for step in Step.__subclasses__():
        monkeypatch.setattr(step, "sample", counted(step.sample, step.__name__))
    return made


@pytest.mark.parametrize("factorization", FACTORIZATIONS)
def test_at_evaluation_kernels_are_sampled_once_for_every_resolution(factorization: str, calls: list[str]) -> None:
    layer = group_conv(factorization).eval()
    x = signal(layer)
    calls.clear()
    with torch.no_grad():
        expected = fresh(layer, x), fresh(layer, x, spacing=0.5)
        calls.clear()
        for _ in range(3):
            assert torch.equal(layer(x), expected[0])
            assert torch.equal(layer(x, spacing=0.5), expected[1])
    assert len(calls) == 2 * len(layer.chain)


def test_training_and_gradients_keep_nothing(calls: list[str]) -> None:
    layer = group_conv()
    x = signal(layer)
    calls.clear()
    with torch.no_grad():
        layer.train()(x), layer(x)
    layer.eval()(x), layer(x)
    assert len(calls) == 4
    assert not layer.kept_taps.taps


CHANGES: dict[str, Callable[[GroupLayer], object]] = {
    "kernel": lambda layer: next(layer.steps.parameters()).detach().mul_(1.5),
    "support": lambda layer: next(layer.support.parameters()).detach().mul_(0.5),
    "gain": lambda layer: layer.gain.mul_(2),
    "bias": lambda layer: layer.get_parameter("bias").detach().add_(1),
    "reset": lambda layer: layer.reset_parameters(),
    "load": lambda layer: layer.load_state_dict(MAKERS["none"]().state_dict()),
    "dtype": lambda layer: layer.double().float(),
    "train": lambda layer: layer.train(),
    "data": lambda layer: ([p.data.mul_(1.1) for p in layer.parameters()], layer.refresh()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change: str) -> None:
    layer = group_conv().eval()
    x = signal(layer)
    with torch.no_grad():
        before = layer(x)
        CHANGES[change](layer)
        assert torch.equal(layer(x), fresh(layer, x))
        assert torch.equal(layer(x), before) == (change in ("dtype", "train"))


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=str)
def test_a_step_of_the_optimiser_is_noticed(options: dict[str, bool]) -> None:
    layer = group_conv("separable").eval()
    x, optimizer = signal(layer), torch.optim.AdamW(layer.parameters(), lr=0.1, **options)  # type: ignore[arg-type]
    for _ in range(2):
        with torch.no_grad():
            before = layer(x)
        layer(x).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert not torch.equal(layer(x), before)
            assert torch.equal(layer(x), fresh(layer, x))


def test_other_elements_are_noticed() -> None:
    layer = group_conv().eval()
    x = signal(layer)
    others = SO2().grid(4, offset=torch.tensor([0.3], dtype=F64))
    with torch.no_grad():
        for inputs, outputs in ((None, None), (others, None), (None, others), (others, others), (None, None)):
            assert torch.equal(layer(x, inputs, outputs), fresh(layer, x, inputs, outputs))
        expected = fresh(layer, x, others)
        layer(x, others)
        others.weights.mul_(2)
        assert not torch.equal(layer(x, others), expected)


@pytest.mark.parametrize("name", MAKERS)
def test_copies_compute_the_same(name: str) -> None:
    layer = MAKERS[name]().eval()
    x, names = signal(layer), list(layer.state_dict())
    with torch.no_grad():
        y = layer(x)
        assert list(layer.state_dict()) == names == list(layer.train().state_dict())
        layer.eval()
        loaded = MAKERS[name]().eval()
        assert not torch.equal(loaded(x), y)
        loaded.load_state_dict(layer.state_dict())
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
            assert torch.equal(twin(x), y)
        assert torch.equal(twin.train()(x), y)


@pytest.mark.parametrize("name", MAKERS)
def test_a_layer_may_change_its_dtype(name: str) -> None:
    layer = MAKERS[name]()
    x = signal(layer)
    y = layer(x).detach()
    double = layer.to(F64)
    assert {tensor.dtype for tensor in double.state_dict().values()} == {F64}
    assert double.samples.elements.dtype == F64
    assert double(x.double()).dtype == F64
    assert relative_error(y.double(), double(x.double()).detach()) < 1e-5


@pytest.mark.parametrize("name", MAKERS)
def test_autocast_and_half_precision_return_the_dtype_of_the_input(name: str) -> None:
    layer = MAKERS[name]()
    x = signal(layer)
    y = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.float32
        assert relative_error(layer(x), y) < 0.03
    half = layer.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert relative_error(half.float(), y) < 0.03


@pytest.mark.parametrize("name", MAKERS)
def test_meta_device_then_memory_then_initialisation(name: str) -> None:
    layer = MAKERS[name](device="meta")
    assert all(tensor.is_meta for tensor in layer.state_dict().values())
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert layer.samples.elements.device.type == "cpu"
    assert 0.3 < layer(signal(layer, batch=64)).var().item() < 3
    with torch.device("meta"):
        assert MAKERS[name]().gain.is_meta


def test_a_group_convolution_on_the_meta_device_tells_its_shape() -> None:
    layer = group_conv(device="meta")
    assert layer(torch.empty(7, 2, 4, 6, 5, device="meta")).shape == (7, 3, 4, 6, 5)


def test_same_seed_same_layer() -> None:
    layers = []
    for _ in range(2):
        torch.manual_seed(3)
        layers.append(group_conv("separable").state_dict())
    for a, b in zip(layers[0].values(), layers[1].values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", MAKERS)
def test_compiled_equals_eager(name: str) -> None:
    torch._dynamo.reset()
    layer = MAKERS[name](dtype=F64)
    x = signal(layer, F64).requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), layer(x), tolerance=1e-12)
    leaves = [x, *layer.parameters()]
    expected = torch.autograd.grad(layer(x).square().sum(), leaves)
    for gradient, right in zip(torch.autograd.grad(compiled(x).square().sum(), leaves), expected, strict=True):
        assert_close(gradient, right, tolerance=1e-12)
    layer.eval()
    with torch.no_grad():
        assert_close(compiled(x), layer(x), tolerance=1e-12)


class Chain(nn.Module):
    """From an image to an image, by way of a group."""

    def __init__(self, group: Group, count: Count, factorization: str) -> None:
        super().__init__()
        self.lift = LiftingConv(2, 2, 5, group, count, kernel=small, reach=2)
        self.conv = group_conv(factorization, group, count)
        self.project = GroupProject()

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.conv(torch.relu(self.lift(x))))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("factorization", ["none", "depthwise-group-separable"])
def test_exported_equals_eager(factorization: str, strict: bool) -> None:
    chain, x = Chain(O2(), 4, factorization).eval(), torch.randn(2, 2, 5, 5)
    with torch.no_grad():
        expected = chain(x)  # and keeps its taps
        exported = torch.export.export(chain, (x,), strict=strict)
        torch.testing.assert_close(exported.module()(x), expected)
        other = torch.randn(2, 2, 5, 5)
        torch.testing.assert_close(exported.module()(other), chain(other))


def test_transforms_of_functions_see_through_what_is_kept() -> None:
    layer = group_conv().eval()
    x = signal(layer)
    with torch.no_grad():
        y = layer(x)
        batched = torch.func.vmap(lambda one: layer(one[None])[0])(x)
        torch.testing.assert_close(batched, y)
        others = {name: 1.5 * value for name, value in layer.named_parameters()}
        moved = torch.func.functional_call(layer, others, (x,))
        assert not torch.allclose(moved, y)
        assert torch.equal(layer(x), y)


def test_signals_may_be_longer_than_the_reference_grid() -> None:
    layer = group_conv(dtype=F64)
    x = torch.randn(1, 2, 4, 12, 9, dtype=F64)
    y = layer(x)
    assert_close(y[..., :5, :4], layer(x[..., :7, :6])[..., :5, :4])


def test_a_kernel_beyond_its_reach_is_zero() -> None:
    """A unit impulse reaches as far as the ball of the kernel, at every scale and pose."""
    layer = LiftingConv(1, 1, 17, Scaling(2, high=4.0), 2, kernel=small, reach=3, bias=False, dtype=F64)
    x = torch.zeros(1, 1, 17, 17, dtype=F64)
    x[..., 8, 8] = 1
    y = layer(x)[0, 0]
    line = torch.arange(17) - 8
    far = torch.stack(torch.meshgrid(line, line, indexing="ij")).abs().amax(0)
    for scale, response in zip((1, 2), y, strict=True):
        assert response[far > 3 * scale].abs().max() < 1e-15
        assert response[far == 3 * scale - 1].abs().max() > 1e-6


def test_reach_zero_and_one_sample() -> None:
    for factorization in FACTORIZATIONS:
        layer = GroupConv(2, 3, 1, SO2(), 4, kernel=Table, factorization=factorization)
        assert layer.reach == 0
        assert layer(torch.randn(2, 2, 4, 1, 1)).shape == (2, 3, 4, 1, 1)


def test_repr_tells_what_a_layer_is() -> None:
    text = repr(GroupConv(2, 3, 5, SO2(), 4, factorization="separable"))
    for part in ("2, 3, size=(5, 5)", "group=SO2()", "samples=4", "factorization='separable'", "SIREN", "Disk"):
        assert part in text
    assert "mixing='separable'" in repr(MAKERS["lifting-separable"]())
    assert repr(GroupProject("mean")) == "GroupProject('mean')"


def mistyped(value: Any) -> Any:
    """A value of a wrong type, past the type checker."""
    return value


def lift(**options: Any) -> LiftingConv:
    return LiftingConv(*(options.pop("sizes", (2, 3, 5))), **{"group": SO2(), "samples": 4, "reach": 2, **options})


BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: lift(group="so2"), TypeError, "`group` must be an omniconv.groups.Group.*got str 'so2'"),
    (lambda: lift(group=SO2), TypeError, "`group` must be an omniconv.groups.Group"),
    (lambda: lift(sizes=(2, 3, (5, 5, 5))), ValueError, r"`group` must act on the 3 axes .*SO2\(\) acts on 2"),
    (lambda: lift(sizes=(2, 3, (5,))), ValueError, "`group` must act on the 1 axes"),
    (lambda: lift(sizes=(0, 3, 5)), ValueError, "`in_channels` must be at least 1; got 0"),
    (lambda: lift(sizes=(2, mistyped(1.5), 5)), TypeError, "`out_channels` must be an integer"),
    (lambda: lift(sizes=(2, 3, 0)), ValueError, "`size` must be at least 1"),
    (lambda: lift(group=Cyclic(4), samples=5), ValueError, r"must be 4, the number of elements of Cyclic\(order=4\)"),
    (lambda: lift(samples=None), ValueError, r"must be given for SO2\(\), which is infinite"),
    (lambda: lift(mixing="depthwise"), ValueError, "`mixing` must be one of 'dense', 'separable'; got 'depthwise'"),
    (lambda: lift(reach=-1), ValueError, "`reach` must be at least 0; got -1"),
    (lambda: lift(reach=(1, 2)), TypeError, "`reach` must be an integer"),
    (lambda: lift(boundary="reflect"), ValueError, "`boundary` must be one of 'zero', 'circular'"),
    (lambda: lift(engine="cuda"), ValueError, "`engine` must be one of 'auto'"),
    (lambda: lift(kernel="siren"), TypeError, "`kernel` must be a Kernel class"),
    (lambda: lift(support=Gabor), TypeError, "`support` must be a Support class"),
    (lambda: group_conv("joint"), ValueError, "`factorization` must be one of 'none', .*; got 'joint'"),
    (lambda: GroupProject("sum"), ValueError, "`reduce` must be one of 'max', 'mean'; got 'sum'"),
    (lambda: lift()(torch.randn(1, 3, 5, 5)), ValueError, r"`x` must be \(batch, 2, size_0, size_1\); got a float32 t"),
    (lambda: lift()(torch.randn(1, 2, 4, 5, 5)), ValueError, "`x` must be"),
    (lambda: lift()(mistyped([1.0])), TypeError, "`x` must be a torch.Tensor"),
    (lambda: lift()(torch.ones(1, 2, 5, 5, dtype=torch.int)), TypeError, "`x` must hold floating-point numbers"),
    (lambda: lift()(torch.ones(1, 2, 5, 5, dtype=F64)), TypeError, "`x` must have the dtype of the layer, torch.float"),
    (lambda: lift()(torch.ones(1, 2, 5, 5, device="meta")), ValueError, "`x` must be on the device of the layer, cpu"),
    (
        lambda: lift()(torch.ones(1, 2, 5, 5), O2().grid(4)),
        TypeError,
        r"`outputs` must be omniconv.groups.Samples of SO2\(\)",
    ),
    (lambda: lift()(torch.ones(1, 2, 5, 5), mistyped(8)), TypeError, "`outputs` must be .*Samples.* got int 8"),
    (lambda: lift()(torch.ones(1, 2, 5, 5), spacing=-1.0), ValueError, "`spacing` must be finite and above 0"),
    (lambda: lift()(torch.ones(1, 2, 5, 5), spacing=(1.0,) * 3), ValueError, "`spacing` must be one value or 2"),
    (lambda: group_conv()(torch.randn(1, 3, 4, 5, 5)), ValueError, r"`x` must be \(batch, 2, 4, size_0, size_1\)"),
    (lambda: group_conv()(torch.randn(1, 2, 8, 5, 5)), ValueError, r"`x` must be \(batch, 2, 4, .*\(1, 2, 8, 5, 5\)"),
    (lambda: group_conv()(torch.randn(1, 2, 5, 5)), ValueError, "`x` must be"),
    (
        lambda: group_conv()(torch.randn(1, 2, 4, 5, 5), SO2().grid(8)),
        ValueError,
        r"`x` must be \(batch, 2, 8, size_0, size_1\)",
    ),
    (
        lambda: group_conv()(torch.randn(1, 2, 4, 5, 5), O2().grid(4)),
        TypeError,
        r"`inputs` must be omniconv.groups.Samples of SO2\(\)",
    ),
    (
        lambda: group_conv()(torch.randn(1, 2, 4, 5, 5), outputs=SO2().grid(4).elements),
        TypeError,
        "`outputs` must be .*got a float64 tensor",
    ),
    (lambda: group_conv()(torch.ones(1, 2, 4, 5, 5).long()), TypeError, "`x` must hold floating-point numbers"),
    (lambda: group_conv()(torch.ones(1, 2, 4, 5, 5).double()), TypeError, "`x` must have the dtype of the layer"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_input_is_named(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_taps_without_energy_say_so() -> None:
    class Silent(Table):
        def reset_parameters(self) -> None:
            nn.init.zeros_(self.taps)

    for factorization in FACTORIZATIONS:
        with pytest.raises(ValueError, match="`kernel` and `support` must make taps of finite, positive energy"):
            group_conv(factorization, kernel=Silent)


def test_samples_that_weigh_nothing_are_not_seen() -> None:
    layer = group_conv(dtype=F64)
    weights = torch.tensor([0.5, 0.0, 0.5, 0.0], dtype=F64)
    inputs = Samples(layer.samples.elements, weights)
    x = signal(layer, F64)
    y = layer(x, inputs)
    x[:, :, 1::2] = torch.randn(2, 2, 2, 5, 5, dtype=F64)
    assert torch.equal(layer(x, inputs), y)
