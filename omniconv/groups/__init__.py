"""Symmetry groups: pure functions of tensors of elements, and samples of them with quadrature weights."""

from omniconv.groups._group import Count as Count
from omniconv.groups._group import Elements as Elements
from omniconv.groups._group import Group as Group
from omniconv.groups._group import Samples as Samples
from omniconv.groups._signals import transform as transform
from omniconv.groups.cyclic import Cyclic as Cyclic
from omniconv.groups.dihedral import Dihedral as Dihedral
from omniconv.groups.gl2 import GL2 as GL2
from omniconv.groups.o2 import O2 as O2
from omniconv.groups.product import Product as Product
from omniconv.groups.scaling import Scaling as Scaling
from omniconv.groups.semidirect import SemidirectProduct as SemidirectProduct
from omniconv.groups.sl2 import SL2 as SL2
from omniconv.groups.so2 import SO2 as SO2
from omniconv.groups.so3 import SO3 as SO3
from omniconv.groups.trivial import Trivial as Trivial

__all__ = [
    "GL2",
    "O2",
    "SL2",
    "SO2",
    "SO3",
    "Count",
    "Cyclic",
    "Dihedral",
    "Elements",
    "Group",
    "Product",
    "Samples",
    "Scaling",
    "SemidirectProduct",
    "Trivial",
    "transform",
]
