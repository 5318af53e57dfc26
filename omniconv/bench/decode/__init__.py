"""The benchmark of decoding: Transformers, Hyena with a cache and Hyena distilled, token by token.

`benchmark` checks and times them; `tables` are for a terminal, `write_report` makes a page, JSON and a figure.
"""

from omniconv.bench.decode.measure import benchmark as benchmark
from omniconv.bench.decode.models import CONTESTANTS as CONTESTANTS
from omniconv.bench.decode.report import tables as tables
from omniconv.bench.decode.report import write_report as write_report
from omniconv.bench.decode.results import Measured as Measured
from omniconv.bench.decode.results import Result as Result
from omniconv.bench.decode.sizes import SIZES as SIZES
from omniconv.bench.decode.sizes import Sizes as Sizes

__all__ = ["CONTESTANTS", "SIZES", "Measured", "Result", "Sizes", "benchmark", "tables", "write_report"]
