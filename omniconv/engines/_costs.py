"""Predicted times of the engines."""

from __future__ import annotations

import math

from omniconv.engines._problem import Problem


def direct_seconds(problem: Problem) -> float:
    return problem.pairs * problem.positions * problem.tap_count * 2e-10 * (3 if problem.training else 1)


def fft_seconds(problem: Problem, frame: tuple[int, ...]) -> float:
    n = math.prod(frame)
    return (
        (problem.batch * problem.in_channels + problem.batch * problem.out_channels) * n * math.log2(max(n, 2)) * 1e-9
    )
