"""What was measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from omniconv.bench.decode.sizes import Sizes


@dataclass
class Point:
    """Steps of one batch."""

    batch: int
    milliseconds: float
    """Median."""

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return 1e3 * self.batch / self.milliseconds


@dataclass
class Result:
    """One contestant at one workload."""

    contestant: str
    prompt: int
    generate: int
    weights: int
    points: list[Point]
    best: int
    """Batch of the most tokens per second."""
    rate: float
    nbytes: int
    """Memory of one signal at the end."""
    share: float
    """Of the bandwidth of a copy that the part of the step over the memory reaches."""
    prefill: float
    """Milliseconds for one prompt."""
    end_to_end: float
    """Generated tokens per second, with the time of the prompts."""
    backend: str | None

    @property
    def best_point(self) -> Point:
        """The steps of the best batch."""
        return next(one for one in self.points if one.batch == self.best)


@dataclass
class Curve:
    """Peaks of memory of one contestant."""

    contestant: str
    generated: tuple[int, ...]
    gigabytes: list[float] = field(default_factory=list)


@dataclass
class Measured:
    """All there is to report, and of what: `skipped` is what time or memory did not suffice for."""

    sizes: Sizes
    device: str
    bandwidth: float
    """Bytes per second that a copy moves."""
    results: list[Result] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
