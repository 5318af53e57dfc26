"""Networks made ready for use: the same function, in a form that is simpler or runs elsewhere."""

from omniconv.export.fold import fold as fold

__all__ = ["fold"]
