"""`omniconv stream`: rows as samples come, the same as the network's own predictions."""

from __future__ import annotations

import io
import subprocess
import sys
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("tyro")
pytest.importorskip("soundfile")

import soundfile

from omniconv.cli import main
from omniconv.data import ArraySamples
from omniconv.models import CCNN
from omniconv.training import Classification, Predictor, Regression

Array = NDArray[Any]


def saved(path: Path, *, causal: bool = True, channels: int = 2, rate: float | None = None) -> Path:
    """A network whose last output tells two classes apart, saved with its task."""
    torch.manual_seed(0)
    model = CCNN(channels, 2, 32, blocks=1, width=4, causal=causal, head="last")
    model(torch.randn(4, channels, 32))
    about = {} if rate is None else {"rate": rate}
    Predictor(model.eval(), Classification(("a", "b")), about).save(path)
    return path


def rows_of(printed: str) -> list[list[str]]:
    return [line.split(",") for line in printed.splitlines()]


def streamed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: object, given: bytes | None = None
) -> list[list[str]]:
    """What the command prints, with these bytes on standard input."""
    if given is not None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(given))))
    monkeypatch.setattr(sys, "argv", ["omniconv", "stream", *map(str, options)])
    main()
    return rows_of(capsys.readouterr().out)


def probabilities(path: Path, signal: Array) -> Array:
    """By the network itself, for the signal (channels, samples) up to every sample."""
    predictor = Predictor.load(path, device="cpu")
    return np.concatenate(
        [predictor.probabilities(ArraySamples(signal[None, :, : t + 1])) for t in range(signal.shape[1])]
    )


def text(signal: Array) -> bytes:
    return "\n".join(",".join(f"{value:.17g}" for value in sample) for sample in signal.T).encode()


def test_lines_of_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model, signal = saved(tmp_path / "model"), np.random.default_rng(0).standard_normal((2, 11)).astype(np.float32)
    expected = probabilities(model, signal.astype(np.float64))
    head, *rows = streamed(monkeypatch, capsys, model, "--device", "cpu", given=text(signal) + b"\n\n")
    assert head == ["samples", "prediction", "p_a", "p_b"]
    assert [int(row[0]) for row in rows] == list(range(1, 12))
    np.testing.assert_allclose([[float(value) for value in row[2:]] for row in rows], expected, atol=1e-6)
    assert [row[1] for row in rows] == ["ab"[i] for i in expected.argmax(1)]


@pytest.mark.parametrize(("every", "counts"), [(4, [4, 8, 11]), (11, [11]), (50, [11]), (1, list(range(1, 12)))])
def test_every_so_many_samples_and_the_last(
    every: int, counts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, signal = saved(tmp_path / "model"), np.random.default_rng(0).standard_normal((2, 11))
    (tmp_path / "signal.csv").write_bytes(text(signal))
    options = (model, tmp_path / "signal.csv", "--every", every, "--tol", 0.2, "--device", "cpu")
    assert [int(row[0]) for row in streamed(monkeypatch, capsys, *options)[1:]] == counts


def test_sound_from_a_file_and_through_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At twice the rate of the training: the same span, sampled twice as finely."""
    model = saved(tmp_path / "model", channels=1, rate=500.0)
    signal = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, 2500) * 2**15) / 2**15
    soundfile.write(tmp_path / "sound.wav", signal, 1000, subtype="PCM_16")
    from_file = streamed(monkeypatch, capsys, model, tmp_path / "sound.wav", "--every", 500, "--device", "cpu")
    pipe = io.BytesIO()
    with wave.open(pipe, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(1000)
        sound.writeframes((signal * 2**15).astype("<i2").tobytes())
    piped = streamed(monkeypatch, capsys, model, "--every", 500, "--device", "cpu", given=pipe.getvalue())
    assert piped == from_file
    assert [int(row[0]) for row in piped[1:]] == [500, 1000, 1500, 2000, 2500]
    predictor = Predictor.load(model, device="cpu")
    with torch.no_grad():
        fine = predictor.model.double().at_resolution(2.0)(torch.from_numpy(signal[None, None]))
    np.testing.assert_allclose([float(piped[-1][2])], fine.softmax(1)[0, :1], atol=1e-6)


def test_rows_come_before_the_stream_ends(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "omniconv", "stream", str(saved(tmp_path / "model")), "--device", "cpu"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline().startswith("samples,prediction")
    for count in (1, 2):
        process.stdin.write("0.5 -1\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(f"{count},")
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()


def test_numbers_to_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = CCNN(1, 1, 16, blocks=1, width=4, causal=True).eval()
    Predictor(model, Regression(2.0, 3.0)).save(tmp_path / "model")
    head, row = streamed(monkeypatch, capsys, tmp_path / "model", "--device", "cpu", given=b"0.25")
    assert head == ["samples", "prediction"]
    with torch.no_grad():
        expected = 2.0 + 3.0 * model(torch.tensor([[[0.25]]])).item()
    assert float(row[1]) == pytest.approx(expected, abs=1e-5)


def test_the_certificate_is_told_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path / "model")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(b"1 2"))))
    monkeypatch.setattr(
        sys, "argv", ["omniconv", "stream", str(model), "--tol", "0.1", "--certificate", "--device", "cpu"]
    )
    main()
    printed = capsys.readouterr()
    assert "bound on the outputs, for inputs up to 1:" in printed.err
    assert len(printed.out.splitlines()) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"1 2\n1 x\n", "omniconv: standard input, line 2: expected numbers, one per channel; got '1 x'"),
        (b"1 2 3\n", "omniconv: `x` must have 2 channels"),
        (b"\n\n", "omniconv: standard input holds no samples"),
        (b"1 2\n1 nan\n", "omniconv: sample 2 or one soon behind it is not finite"),
        (b"RIFF", "omniconv: standard input is no WAV of whole numbers: it ends early. Give a file"),
        (
            b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x03\x00",
            "omniconv: standard input is no WAV of whole numbers",
        ),
    ],
)
def test_bad_streams(
    given: bytes,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match=message):
        streamed(monkeypatch, capsys, saved(tmp_path / "model"), "--device", "cpu", given=given)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.wav", b"no sound at all", r"omniconv: .*w.wav is no sound that can be read: Format not recognised"),
        ("w.wav", b"", r"omniconv: .*w.wav is no sound that can be read: "),
        ("w.flac", b"RIFF", r"omniconv: .*w.flac is no sound that can be read: "),
        ("gone.wav", None, r"omniconv: .*No such file or directory: .*gone.wav"),
    ],
)
def test_files_that_are_no_sound(
    name: str,
    content: bytes | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match=message):
        streamed(monkeypatch, capsys, saved(tmp_path / "model"), tmp_path / name, "--device", "cpu")


def test_sound_that_is_damaged_farther_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What comes before it is predicted."""
    soundfile.write(tmp_path / "w.flac", np.random.default_rng(0).uniform(-0.5, 0.5, (40_000, 2)), 1000)
    data = bytearray((tmp_path / "w.flac").read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (tmp_path / "w.flac").write_bytes(data)
    with pytest.raises(SystemExit, match=r"omniconv: .*w.flac is no sound that can be read: "):
        streamed(
            monkeypatch, capsys, saved(tmp_path / "model"), tmp_path / "w.flac", "--device", "cpu", "--every", 1000
        )
    assert capsys.readouterr().out.splitlines()[1].startswith("1000,")


def test_networks_that_look_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="omniconv: `model`: stem is not causal on one axis"):
        streamed(monkeypatch, capsys, saved(tmp_path / "model", causal=False), "--device", "cpu", given=b"1 2")
