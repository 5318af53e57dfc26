"""How far a kernel reaches: functions from relative positions to [0, 1], one per file."""

from omniconv.supports._support import Support as Support
from omniconv.supports._support import SupportFactory as SupportFactory
from omniconv.supports.decay import Decay as Decay
from omniconv.supports.disk import Disk as Disk
from omniconv.supports.full import Full as Full
from omniconv.supports.gaussian import Gaussian as Gaussian
from omniconv.supports.product import Product as Product
from omniconv.supports.sigmoid import Sigmoid as Sigmoid

__all__ = ["Decay", "Disk", "Full", "Gaussian", "Product", "Sigmoid", "Support", "SupportFactory"]
