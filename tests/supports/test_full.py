"""The support that is 1 everywhere."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from omniconv.supports import Decay, Disk, Full, Gaussian, Product, Sigmoid, SupportFactory


@pytest.mark.parametrize("factory", [Full, Gaussian, Decay, Disk, Sigmoid, partial(Product, factors=(Full,))])
@pytest.mark.parametrize(
    ("threshold", "error"),
    [("a", TypeError), (True, TypeError), (math.nan, ValueError), (-1, ValueError), (2, ValueError)],
)
def test_a_threshold_is_a_weight(factory: SupportFactory, threshold: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`threshold` must be"):
        factory(1, reach=4).extent(threshold)


def test_it_reaches_to_its_end() -> None:
    assert Full(2, reach=4).extent(1.0) == (1.0, 1.0)
