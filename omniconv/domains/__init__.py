"""Where signals live."""

from omniconv.domains.grid import Grid as Grid
from omniconv.domains.times import Times as Times

__all__ = ["Grid", "Times"]
