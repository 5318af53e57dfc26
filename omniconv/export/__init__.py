"""Networks made ready for use: the same function, in a form that is simpler or runs elsewhere."""

from omniconv.export.bake import bake as bake
from omniconv.export.fold import fold as fold

__all__ = ["bake", "fold"]
