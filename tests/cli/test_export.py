"""`omniconv export` writes what runtimes without torch answer with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from omniconv.cli import main
from omniconv.data import ArraySamples
from omniconv.models import CCNN
from omniconv.training import Classification, Predictor


def export(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["omniconv", "export", *map(str, arguments)])
    main()


def test_a_predictor_goes_into_a_file_with_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = Predictor(CCNN(1, 3, size=16, blocks=1, width=4).eval(), Classification(("ebb", "flow", "slack")))
    predictor.save(tmp_path / "tide")
    export(monkeypatch, tmp_path / "tide", "--out", tmp_path / "tide.onnx")
    assert "input x" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "tide.onnx", providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["task"])["classes"] == ["ebb", "flow", "slack"]
    signals = np.random.default_rng(0).normal(size=(5, 1, 40)).astype(np.float32)
    (y,) = session.run(None, {"x": signals})
    assert (y.argmax(1) == predictor.outputs(ArraySamples(signals)).argmax(1).numpy()).all()


def test_files_that_cannot_be_are_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"`--out` must be a file named \.onnx"):
        export(monkeypatch, tmp_path, "--out", tmp_path / "tide")
    with pytest.raises(SystemExit, match="`--out` must be in a folder that exists"):
        export(monkeypatch, tmp_path, "--out", tmp_path / "no" / "tide.onnx")
    with pytest.raises(SystemExit, match=r"config\.json"):
        export(monkeypatch, tmp_path, "--out", tmp_path / "tide.onnx")
