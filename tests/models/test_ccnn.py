"""CCNN: the published sizes, one class for all dimensions, resolution, compilation."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import omniconv as oc
from omniconv import CCNN, Conv, Gabor
from omniconv.training import accuracy

PUBLISHED = [
    # in, out, size, 4 blocks of 140, 6 blocks of 380: counts of the published networks, methods' definitions alike
    (1, 10, (784,), 198_769, 1_993_091),  # sequential MNIST
    (3, 10, (1024,), 199_117, 1_993_983),  # sequential CIFAR-10
    (20, 10, (161,), 202_075, 2_001_565),  # speech commands, MFCC
    (3, 10, (32, 32), 201_042, 1_999_366),  # CIFAR-10
    (3, 100, (32, 32), 213_732, 2_033_656),  # CIFAR-100
]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("in_channels", "out_features", "size", "small", "large"), PUBLISHED)
def test_presets_have_the_published_numbers_of_parameters(
    in_channels: int, out_features: int, size: tuple[int, ...], small: int, large: int
) -> None:
    for name, expected in (("ccnn_4_140", small), ("ccnn_6_380", large)):
        model = oc.create_model(
            name, in_channels=in_channels, out_features=out_features, size=size, causal=len(size) == 1, device="meta"
        )
        assert parameters(model) == expected


def test_presets_start_from_the_published_supports() -> None:
    # 0.075 on positions in [-1, 1]: half of that where the causal window has length 1.
    sequence = oc.create_model("ccnn_4_140", in_channels=1, out_features=10, size=784, causal=True)
    image = oc.create_model("ccnn_4_140", in_channels=1, out_features=10, size=(32, 32))
    for model, width in ((sequence, 0.0375), (image, 0.075)):
        for layer in model.modules():
            if isinstance(layer, oc.Gaussian):
                torch.testing.assert_close(layer.width, torch.full_like(layer.width, width))


@pytest.mark.parametrize("size", [(40,), (9, 7), (5, 6, 4)])
@pytest.mark.parametrize(("head", "dense"), [("pool", False), ("last", False), ("dense", True)])
def test_the_number_of_axes_comes_from_the_size_alone(size: tuple[int, ...], head: str, dense: bool) -> None:
    model = CCNN(2, 3, size, blocks=1, width=4, head=head)
    assert model(torch.randn(2, 2, *size)).shape == (2, 3, *(size if dense else ()))
    assert model.eval()(torch.randn(1, 2, *(n + 3 for n in size))).shape[:2] == (1, 3)


def test_causal_networks_do_not_see_the_future() -> None:
    model = CCNN(1, 2, 21, blocks=2, width=6, causal=True, head="dense", dtype=torch.float64).eval()
    x = torch.randn(1, 1, 21, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(model, x)[0, :, :, 0, 0]
    assert jacobian[:, torch.triu(torch.ones(21, 21, dtype=torch.bool), 1)].abs().max().item() <= 1e-13
    last = CCNN(1, 2, 21, blocks=1, width=6, causal=True, head="last", dtype=torch.float64).eval()
    assert torch.autograd.functional.jacobian(last, x)[..., 0].abs().max().item() > 0  # the first sample counts


def test_a_model_at_another_resolution_shares_everything_and_agrees() -> None:
    model = CCNN(1, 3, 63, blocks=2, width=6, head="dense", dtype=torch.float64).eval()

    def signal(n: int) -> torch.Tensor:
        t = torch.linspace(0, 1, n, dtype=torch.float64)
        return (torch.sin(6 * torch.pi * t) * torch.sin(torch.pi * t) ** 2)[None, None]

    fine = model.at_resolution(2.0)
    assert fine.spacing == (0.5,)
    assert all(a is b for a, b in zip(fine.parameters(), model.parameters(), strict=True))
    reference, y = model(signal(63)), fine(signal(125))
    torch.testing.assert_close(model(signal(125), spacing=0.5), y)
    assert ((y[..., ::2] - reference).norm() / reference.norm()).item() < 0.05
    assert ((model(signal(125))[..., ::2] - reference).norm() / reference.norm()).item() > 0.2
    torch.testing.assert_close(fine.at_resolution(0.5)(signal(63)), reference)


def test_a_coarser_resolution_names_the_layers_that_cannot_follow() -> None:
    model = CCNN(1, 2, (8, 8), blocks=1, width=4, kernel=Gabor)
    with pytest.warns(UserWarning, match="the kernel holds frequencies") as record:
        model.at_resolution(0.5)
    messages = [str(warning.message).split(": the kernel holds frequencies") for warning in record]
    assert {message[0] for message in messages} == {"stem", "blocks.0.conv"}
    assert all(len(message) == 2 for message in messages)


def test_compiled_equals_eager_and_adapts_to_new_lengths() -> None:
    torch._dynamo.reset()
    model = CCNN(1, 4, 64, blocks=2, width=8, causal=True).eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for length in (64, 50, 33, 128, 97):
        x = torch.randn(2, 1, length)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    assert counter.frame_count <= 3  # the first, and at most two recompilations


def test_compiled_training_step_equals_eager() -> None:
    torch._dynamo.reset()
    model = CCNN(1, 4, (8, 8), blocks=1, width=8).double()  # in float32 a gradient that is zero is all rounding
    twin = copy.deepcopy(model)
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    model(x).square().sum().backward()
    torch.compile(twin, fullgraph=True, backend="aot_eager")(x).square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert a.grad is not None, name
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-8, atol=1e-10)


def test_new_parameters_are_those_of_a_new_model() -> None:
    torch.manual_seed(5)
    fresh = CCNN(2, 4, 16, blocks=2, width=6)
    torch.manual_seed(5)
    model = CCNN(2, 4, 16, blocks=2, width=6, device="meta").to_empty(device="cpu")
    model.reset_parameters()
    for layer in model.modules():
        if isinstance(layer, Conv):
            with torch.no_grad():
                noise = torch.randn(512, layer.in_channels, 16)
                assert 0.8 < layer(noise).var().item() < 1.2
    assert fresh.state_dict().keys() == model.state_dict().keys()


def test_evaluating_a_view_leaves_the_model_in_its_mode() -> None:
    model = CCNN(1, 2, (8, 8), blocks=1, width=4)
    view = model.at_resolution(2.0)
    model.eval()
    accuracy(view, torch.randn(3, 1, 16, 16), torch.tensor([0, 1, 0]))
    assert not any(module.training for module in model.modules())
    model.train()
    accuracy(view, torch.randn(3, 1, 16, 16), torch.tensor([0, 1, 0]))
    assert all(module.training for module in model.modules())


def test_evaluation_is_pure() -> None:
    model = CCNN(1, 4, 64, blocks=2, width=8, causal=True).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    long, short = torch.randn(2, 1, 200), torch.randn(2, 1, 31)
    first = model(long), model(short)
    model(short, spacing=0.5)
    assert torch.equal(model(long), first[0])
    assert torch.equal(model(short), first[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_copies_compute_the_same() -> None:
    model = CCNN(1, 4, (8, 8), blocks=1, width=8).eval()
    x = torch.randn(2, 1, 8, 8)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
    other = CCNN(1, 4, (8, 8), blocks=1, width=8).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


def test_meta_device_and_new_parameters() -> None:
    model = CCNN(1, 4, (8, 8), blocks=1, width=8, device="meta").to_empty(device="cpu")
    model.reset_parameters()
    y = model(torch.randn(16, 1, 8, 8))
    assert bool(y.isfinite().all())
    assert 0.01 < y.std().item() < 10
    assert all(bool(buffer.isfinite().all()) for buffer in model.buffers())


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16(autocast: bool) -> None:
    model = CCNN(1, 4, 32, blocks=1, width=8).eval()
    x = torch.randn(8, 1, 32)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        low = model(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert ((low.float() - exact).norm() / exact.norm()).item() < 0.05
    assert copy.deepcopy(model).bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_every_layer_of_a_new_network_keeps_the_variance() -> None:
    model = CCNN(4, 10, (16, 16), blocks=2, width=32)
    ratios: list[float] = []

    def record(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(layer, Conv)
        noise = torch.randn(32, layer.in_channels, 16, 16)
        ratios.append(layer.forward(noise).var().item())

    for layer in model.modules():
        if isinstance(layer, Conv):
            layer.register_forward_hook(record)
    with torch.no_grad():
        model(torch.randn(8, 4, 16, 16))
    assert len(ratios) == 3
    assert all(0.8 < ratio < 1.2 for ratio in ratios)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CCNN(1, 0, 8), ValueError, "`out_features` must be at least 1; got 0"),
        (lambda: CCNN(1, 2, 8, blocks=0), ValueError, "`blocks` must be at least 1; got 0"),
        (lambda: CCNN(1, 2, 8, head="mean"), ValueError, "`head` must be one of 'pool', 'last', 'dense'; got 'mean'"),
        (lambda: CCNN(1, 2, 8, dropout=1.0), ValueError, "`dropout` must be a probability below 1; got 1.0"),
        (lambda: CCNN(1, 2, 8, dropout=-0.1), ValueError, "`dropout` must be finite and at least 0; got -0.1"),
        (lambda: CCNN(1, 2, 8, mixing="depthwise"), ValueError, "`mixing` must be one of 'dense', 'separable'"),
        (
            lambda: CCNN(1, 2, 8, width=4)(torch.randn(1, 8)),
            ValueError,
            r"`x` must be \(batch, 1, \*size\) with 1 axes",
        ),
        (
            lambda: CCNN(1, 2, 8, width=4)(torch.randn(1, 2, 8)),
            ValueError,
            r"`x` must be \(batch, 1, \*size\) with 1 axes",
        ),
        (lambda: CCNN(1, 2, 8, width=4).at_resolution(0.0), ValueError, "`factor` must be finite and above 0; got 0.0"),
        (lambda: oc.create_model("ccnn_4_141"), ValueError, "got 'ccnn_4_141'. Did you mean 'ccnn_4_140'"),
        (lambda: oc.create_model("ccnn_4_140", chanels=1), TypeError, "chanels"),
    ],
)
def test_bad_input_is_named(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


def test_registry_lists_by_pattern() -> None:
    assert {"ccnn_4_140", "ccnn_6_380"} <= set(oc.list_models())
    assert oc.list_models("ccnn_?_??0") == ["ccnn_4_140", "ccnn_6_380"]
    assert oc.list_models("flex*_[3-7]") == ["flexnet_3", "flexnet_5", "flexnet_7", "flextcn_4", "flextcn_6"]


@pytest.mark.parametrize(("size", "causal", "spread"), [(784, True, 0.0625), ((32, 32), False, 0.125)])
def test_presets_draw_their_filters_from_the_published_interval(size: object, causal: bool, spread: float) -> None:
    """5/3 widths of the support, 0.125 on positions in [-1, 1]: half of that where the causal window has length 1."""
    model = oc.create_model("ccnn_4_140", in_channels=1, out_features=10, size=size, causal=causal)
    for layer in model.modules():
        if isinstance(layer, Gabor):
            assert 0.95 * spread < layer.centre.max().item() <= spread
            assert layer.centre.min().item() == pytest.approx(0.0 if causal else -spread, abs=0.05 * spread)
