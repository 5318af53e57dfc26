"""omniconv: one convolution for every signal.

convolution = domain or group x continuous kernel x support x engine.
"""

from omniconv._errors import EngineError as EngineError
from omniconv._references import cite as cite
from omniconv.domains import Grid as Grid
from omniconv.domains import Times as Times
from omniconv.engines import Problem as Problem
from omniconv.engines import convolve as convolve
from omniconv.engines import explain_engine as explain_engine
from omniconv.engines import select_engine as select_engine
from omniconv.kernels import SIREN as SIREN
from omniconv.kernels import Gabor as Gabor
from omniconv.kernels import Kernel as Kernel
from omniconv.kernels import Table as Table
from omniconv.models import CCNN as CCNN
from omniconv.models import CKCNN as CKCNN
from omniconv.models import FlexNet as FlexNet
from omniconv.models import create_model as create_model
from omniconv.models import list_models as list_models
from omniconv.nn import Conv as Conv
from omniconv.nn import Conv1d as Conv1d
from omniconv.nn import Conv2d as Conv2d
from omniconv.nn import Conv3d as Conv3d
from omniconv.nn import refresh as refresh
from omniconv.supports import Full as Full
from omniconv.supports import Gaussian as Gaussian
from omniconv.supports import Support as Support

__version__ = "0.1.0.dev0"

__all__ = [
    "CCNN",
    "CKCNN",
    "SIREN",
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "EngineError",
    "FlexNet",
    "Full",
    "Gabor",
    "Gaussian",
    "Grid",
    "Kernel",
    "Problem",
    "Support",
    "Table",
    "Times",
    "cite",
    "convolve",
    "create_model",
    "explain_engine",
    "list_models",
    "refresh",
    "select_engine",
]
