"""How far a kernel reaches: functions from relative positions to [0, 1], one per file."""

from omniconv.supports._support import Support as Support
from omniconv.supports._support import SupportFactory as SupportFactory
from omniconv.supports.full import Full as Full
from omniconv.supports.gaussian import Gaussian as Gaussian

__all__ = ["Full", "Gaussian", "Support", "SupportFactory"]
