"""How symmetric a network is and what it has learned about symmetry; and the symmetries of a data set."""

from omniconv.symmetry._family import Family as Family
from omniconv.symmetry.cyclic import Cyclic as Cyclic
from omniconv.symmetry.finding import find_symmetries as find_symmetries
from omniconv.symmetry.found import Compared as Compared
from omniconv.symmetry.found import Symmetries as Symmetries
from omniconv.symmetry.gaussian import Gaussian as Gaussian
from omniconv.symmetry.report import EquivarianceReport as EquivarianceReport
from omniconv.symmetry.report import LayerReport as LayerReport
from omniconv.symmetry.report import equivariance_report as equivariance_report
from omniconv.symmetry.uniform import Uniform as Uniform

__all__ = [
    "Compared",
    "Cyclic",
    "EquivarianceReport",
    "Family",
    "Gaussian",
    "LayerReport",
    "Symmetries",
    "Uniform",
    "equivariance_report",
    "find_symmetries",
]
