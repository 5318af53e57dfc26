"""`omniconv lm`: train, distill, generate, bench, one after the other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("tyro")
pytest.importorskip("accelerate")

from omniconv.cli import main
from omniconv.cli.lm import Bench, Printed
from omniconv.models import Hyena, MultiHyena, Network, Stepper
from omniconv.recurrence import Stream

needs_none = pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")

TEXT = b"the cat sat on the mat. " * 60


def called(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["omniconv", "lm", *map(str, options)])
    main()


def rows_of(printed: str) -> list[list[str]]:
    """The first three columns of a table."""
    return [[cell.strip() for cell in line.split("│")[1:4]] for line in printed.splitlines() if "│" in line]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the text, and a trained network in run/."""
    folder = tmp_path_factory.mktemp("lm")
    (folder / "text.txt").write_bytes(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        options = ("--width", 16, "--length", 24, "--epochs", 14, "--batch-size", 8, "--dropout", 0, "--lr", 0.03)
        called(patch, "train", folder / "text.txt", "--out", folder / "run", *options)
    return folder


def test_train_writes_a_network_that_knows_the_text(run: Path) -> None:
    model = Network.from_pretrained(run / "run")
    assert isinstance(model, Hyena)
    about = json.loads((run / "run" / "config.json").read_text())["about"]
    assert about == {"text": str(run / "text.txt"), "held_out": 0.1, "bytes": True}
    said = model.generate(torch.tensor([list(b"the cat s")]), 9, temperature=0).ids[0]
    assert bytes(said.tolist()) == b"at on the"
    rows = [json.loads(line) for line in (run / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["validation_loss"] < 0.2


def test_distill_generate_and_bench(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called(monkeypatch, "distill", run / "run", run / "text.txt", "--windows", 4, "--certificate")
    printed = capsys.readouterr().out
    assert "same likeliest" in printed
    assert "blocks.0.mixer.long.0" in printed
    assert isinstance(Stream.from_pretrained(run / "run" / "distilled").network, Hyena)
    for options in ((), ("--exact",)):
        called(monkeypatch, "generate", run / "run", "--prompt", "the cat s", "--temperature", 0, "--max-new-tokens", 9,
               *options)  # fmt: skip
        assert capsys.readouterr().out == "the cat sat on the\n"
    called(monkeypatch, "generate", run / "run", "--prompt", "the c", "--temperature", 0, "--stop", " ")
    assert capsys.readouterr().out == "the cat \n"
    called(monkeypatch, "generate", run / "run", "--prompt", "the c", "--temperature", 0, "--stop", "at o")
    assert capsys.readouterr().out == "the cat sat o\n"  # the word, none of its letters
    called(monkeypatch, "bench", run / "run", "--batch-sizes", 2, 3, "--context", 30, "--seconds", 0.01)
    printed = capsys.readouterr().out
    layers = Stream.from_pretrained(run / "run" / "distilled").certificate.layers
    most = str(max(layer.states for layer in layers if layer.form == "distilled"))
    expected = [("exact", ""), ("distilled", most), ("in place", most)]  # nothing is fused on a CPU
    assert rows_of(printed) == [[name, states, batch] for name, states in expected for batch in ("2", "3")]


def test_models_whose_kernels_stay_taps_are_measured_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No order is small enough for three taps."""
    (tmp_path / "text.txt").write_bytes(TEXT)
    options = ("--width", 8, "--length", 3, "--epochs", 1, "--device", "cpu")
    called(monkeypatch, "train", tmp_path / "text.txt", "--out", tmp_path / "run", *options)
    capsys.readouterr()
    called(monkeypatch, "distill", tmp_path / "run", tmp_path / "text.txt", "--windows", 4, "--device", "cpu")
    assert "No order is small enough: the exact stream is in" in capsys.readouterr().out.replace("\n", " ")
    called(monkeypatch, "bench", tmp_path / "run", "--batch-sizes", 2, "--context", 5, "--seconds", 0.01)
    printed = capsys.readouterr().out
    assert ["distilled", "exact", "2"] in rows_of(printed)
    assert "No line for a step in place: blocks.0.mixer.long.0 stays taps in this stream" in printed


def test_what_was_measured_is_printed_before_a_mistake_is_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Bench.timed

    def timed(self: Bench, stepper: Stepper, batch: int, nbytes: int) -> list[str]:
        if batch == 3:
            raise ValueError("no memory is left")
        return real(self, stepper, batch, nbytes)

    monkeypatch.setattr(Bench, "timed", timed)
    with pytest.raises(SystemExit, match="no memory is left"):
        called(monkeypatch, "bench", run / "run", "--batch-sizes", 2, 3, "--context", 5, "--seconds", 0.01)
    assert "exact" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", ""), "`--prompt` must hold one token at least; got ''"),
        (("--prompt", "the", "--stop", ""), "`--stop` must hold one token at least; got ''"),
        (("--prompt", "the", "--temperature", -1), "`temperature` must be"),
        (("--prompt", "the", "--max-new-tokens", 0), "`max_new_tokens` must be"),
        (("--prompt", "the", "--seed", 2**64), "`seed` must be"),
        (("--prompt", "the", "--device", "bulb"), "`device` must be auto, cpu or an accelerator .*; got 'bulb'"),
    ],
)
def test_mistakes_are_told_before_the_prompt(
    options: tuple[object, ...],
    message: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match=message):
        called(monkeypatch, "generate", run / "run", *options)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command", ["generate", "bench", "distill"])
@pytest.mark.parametrize("device", ["bulb", pytest.param("cuda", marks=needs_none)])
def test_devices_that_are_not_there(command: str, device: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (run / "text.txt",) if command == "distill" else ()
    with pytest.raises(
        SystemExit, match=f"`device` must be auto, cpu or an accelerator of this machine; got '{device}'"
    ):
        called(monkeypatch, command, run / "run", *text, "--device", device)


def test_a_word_ends_the_text_when_it_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    printed = Printed("so ", list("né".encode()), of_bytes=True)
    assert [printed(torch.tensor([byte])) for byte in "énènné".encode()] == [False] * 8 + [True]
    assert capsys.readouterr().out == "so énènné"
    printed = Printed("7 8", [1, 1, 2], of_bytes=False)
    assert [printed(torch.tensor([id])) for id in (2, 1, 1, 1, 2)] == [False] * 4 + [True]
    assert capsys.readouterr().out == "7 8 2 1 1 1 2"
    endless = Printed("", [], of_bytes=False)
    assert not any(endless(torch.tensor([id])) for id in (0, 1))


def test_ids_of_another_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "ids.npy", np.tile(np.arange(7, dtype=np.int32), 60))
    options: tuple[object, ...] = (
        "--network",
        "multi_hyena",
        "--width",
        8,
        "--length",
        12,
        "--epochs",
        15,
        "--dropout",
        0,
        "--lr",
        0.03,
    )
    options += ("--batch-size", 4)
    called(monkeypatch, "train", tmp_path / "ids.npy", "--out", tmp_path / "run", *options)
    assert isinstance(Network.from_pretrained(tmp_path / "run"), MultiHyena)
    capsys.readouterr()
    called(monkeypatch, "generate", tmp_path / "run", "--prompt", "3 4", "--temperature", 0, "--max-new-tokens", 3)
    assert capsys.readouterr().out == "3 4 5 6 0\n"
    called(monkeypatch, "generate", tmp_path / "run", "--prompt", "3 4", "--temperature", 0, "--stop", "6 0")
    assert capsys.readouterr().out == "3 4 5 6 0\n"
    for given, message in (
        (("--prompt", "three"), "`--prompt` must be ids, separated by blanks"),
        (("--prompt", "3 7"), r"`--prompt` must hold ids from 0 to 6; got 3 to 7"),
        (("--prompt", "3", "--stop", "-1"), r"`--stop` must hold ids from 0 to 6; got -1 to -1"),
        (("--prompt", " "), "`--prompt` must hold one token at least; got ' '"),
        ((), "`--prompt` must be given for this model: ids, separated by blanks, such as --prompt '0 1'"),
    ):
        with pytest.raises(SystemExit, match=message):
            called(monkeypatch, "generate", tmp_path / "run", *given)
        assert capsys.readouterr().out == ""


def test_mistakes_are_told_in_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="holds a run already"):
        called(monkeypatch, "train", run / "text.txt", "--out", run / "run")
    wrong = ("--length", 24, "--network", "multi_hyena", "--width", 9)
    with pytest.raises(SystemExit, match="`--head-width` must divide the width"):
        called(monkeypatch, "train", run / "text.txt", "--out", tmp_path / "a", *wrong)
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(SystemExit, match="`ids` must hold a window of 256 tokens"):
        called(monkeypatch, "train", tmp_path / "short", "--out", tmp_path / "a")
    Hyena(4, 4, 8, blocks=1, width=4).save_pretrained(tmp_path / "b")
    with pytest.raises(SystemExit, match="is no run of `omniconv lm train`"):
        called(monkeypatch, "generate", tmp_path / "b")


def test_a_stopped_training_goes_on_with_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(TEXT)
    options = ("--width", 16, "--length", 24, "--epochs", 2, "--batch-size", 8, "--lr", 0.03)
    called(monkeypatch, "train", text, "--out", tmp_path / "whole", *options)
    folder = tmp_path / "moved"
    with pytest.raises(SystemExit) as stop:
        called(monkeypatch, "train", text, "--out", tmp_path / "run", *options, "--time-limit", 0)
    assert stop.value.code == 75
    assert f"resume to go on: omniconv resume {tmp_path / 'run'}, or in Python" in capsys.readouterr().err
    (tmp_path / "run").rename(folder)
    monkeypatch.setattr(sys, "argv", ["omniconv", "resume", str(folder), "--time-limit", "900"])
    main()
    weights = [Network.from_pretrained(path).state_dict() for path in (tmp_path / "whole", folder)]
    assert all(torch.equal(one, other) for one, other in zip(*[w.values() for w in weights], strict=True))
    with pytest.raises(SystemExit, match=f"Go on with `omniconv resume {folder}`"):
        called(monkeypatch, "train", text, "--out", folder, *options)


def test_runs_that_no_command_began_are_told_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["omniconv", "resume", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"holds no run: there is no .*run\.toml or .*lm\.toml"):
        main()
    monkeypatch.setattr("omniconv.cli.resume.list_checkpoints", lambda folder: [folder])
    with pytest.raises(SystemExit, match="was begun in Python"):
        main()
