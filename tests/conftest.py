"""Every test starts from the same random state, on one thread: two workers share the two cores."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined


def replace_the_language_once() -> None:
    """Triton's interpreter replaces the functions of the language when a kernel starts, and again at every call of a
    function in it, where it finds them replaced: up to half the time. Here it does so once per kernel and module.
    """
    from triton import language
    from triton.runtime import interpreter

    if not hasattr(interpreter, "_patch_lang"):  # Triton's own name: another version may have another
        return
    replace, replaced = interpreter._patch_lang, set[int]()

    def replace_once(function: Any) -> Any:
        if language.core.is_builtin(language.load):  # a kernel starts: when the last one ended, all was put back
            replaced.clear()
        elif id(function.__globals__) in replaced:
            return None  # the interpreter, too, has no use for what comes back of a call in a kernel
        replaced.add(id(function.__globals__))
        return replace(function)

    interpreter._patch_lang = replace_once


if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton"):
    replace_the_language_once()
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
