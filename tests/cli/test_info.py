"""`omniconv info` of every network that can be saved."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from omniconv import models
from omniconv.cli import main
from omniconv.groups import SO2
from omniconv.models import GCNN, GriddedNet, Network, PointNet, PointNet2
from tests.cases import LAYERS, layer_and_input

NETWORKS: dict[str, Callable[[], Network]] = {
    "gcnn-relaxed": partial(GCNN, 1, 2, 6, group=SO2(), samples=4, widths=(3,), reach=1, relaxed=1, attention=True),
    "gridded": partial(GriddedNet, 1, 2, 3, dim=2, width=4, blocks=1),
    "pointnet": partial(PointNet, 3, 2, widths=(4, 5), hidden=(3,)),
    "pointnet2": partial(
        PointNet2, 1, 2, centres=(4,), radii=(0.5,), neighbours=(2,), widths=((4,), (5,)), hidden=(3,)
    ),
}
"""Beside those of `tests.cases`."""


def made(name: str) -> object:
    """A network, or another layer of the cases."""
    return NETWORKS[name]() if name in NETWORKS else layer_and_input(name)[0]


NAMES = [*NETWORKS, *(name for name in LAYERS if isinstance(made(name), Network))]


def info(network: object, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints of the saved network, without lines, with single spaces."""
    assert isinstance(network, Network)
    network.save_pretrained(folder)
    monkeypatch.setattr(sys, "argv", ["omniconv", "info", str(folder)])
    monkeypatch.setenv("COLUMNS", "400")
    main()
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = made(name)
    told = info(network, tmp_path, monkeypatch, capsys)
    assert type(network).__name__ in told
    assert "parameters" in told
    assert ("kernel" in told) == (not isinstance(network, (PointNet, PointNet2)))


def test_no_class_of_network_is_left_out() -> None:
    public = [getattr(models, name) for name in models.__all__]
    known = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Network) and kind is not Network}
    assert {type(made(name)) for name in NAMES} == known


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "gcnn-relaxed",
            [
                "group SO2(), 4 samples",
                "kernel SIREN",
                "support Disk",
                "reach per layer (1, 1), (1, 1), (1, 1), (0, 0), ",
            ],
        ),
        ("group-self-attention-net", ["group SO2(), 4 samples", "kernel Gabor", "reach per layer (1, 1), (1, 1)"]),
        ("wavelet-net", ["group Scaling(dim=1, high=4.0), 2 samples", "support Gaussian"]),
        ("pointnet", ["3 channel(s), points on 3 axes", "widths"]),
        ("ccnn-2d", ["1 channel(s), reference grid (3, 4)", "blocks 1 of width 2", "causal (False, False)"]),
        ("multi-hyena", ["blocks 1 "]),
    ],
)
def test_rows_are_those_that_the_network_has(
    name: str, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = info(made(name), tmp_path, monkeypatch, capsys)
    for words in told:
        assert words in found, found
    if name == "pointnet":
        assert "reach" not in found
        assert "support" not in found
    assert "None" not in found
    assert "task" not in found
