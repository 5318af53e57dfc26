"""What went wrong once in layers on groups: random choices, logarithms of nothing, caches, contexts, exports."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save
from torch import nn

from omniconv.groups import O2, SO2, SO3, Cyclic, Scaling
from omniconv.kernels import SIREN
from omniconv.models import GCNN, GroupSelfAttentionNet
from omniconv.nn import (
    GroupBasicBlock,
    GroupConv,
    GroupProject,
    GroupResidualBlock,
    GroupSelfAttention,
    LayerNorm,
    LiftingConv,
    LiftingSelfAttention,
    NonStationaryConv,
    Partial,
    Pointwise,
    refresh,
)
from omniconv.testing import assert_close

F64 = torch.float64


def test_a_kernel_of_many_coordinates_is_calibrated_on_few_positions() -> None:
    kernel = SIREN(24, 2, reach=1)
    positions = kernel.reference_positions()
    assert positions.shape == (4096, 24)
    assert positions.mean(0).abs().max() < 1e-12
    assert positions.abs().max() <= 1
    assert 0.9 < kernel(positions.float()).square().mean().item() < 1.1


@pytest.mark.parametrize("group", [Cyclic(4), O2()])
def test_independent_draws_of_a_part_have_weights(group: Cyclic | O2) -> None:
    layer = GroupConv(1, 1, 5, group, 4, reach=1, partial=True, sampling="independent")
    nn.init.constant_(layer.get_parameter("partial.choice"), -10.0)
    for _ in range(50):
        weights = layer.draw().weights
        assert weights.isfinite().all()
        assert abs(weights.sum().item() - 1) < 1e-9


def test_self_attention_among_dropped_elements_has_finite_gradients() -> None:
    part = Partial(O2(), 4)
    nn.init.constant_(part.choice, -10.0)
    x = torch.randn(1, 2, 4, 5, 5, requires_grad=True)
    y = GroupSelfAttention(2, 4, 5, O2(), 4, heads=2)(x, part(O2().grid(4)))
    for slope in torch.autograd.grad(y.square().sum(), [x, part.choice], materialize_grads=True):
        assert slope.isfinite().all()


@pytest.mark.parametrize("grad", [True, False])
def test_layers_take_an_empty_batch(grad: bool) -> None:
    x = torch.randn(0, 2, 5, 4, requires_grad=grad)
    for lift, layer in (
        (LiftingSelfAttention(2, 4, (5, 4), SO2(), 4), GroupSelfAttention(4, 8, (5, 4), SO2(), 4)),
        (LiftingConv(2, 4, (5, 4), SO2(), 4), GroupConv(4, 8, (5, 4), SO2(), 4)),
    ):
        y = layer(lift(x))
        assert y.shape == (0, 8, 4, 5, 4)
        if grad:
            assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape
    model = GroupSelfAttentionNet(2, 3, (5, 4), group=SO2(), samples=4, widths=(4, 8)).eval()
    assert model(x).shape == (0, 3)


def test_a_maximum_does_not_feel_the_weights_of_a_width() -> None:
    part = Partial(SO3(), 24, begin=0.6, dtype=F64)
    y = GroupProject("max")(torch.randn(1, 2, 24, 3, 3, 3, dtype=F64), part(SO3().grid(24)))
    (slope,) = torch.autograd.grad(y.sum(), part.width, allow_unused=True, materialize_grads=True)
    assert (slope == 0).all()


def test_a_fixed_grid_of_a_part_is_even_about_the_identity() -> None:
    layer = GroupConv(1, 1, 5, SO2(), 4, reach=1, partial=0.5, dtype=F64).eval()
    found = layer.draw()
    assert abs((found.weights * found.elements[:, 0]).sum().item()) < 1e-12


def test_modulations_are_made_anew_after_refresh() -> None:
    layer = GroupConv(1, 1, 5, SO2(), 4, reach=1, relaxed=1).eval()
    x = torch.randn(1, 1, 4, 5, 5)
    with torch.no_grad():
        before = layer(x)
        layer.get_parameter("relaxation.modulation.amount").data.fill_(5.0)
        refresh(layer)
        assert not torch.allclose(layer(x), before)


def test_layers_can_be_made_within_the_meta_device() -> None:
    with torch.device("meta"):
        layers = [LiftingConv(1, 2, 5, SO2(), 4, reach=1), GroupConv(2, 2, 5, SO2(), 4, reach=1, partial=True)]
    x = torch.randn(1, 1, 5, 5)
    for layer in layers:
        layer.to_empty(device="cpu")
        layer.reset_parameters()
        x = layer(x)
    assert x.isfinite().all()


@pytest.mark.parametrize("options", [{"attention": True}, {"partial": True}, {"relaxed": 1}])
def test_networks_are_exported_for_any_batch(options: dict[str, bool]) -> None:
    model = GCNN(1, 2, 8, group=SO2(), samples=4, widths=(3,), reach=1, **options).eval()  # type: ignore[arg-type]
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (torch.randn(3, 1, 8, 8),), dynamic_shapes=({0: batch},))
    x = torch.randn(7, 1, 8, 8)
    torch.testing.assert_close(exported.module()(x), model(x))


def test_a_faithful_layer_is_saved_with_each_tensor_once() -> None:
    assert save(NonStationaryConv(1, 1, 5, Cyclic(4), reach=1).state_dict())


def test_a_kernel_without_a_reach_keeps_its_size_at_any_scale_and_spacing() -> None:
    layer = LiftingConv(1, 1, 8, Scaling(1, high=4.0), 2, reach=0, bias=False, dtype=F64)
    x = torch.randn(1, 1, 8, dtype=F64)
    y = layer(x)
    assert_close(y[:, :, 1], y[:, :, 0])
    assert_close(layer(x, spacing=0.5), y)


def test_the_window_is_that_of_the_elements() -> None:
    layer = GroupConv(1, 1, 9, Scaling(2, high=8.0), 2, reach=2, relaxed=1)
    window = layer._window(layer.samples)
    assert window < layer._window(Scaling(2, high=8.0).draw(8, generator=torch.Generator().manual_seed(0)))
    assert layer.relaxation is not None
    assert layer.relaxation.branch._window(layer.samples) == window


def test_blocks_say_what_does_not_fit() -> None:
    def conv(channels: int, partial: bool = False) -> GroupConv:
        return GroupConv(channels, 3, 5, SO2(), 4, reach=1, partial=partial)

    norm = LayerNorm(3)
    with pytest.raises(ValueError, match="`conv_2` must take the 3 channels"):
        GroupBasicBlock(conv(3), norm, conv(2), norm)
    with pytest.raises(ValueError, match="`shortcut` must be a GroupConv of reach 0"):
        GroupBasicBlock(conv(3), norm, conv(3, partial=True), norm)
    with pytest.raises(ValueError, match="`conv` must keep"):
        GroupResidualBlock(norm, conv(2), Pointwise(3, 3))


def test_bad_samples_are_named() -> None:
    layer = GroupSelfAttention(2, 4, 5, SO2(), 4)
    with pytest.raises(TypeError, match=r"`inputs` must be omniconv\.groups\.Samples"):
        layer(torch.zeros(1, 2, 4, 5, 5), "all")
    with pytest.raises(TypeError, match="`group` must be"):
        Partial("SO2", 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`samples`"):
        Partial(SO2())
    with pytest.raises(TypeError, match=r"`samples` must be omniconv\.groups\.Samples"):
        Partial(SO2(), 4)("all")


def test_a_block_that_adds_x_itself_ends_at_its_elements() -> None:
    convs = [GroupConv(3, 3, 5, SO2(), 4, reach=1, sampling="offset") for _ in range(2)]
    block = GroupBasicBlock(convs[0], LayerNorm(3), convs[1], LayerNorm(3))
    at = convs[0].draw()
    assert block.draw(at) is at
    shortcut = GroupConv(3, 3, 5, SO2(), 4, reach=0)
    assert GroupBasicBlock(convs[0], LayerNorm(3), convs[1], LayerNorm(3), shortcut).draw(at) is not at
