"""Laws that every kernel, support, engine and layer obeys, for the library's tests and for those who add to it."""

from omniconv.testing._tolerances import TENSOR_CORES as TENSOR_CORES
from omniconv.testing._tolerances import TOLERANCE as TOLERANCE
from omniconv.testing._tolerances import assert_close as assert_close
from omniconv.testing.engines import check_engine as check_engine
from omniconv.testing.equivariance import EQUIVARIANCE as EQUIVARIANCE
from omniconv.testing.equivariance import assert_equivariant as assert_equivariant
from omniconv.testing.groups import check_group as check_group
from omniconv.testing.kernels import check_kernel as check_kernel
from omniconv.testing.layers import check_bad_signals as check_bad_signals
from omniconv.testing.layers import check_layer as check_layer
from omniconv.testing.supports import check_support as check_support

__all__ = [
    "EQUIVARIANCE",
    "TENSOR_CORES",
    "TOLERANCE",
    "assert_close",
    "assert_equivariant",
    "check_bad_signals",
    "check_engine",
    "check_group",
    "check_kernel",
    "check_layer",
    "check_support",
]
