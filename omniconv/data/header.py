"""What is known of a signal before its file is read, and what a reader refuses."""

from __future__ import annotations

from dataclasses import dataclass


class RefusedFileError(ValueError):
    """A sound file that holds no signal, or more than would be read: raised under any policy for damaged ones."""


@dataclass(frozen=True)
class Header:
    """Channels and size of a signal. `rate`: samples per second of audio. `vectors`: as in `Samples`, of clouds."""

    channels: int
    size: tuple[int, ...]
    rate: int | None = None
    vectors: int = 0
