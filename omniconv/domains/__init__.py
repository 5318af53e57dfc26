"""Where signals live."""

from omniconv.domains.grid import Grid as Grid

__all__ = ["Grid"]
