from __future__ import annotations

import json
import os
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import omniconv
from omniconv import CCNN
from omniconv.data import ArraySamples
from omniconv.training import Classification, Predictor, Regression, Task, outputs_of
from tests.training.makers import TASK, differing, network, waves, weights

SAMPLES = waves(7, ragged=True, noise=0.3)


def predictor(task: Task = TASK) -> Predictor:
    model = network() if task.out_features == 2 else CCNN(1, 1, 24, blocks=1, width=4)
    model.standardize.set([0.5], [2.0])
    return Predictor(model.eval(), task, {"training_samples": 7, "test": {"accuracy": 0.875, "log_loss": 1 / 3}})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    predictor().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("task", [TASK, Classification((3, 7), weights=(1.0, 2.0)), Regression(mean=2.0, std=0.3)])
def test_a_saved_predictor_predicts_what_it_predicted(tmp_path: Path, task: Task) -> None:
    before = predictor(task)
    before.save(tmp_path)
    after = Predictor.load(tmp_path)
    assert after.task == task
    assert after.about == before.about
    assert differing(weights(after.model), weights(before.model)) == []
    assert torch.equal(after.outputs(SAMPLES), before.outputs(SAMPLES))
    assert after.predict(SAMPLES).tolist() == before.predict(SAMPLES).tolist()
    assert not after.model.training


def test_predictions_are_those_of_the_largest_output_with_their_probabilities() -> None:
    found = predictor()
    outputs = found.outputs(SAMPLES)
    assert found.predict(SAMPLES).tolist() == [TASK.classes[i] for i in outputs.argmax(1)]
    np.testing.assert_allclose(found.probabilities(SAMPLES), outputs.softmax(1).numpy(), rtol=1e-12)
    assert found.evaluate(SAMPLES) == TASK.metrics(outputs, np.asarray(SAMPLES.targets))


def test_on_a_cpu_neither_company_nor_padding_shows_in_float64() -> None:
    found = predictor()
    outputs = found.outputs(SAMPLES)
    assert outputs.dtype == torch.float64
    assert found.model.head.readout.weight.dtype == torch.float32
    for index in range(7):
        torch.testing.assert_close(found.outputs(SAMPLES.subset([index]))[0], outputs[index], rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(outputs, outputs_of(found.model, SAMPLES).double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("signals", "got"),
    [(np.zeros((2, 3, 9)), "3 channels and 1 axes"), (np.zeros((2, 1, 9, 9)), "1 channels and 2 axes")],
)
def test_samples_of_another_kind_are_refused(signals: Any, got: str) -> None:
    with pytest.raises(ValueError, match=f"The network takes signals with 1 channels and 1 axes; got {got}"):
        predictor().predict(ArraySamples(signals))


def test_only_classification_has_probabilities() -> None:
    with pytest.raises(TypeError, match="Only classification has probabilities; this network does regression"):
        predictor(Regression()).probabilities(SAMPLES)


def test_evaluation_needs_targets() -> None:
    with pytest.raises(ValueError, match="`samples` must have targets to be evaluated against"):
        predictor().evaluate(ArraySamples(np.zeros((2, 1, 9))))


def test_the_card_tells_what_the_network_is_its_figures_and_whom_to_cite(saved: Path) -> None:
    card, model = (saved / "README.md").read_text(encoding="utf-8"), network()
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters" in card
    assert omniconv.cite(model).strip() in card
    assert "@" in omniconv.cite(model)
    for line in (
        "library_name: omniconv",
        "- classification",
        "# CCNN for classification",
        "Classes: fast, slow.",
        "signals with 1 channel(s)",
        "sampled as on a grid of 24",
        "| training samples | 7 |",
        "| test | accuracy 0.875, log loss 0.3333 |",
    ):
        assert line in card


def test_the_card_has_the_title_that_it_is_given_and_says_when_nothing_is_known(tmp_path: Path) -> None:
    Predictor(predictor(Regression()).model, Regression(), {"title": "Tides of {Brest}"}).save(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "# Tides of {Brest}\n" in card
    assert "It predicts one number." in card
    assert "Nothing was recorded." in card


def refused(folder: Path, file: str, message: str = "") -> None:
    with pytest.raises(ValueError, match=f"{folder / file}.*{message}"):
        Predictor.load(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"There is no {saved / file}"):
        Predictor.load(saved)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_that_was_cut_off_anywhere_is_refused(saved: Path, file: str) -> None:
    whole = (saved / file).read_bytes().rstrip(b"\n")
    for end in {len(whole) * percent // 100 for percent in range(0, 100, 4)} | {1, 7, 8, len(whole) - 1}:
        (saved / file).write_bytes(whole[:end])
        refused(saved, file)


@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", '{"format": 2, "arguments": {}}', '{"format": 1, "arguments": []}', "\xff"]
)
def test_a_configuration_of_something_else_is_refused(saved: Path, text: str) -> None:
    (saved / "config.json").write_bytes(text.encode("latin-1"))
    refused(saved, "config.json")


def test_a_network_without_a_task_is_told_how_to_be_loaded(saved: Path) -> None:
    network().save_pretrained(saved)
    with pytest.raises(ValueError, match=r"holds a network without a task\. Load it with CCNN.from_pretrained"):
        Predictor.load(saved)


@pytest.mark.parametrize("task", [{"name": "ranking"}, {}, None, "classification", 3])
def test_an_unknown_task_is_refused(saved: Path, task: Any) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "task": task}))
    with pytest.raises(ValueError, match="does not describe a task"):
        Predictor.load(saved)


def test_a_changed_byte_of_the_configuration_is_refused_or_gives_a_predictor(saved: Path) -> None:
    whole, draws = (saved / "config.json").read_bytes(), random.Random(0)
    for position in draws.sample(range(len(whole)), 150):
        changed = bytearray(whole)
        changed[position] ^= 1 << draws.randrange(8)
        (saved / "config.json").write_bytes(changed)
        try:
            found = Predictor.load(saved)
        except ValueError:
            continue
        assert found.outputs(SAMPLES).shape == (7, 2)


def test_a_changed_byte_of_the_header_is_refused_or_changes_no_weight(saved: Path) -> None:
    before = weights(predictor().model)
    path, draws = saved / "model.safetensors", random.Random(0)
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    positions = [*range(8), *draws.sample(range(8, 8 + length), 150)]
    refusals: list[str] = []
    for position in positions:
        changed = bytearray(whole)
        changed[position] ^= 1 << draws.randrange(8)
        path.write_bytes(changed)
        try:
            after = Predictor.load(saved)
        except ValueError as error:
            refusals.append(str(error))
        else:
            assert differing(weights(after.model), before) == []
    assert len(refusals) > 100
    assert all(str(path) in message for message in refusals)


@pytest.mark.parametrize("length", [2**62, 2**64 - 1, 2**31, 0])
def test_a_header_of_another_length_is_refused(saved: Path, length: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refused(saved, "model.safetensors", "is not a sound safetensors file.*Nothing of it was loaded")


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_under_the_name_of_the_weights_is_refused_and_not_run(saved: Path, tmp_path: Path) -> None:
    marker = tmp_path / "run"
    data = pickle.dumps(MakesFolder(marker))
    (saved / "model.safetensors").write_bytes(data)
    refused(saved, "model.safetensors", "is not a sound safetensors file")
    torch.save({"weight": MakesFolder(marker)}, saved / "model.safetensors")
    refused(saved, "model.safetensors", "is not a sound safetensors file")
    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists(), "the pickle is harmless: the test would pass if it had been run"


def test_a_part_that_is_no_public_name_of_the_library_is_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    for name in ("os.system", "__builtins__", "nn", "KernelFactory "):
        config["arguments"]["kernel"] = {"class": name}
        (saved / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=f"`kernel` '{name}' is not part of omniconv.kernels"):
            Predictor.load(saved)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    CCNN(1, 2, 24, blocks=2, width=8).save_pretrained(saved.parent / "other")
    (saved.parent / "other" / "model.safetensors").replace(saved / "model.safetensors")
    refused(saved, "model.safetensors", r"does not fit its config.json: missing \[\], unknown \['blocks.1")


def test_the_device_is_the_one_that_is_asked_for(saved: Path) -> None:
    assert Predictor.load(saved, device="cpu").model.head.readout.weight.device.type == "cpu"
    with pytest.raises(ValueError, match=r"`device` must be auto, cpu or an accelerator .* got 'nowhere'"):
        Predictor.load(saved, device="nowhere")
