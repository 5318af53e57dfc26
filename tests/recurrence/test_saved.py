"""Streams as folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from omniconv import CCNN
from omniconv.models import MultiHyena
from omniconv.recurrence import Stream, stream
from omniconv.recurrence.saved import RECURRENCES, STREAM


def language() -> MultiHyena:
    torch.manual_seed(0)
    return MultiHyena(8, 16, 32, blocks=2, n_filters=4, head_width=2, tokens=16, tied=True, head="dense").eval()


def test_a_saved_stream_comes_back(tmp_path: Path) -> None:
    """Recurrences, certificate and horizon; layers that stay taps too."""
    made = stream(language(), order=8, horizon=40)
    made.save_pretrained(tmp_path)
    back, ids = Stream.from_pretrained(tmp_path), torch.randint(16, (2, 9))
    assert torch.equal(back.prefill(ids)[0], made.prefill(ids)[0])
    assert back.certificate.layers == made.certificate.layers
    assert back.certificate.horizon == 40
    torch.testing.assert_close(back.certificate.unit, made.certificate.unit)
    assert {layer.form for layer in back.certificate.layers} == {"taps", "distilled"}
    again = tmp_path / "again"
    back.save_pretrained(again)
    assert (again / RECURRENCES).read_bytes() == (tmp_path / RECURRENCES).read_bytes()


def test_a_view_at_another_resolution_comes_back(tmp_path: Path) -> None:
    model = CCNN(1, 2, 32, blocks=1, width=4, causal=True).eval().at_resolution(2.0)
    made, x = stream(model), torch.randn(1, 1, 20)
    made.save_pretrained(tmp_path)
    assert torch.equal(Stream.from_pretrained(tmp_path).prefill(x)[0], made.prefill(x)[0])


def test_damaged_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"There is no .*{STREAM}: the folder holds no stream"):
        Stream.from_pretrained(tmp_path)
    stream(language(), order=4).save_pretrained(tmp_path)
    about = json.loads((tmp_path / STREAM).read_text())
    (tmp_path / STREAM).write_text(json.dumps({**about, "sha256": "0"}))
    with pytest.raises(ValueError, match=f"{RECURRENCES} does not have the checksum"):
        Stream.from_pretrained(tmp_path)
    (tmp_path / STREAM).write_text("{")
    with pytest.raises(ValueError, match=f"{STREAM} is damaged"):
        Stream.from_pretrained(tmp_path)
    (tmp_path / STREAM).write_text('{"format": 9}')
    with pytest.raises(ValueError, match="not the description of a stream"):
        Stream.from_pretrained(tmp_path)
