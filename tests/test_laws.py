"""The laws that kernels, supports, engines and layers inherit, over all of them."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import omniconv.engines
import omniconv.groups
import omniconv.kernels
import omniconv.models
import omniconv.nn
import omniconv.supports
from omniconv.groups import Group
from omniconv.kernels import Kernel
from omniconv.supports import Support
from omniconv.testing import (
    check_bad_signals,
    check_engine,
    check_group,
    check_kernel,
    check_layer,
    check_support,
)
from tests.cases import ENGINES, GROUPS, KERNELS, LAYERS, SUPPORTS, TAKES, layer_and_input


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_obeys_the_laws(name: str) -> None:
    check_kernel(KERNELS[name])


@pytest.mark.parametrize("name", SUPPORTS)
def test_support_obeys_the_laws(name: str) -> None:
    check_support(SUPPORTS[name])


@pytest.mark.parametrize("name", ENGINES)
def test_engine_obeys_the_laws(name: str) -> None:
    check_engine(ENGINES[name])


@pytest.mark.parametrize("name", LAYERS)
def test_layer_obeys_the_laws(name: str) -> None:
    check_layer(*layer_and_input(name))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_refuses_what_is_no_signal(name: str) -> None:
    check_bad_signals(*layer_and_input(name), TAKES.get(name, ()))


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("seed", [0, 1])
def test_group_obeys_the_laws(name: str, seed: int) -> None:
    check_group(GROUPS[name], seed=seed)


# A function of samples of a group, some of signals and positions, and one that returns several things: they have these
# laws in tests of their own.
APART = {
    omniconv.nn.Partial,
    omniconv.nn.PointConv,
    omniconv.nn.Gridify,
    omniconv.nn.Degridify,
    omniconv.models.GriddedNet,
    omniconv.models.PointNN,
    omniconv.models.PointNet,
    omniconv.models.PointNet2,
    omniconv.models.PoseAutoencoder,
}


def public_classes(module: object, base: type) -> set[type]:
    """Concrete classes of that kind which a folder exports."""
    members = (getattr(module, name) for name in module.__all__)  # type: ignore[attr-defined]
    return {m for m in members if inspect.isclass(m) and issubclass(m, base) and not inspect.isabstract(m)}


@pytest.mark.parametrize(
    ("module", "base", "made"),
    [
        (omniconv.kernels, Kernel, lambda: {type(make(1, 1, reach=8, causal=False)) for make in KERNELS.values()}),
        (omniconv.groups, Group, lambda: {type(group) for group in GROUPS.values()}),
        (omniconv.supports, Support, lambda: {type(make(1, reach=8, causal=False)) for make in SUPPORTS.values()}),
        (omniconv.nn, nn.Module, lambda: {type(layer_and_input(name)[0]) for name in LAYERS}),
        (omniconv.models, nn.Module, lambda: {type(layer_and_input(name)[0]) for name in LAYERS}),
    ],
    ids=["kernels", "groups", "supports", "nn", "models"],
)
def test_every_public_class_is_among_the_cases(module: object, base: type, made: object) -> None:
    missing = public_classes(module, base) - made() - APART  # type: ignore[operator]
    assert not missing, f"add {sorted(cls.__name__ for cls in missing)} to tests/cases.py"


def test_every_engine_file_is_registered() -> None:
    folder = omniconv.engines.__path__[0]
    found = {
        module
        for module in dir(omniconv.engines)
        if isinstance(getattr(getattr(omniconv.engines, module), module.upper(), None), omniconv.engines.Engine)
    }
    assert found == set(ENGINES), f"engines in {folder} and in ENGINES differ"


def test_float64_is_not_the_default() -> None:
    assert torch.get_default_dtype() == torch.float32
