"""Figures of what a network has learned. They need the extra `plots`, and touch no global state of matplotlib."""

from omniconv.plots._curves import curves as curves
from omniconv.plots._gridded import gridded as gridded
from omniconv.plots._kernels import kernel as kernel
from omniconv.plots._kernels import kernels as kernels
from omniconv.plots._views import views as views

__all__ = ["curves", "gridded", "kernel", "kernels", "views"]
