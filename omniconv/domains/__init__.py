"""Where signals live."""

from omniconv.domains.clouds import Cloud as Cloud
from omniconv.domains.clouds import centred as centred
from omniconv.domains.farthest import farthest as farthest
from omniconv.domains.grid import Grid as Grid
from omniconv.domains.neighbours import Edges as Edges
from omniconv.domains.neighbours import lattice as lattice
from omniconv.domains.neighbours import nearest as nearest
from omniconv.domains.neighbours import nearest_nodes as nearest_nodes
from omniconv.domains.neighbours import within as within
from omniconv.domains.times import Times as Times

__all__ = ["Cloud", "Edges", "Grid", "Times", "centred", "farthest", "lattice", "nearest", "nearest_nodes", "within"]
