"""Every test starts from the same random state, on one thread: two workers share the two cores."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


def pytest_configure() -> None:
    """What someone measured on this machine decides no test: every process of a session has an empty cache folder."""
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="omniconv-tests-")


def pytest_unconfigure() -> None:
    """Matplotlib, too, has put its fonts there."""
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
