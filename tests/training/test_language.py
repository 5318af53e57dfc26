"""Language models: their loss, their training, and what is asked of their recurrences."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("accelerate")

from omniconv.data import Windows
from omniconv.models import CCNN, Hyena
from omniconv.recurrence import stream
from omniconv.training import Recipe, Run, compare, distill_language, train_language
from omniconv.training.language import ORDERS, NextToken


def model(tokens: int = 6, size: int = 16) -> Hyena:
    torch.manual_seed(0)
    return Hyena(8, tokens, size, blocks=1, width=8, tokens=tokens, tied=True, head="dense")


def windows(count: int = 400, seed: int = 0) -> Windows:
    """Of a text in which every token but the first of three follows from the one before."""
    random = np.random.default_rng(seed)
    first = random.integers(0, 6, count // 3)
    return Windows(np.stack([first, (first + 1) % 6, (first + 2) % 6], 1).ravel(), 15)


def test_the_loss_is_that_of_the_next_token() -> None:
    network, ids = model().eval(), torch.from_numpy(np.stack([windows()[i] for i in range(3)]))
    logits = network(ids[:, 0, :-1].long())
    each = [F.cross_entropy(logits[i].T, ids[i, 0, 1:].long()) for i in range(3)]
    torch.testing.assert_close(NextToken(network)(ids)[:, 0], torch.stack(each))


def test_training_learns_and_resumes(tmp_path: Path) -> None:
    recipe = Recipe(epochs=12, batch_size=8, lr=0.03)
    network = model()
    record = train_language(network, windows(2400), recipe=recipe, validation=windows(seed=1))
    losses = [row["validation_loss"] for row in record if "validation_loss" in row]
    best = min(losses)
    assert best < math.log(6) / 3 + 0.25  # one of three is a matter of chance, the others are not
    assert record[-1]["validation_bits_per_token"] == pytest.approx(losses[-1] / math.log(2))
    recipe = Recipe(epochs=1, batch_size=8)
    train_language(model(), windows(), recipe=recipe, run=Run(folder=tmp_path))
    with pytest.raises(ValueError, match="the checkpoint belongs to another run"):
        train_language(model(), windows(seed=2), recipe=recipe, run=Run(folder=tmp_path, resume=True))


def test_a_stream_that_is_exact_agrees() -> None:
    network = model().double().eval()
    found = compare(network, stream(network), windows(), batch_size=5)
    assert abs(found.difference) < 1e-12
    assert found.top_1 == 1.0
    assert found.tokens == 15 * len(windows())
    coarse = compare(network, stream(network, order=2), windows(), chunk=4)
    assert coarse.difference != 0.0
    assert coarse.reference == pytest.approx(found.reference, rel=1e-12)


def test_the_smallest_stream_that_agrees_is_taken() -> None:
    network = model().eval()
    made, attempts = distill_language(network, windows(), change=1e-6, top_1=1.0, orders=(2, 4, None))
    assert [attempt.order for attempt in attempts] == [2, 4, None][: len(attempts)]
    assert len(attempts) > 1
    assert abs(compare(network, made, windows()).difference) <= 1e-6
    _, passed = distill_language(network, windows(), change=1e-6, top_1=1.0, orders=(8, None))
    assert [attempt.order for attempt in passed] == [None]  # kernels reach 15 samples back
    with pytest.raises(ValueError, match="no order of"):
        distill_language(network, windows(), change=1e-9, orders=(2,))


@pytest.mark.filterwarnings("ignore:.*Expect aliasing")
@pytest.mark.parametrize(
    ("size", "factor", "lowpass", "tried"),
    [
        (16, 0.5, False, [2, None]),
        (48, 0.5, False, [2, 4, 8, None]),
        (48, 0.25, False, [2, 4, None]),
        (16, 2.0, False, [2, 4, 8, None]),
        (16, 0.5, True, [2, 4, None]),  # a filter makes kernels longer
        (48, 0.25, True, [2, 4, None]),
    ],
)
def test_orders_of_views_at_other_resolutions(size: int, factor: float, lowpass: bool, tried: list[int | None]) -> None:
    """Half of the lags on their own grid, (size - 1) / spacing."""
    view = model(size=size).double().eval().at_resolution(factor, lowpass=lowpass)
    made, attempts = distill_language(view, windows(90), change=1e-9, top_1=1.0, orders=ORDERS)
    assert [attempt.order for attempt in attempts] == tried
    assert abs(attempts[-1].agreement.difference) < 1e-12
    assert made.network.spacing == (1 / factor,)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"`network` must predict the tokens that it takes; .* takes signals"):
        train_language(CCNN(1, 6, 16, causal=True), windows())
    with pytest.raises(ValueError, match="`windows` must hold ids below 4"):
        train_language(model(4), windows())
    with pytest.raises(ValueError, match="`chunk` must be at least 1"):
        compare(model(), stream(model()), windows(), chunk=0)
