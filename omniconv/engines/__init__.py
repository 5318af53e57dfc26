"""Convolution as arithmetic, (signal, taps) -> signal: the only code that knows hardware. One engine per file."""

from omniconv.engines._constant import constant as constant
from omniconv.engines._convolve import convolve as convolve
from omniconv.engines._engine import Engine as Engine
from omniconv.engines._problem import Problem as Problem
from omniconv.engines._select import ENGINES as ENGINES
from omniconv.engines._select import explain_engine as explain_engine
from omniconv.engines._select import select_engine as select_engine

__all__ = ["ENGINES", "Engine", "Problem", "constant", "convolve", "explain_engine", "select_engine"]
