"""Speed and memory beside peers: what `omniconv bench` measures."""

from omniconv.bench import decode as decode
from omniconv.bench import groups as groups
from omniconv.bench import points as points
from omniconv.bench.cases import CUDA_GRID as CUDA_GRID
from omniconv.bench.cases import GRID as GRID
from omniconv.bench.cases import Case as Case
from omniconv.bench.cases import cells as cells
from omniconv.bench.cases import grid as grid
from omniconv.bench.contestants import Contestant as Contestant
from omniconv.bench.contestants import entrants as entrants
from omniconv.bench.conv import Cell as Cell
from omniconv.bench.conv import DisagreementError as DisagreementError
from omniconv.bench.conv import Measured as Measured
from omniconv.bench.conv import benchmark as benchmark
from omniconv.bench.report import headlines as headlines
from omniconv.bench.report import write_report as write_report
from omniconv.bench.summary import summarise as summarise

__all__ = [
    "CUDA_GRID",
    "GRID",
    "Case",
    "Cell",
    "Contestant",
    "DisagreementError",
    "Measured",
    "benchmark",
    "cells",
    "decode",
    "entrants",
    "grid",
    "groups",
    "headlines",
    "points",
    "summarise",
    "write_report",
]
