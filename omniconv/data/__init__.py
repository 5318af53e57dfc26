"""Data sets and loaders."""

from omniconv.data.digits import Digits as Digits
from omniconv.data.digits import View as View
from omniconv.data.digits import load_digits as load_digits

__all__ = ["Digits", "View", "load_digits"]
