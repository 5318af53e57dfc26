"""How symmetric a network is, and what it has learned about symmetry."""

from omniconv.symmetry.report import EquivarianceReport as EquivarianceReport
from omniconv.symmetry.report import LayerReport as LayerReport
from omniconv.symmetry.report import equivariance_report as equivariance_report

__all__ = ["EquivarianceReport", "LayerReport", "equivariance_report"]
