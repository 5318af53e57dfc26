"""Data sets and loaders."""

from omniconv.data.builtin import list_series as list_series
from omniconv.data.builtin import load_series as load_series
from omniconv.data.clouds import CloudSamples as CloudSamples
from omniconv.data.digits import Digits as Digits
from omniconv.data.digits import View as View
from omniconv.data.digits import load_digits as load_digits
from omniconv.data.idx import load_cifar10 as load_cifar10
from omniconv.data.idx import load_mnist as load_mnist
from omniconv.data.missing import FilledSamples as FilledSamples
from omniconv.data.missing import without_gaps as without_gaps
from omniconv.data.read import has_split as has_split
from omniconv.data.read import read as read
from omniconv.data.samples import ArraySamples as ArraySamples
from omniconv.data.samples import Samples as Samples
from omniconv.data.timed import TimedSamples as TimedSamples
from omniconv.data.windows import Windows as Windows
from omniconv.data.windows import read_tokens as read_tokens

__all__ = [
    "ArraySamples",
    "CloudSamples",
    "Digits",
    "FilledSamples",
    "Samples",
    "TimedSamples",
    "View",
    "Windows",
    "has_split",
    "list_series",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "load_series",
    "read",
    "read_tokens",
    "without_gaps",
]
