"""Every test starts from the same random state, on one thread: two workers share the two cores."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined
os.environ["XDG_CACHE_HOME"] = "/nonexistent"  # what someone measured on this machine decides no test
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
