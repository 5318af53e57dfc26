"""What value a convolution takes at an offset: functions from relative positions to channels, one per file."""

from omniconv.kernels._kernel import Kernel as Kernel
from omniconv.kernels._kernel import KernelFactory as KernelFactory
from omniconv.kernels._modes import Modes as Modes
from omniconv.kernels.bumps import Bumps as Bumps
from omniconv.kernels.chebyshev_series import ChebyshevSeries as ChebyshevSeries
from omniconv.kernels.conditional import Conditional as Conditional
from omniconv.kernels.fourier import Fourier as Fourier
from omniconv.kernels.fourier_net import FourierNet as FourierNet
from omniconv.kernels.fourier_series import FourierSeries as FourierSeries
from omniconv.kernels.free import Free as Free
from omniconv.kernels.gabor import Gabor as Gabor
from omniconv.kernels.hyena_filter import HyenaFilter as HyenaFilter
from omniconv.kernels.mlp import MLP as MLP
from omniconv.kernels.modal import Modal as Modal
from omniconv.kernels.multiscale import Multiscale as Multiscale
from omniconv.kernels.siren import SIREN as SIREN
from omniconv.kernels.table import Table as Table

__all__ = [
    "MLP",
    "SIREN",
    "Bumps",
    "ChebyshevSeries",
    "Conditional",
    "Fourier",
    "FourierNet",
    "FourierSeries",
    "Free",
    "Gabor",
    "HyenaFilter",
    "Kernel",
    "KernelFactory",
    "Modal",
    "Modes",
    "Multiscale",
    "Table",
]
