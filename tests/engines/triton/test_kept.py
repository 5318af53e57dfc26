"""Tables that stay where a CUDA graph reads them."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from omniconv.engines.triton import _tables
from omniconv.engines.triton._kept import kept
from omniconv.engines.triton._tables import Frame
from omniconv.engines.triton.monarch2d import waves

CPU = torch.device("cpu")


def test_they_are_made_once_on_the_cpu_and_copied() -> None:
    made: list[int] = []

    @kept
    def ones(count: int, device: torch.device) -> torch.Tensor:
        made.append(count)
        return torch.ones(count)

    meta = torch.device("meta")
    first = ones(3, meta)
    assert first.device == meta
    for count in range(600):
        ones(count, CPU)
    assert ones(3, meta) is first
    assert made == [3, *range(600)]


def test_one_that_is_missing_is_not_made_while_a_graph_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    @kept
    def pair(count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        made.append(count)
        return torch.ones(count), torch.zeros(count)

    recording, cuda = [False], torch.device("cuda", 0)
    monkeypatch.setattr("omniconv.engines.triton._kept.on", lambda made, device: made)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: recording[0])
    there = pair(3, cuda)
    recording[0] = True
    assert pair(3, cuda) is there
    with pytest.raises(RuntimeError, match=r"while a CUDA graph is recorded\. Run the model once .* before recording"):
        pair(4, cuda)
    assert made == [3]


def test_all_are_computed_on_the_cpu() -> None:
    frame, meta = Frame(4, 16, 32, 0.25), torch.device("meta")
    with torch.device("meta"):
        tables = [
            _tables.transform(16, 0.25, torch.float16, CPU),
            _tables.three_products(16, torch.float16, CPU),
            _tables.inner_factors(frame, torch.float16, CPU),
            _tables.inner_factors(frame, torch.float32, CPU),
            *_tables.outer_factors(frame, 32, CPU),
            _tables.twist(frame, CPU),
            _tables.spectrum_order(frame, CPU),
            waves(5, range(-2, 6), 9, "half", (16, 16), False, torch.float32, CPU),
        ]
    assert all(table.device == CPU for table in tables)
    assert _tables.twist(frame, meta).device == meta
