"""ONNX files answer as the network does, at sizes it was not traced at, or are not written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from omniconv.export import onnx, to_onnx
from omniconv.export._plain import AnyDownsample
from omniconv.groups import SO2
from omniconv.models import CCNN, GCNN, Hyena, Network
from omniconv.nn import Downsample
from omniconv.testing import assert_close

MODELS: dict[str, tuple[Callable[[], Network], tuple[int, ...]]] = {
    "series": (lambda: CCNN(2, 3, 24, blocks=1, width=4, causal=True), (3, 2, 70)),
    "images": (
        lambda: CCNN(1, 3, (7, 8), blocks=1, width=4, boundary=("circular", "zero"), mixing="dense", head="dense"),
        (1, 1, 2, 20),
    ),
    "symmetry": (lambda: GCNN(1, 3, 9, group=SO2(), samples=4, widths=(3, 4), reach=1, reduce="mean"), (2, 1, 8, 13)),
}


def ready(model: Network) -> Network:
    """In evaluation mode, with statistics and biases that are not those of a new network."""
    torch.manual_seed(0)
    model.standardize.set([0.5] * model.in_channels, [2.0] * model.in_channels)
    model(torch.randn(4, model.in_channels, *model.grid.size))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model.eval()


def answer(file: Path, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.numpy()})
    return torch.from_numpy(np.asarray(y))


@pytest.mark.parametrize("name", MODELS)
def test_a_file_answers_at_any_size(name: str, tmp_path: Path) -> None:
    make, shape = MODELS[name]
    model, file = ready(make()), tmp_path / "model.onnx"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    to_onnx(model, file, metadata={"task": "words"})
    x = torch.randn(shape)
    with torch.no_grad():
        assert_close(answer(file, x), model(x), tolerance=1e-5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["task"] == "words"
    assert list(tmp_path.iterdir()) == [file]


def test_a_view_of_a_language_model(tmp_path: Path) -> None:
    """Tokens go in as ids; the taps are those of the view's resolution, from float64."""
    model = Hyena(8, 11, 16, blocks=1, width=8, tokens=11, tied=True, head="dense", dtype=torch.float64)
    view, file = model.eval().at_resolution(2.0), tmp_path / "model.onnx"
    to_onnx(view, file)
    ids = torch.randint(11, (2, 9))
    with torch.no_grad():
        assert_close(answer(file, ids).double(), view(ids), tolerance=1e-5)


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window of `Downsample` depends on the parity of the size, and a trace would hold to that of the example."""
    monkeypatch.setattr(onnx, "AnyDownsample", lambda layer: layer)
    make, _ = MODELS["symmetry"]
    with pytest.raises((ArithmeticError, ValueError), match=r"differs from the network|cannot be written as ONNX"):
        to_onnx(ready(make()), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("size", [(1,), (2,), (7,), (8,), (5, 8), (4, 3, 6)])
def test_downsampling_for_any_size_is_downsampling(size: tuple[int, ...], reduce: str) -> None:
    layer, x = Downsample(len(size), reduce), torch.randn(2, 3, *size, dtype=torch.float64)
    assert_close(AnyDownsample(layer)(x), layer(x), tolerance=1e-15)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    file, model = tmp_path / "model.onnx", CCNN(1, 2, 8, blocks=1, width=2)
    with pytest.raises(TypeError, match="`model` must be a network"):
        to_onnx(torch.nn.Linear(2, 2), file)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="evaluation mode"):
        to_onnx(model, file)
    words: Any = {"classes": 3}
    with pytest.raises(TypeError, match="`metadata` must have words by name"):
        to_onnx(model.eval(), file, metadata=words)
    assert not file.exists()
