"""What the library must not contain: anything that runs what a file says, or that fetches files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import omniconv

ROOT = Path(omniconv.__file__).parent
PLANTED = {
    "import pickle\npickle.load(file)": "pickle",
    "from pickle import loads": "pickle",
    "import _pickle as c": "pickle",
    "import joblib": "joblib",
    "import dill": "dill",
    "import marshal": "marshal",
    "import shelve": "shelve",
    "import torch\ntorch.load(path)": "torch.load",
    "import torch\ntorch.load(path, weights_only=True)": "torch.load",
    "import torch as t\nt.load(path)": "torch.load",
    "from torch import load": "torch.load",
    "import torch\ntorch.hub.load('owner/name', 'model')": "torch.hub",
    "import torch\ntorch.jit.load(path)": "torch.jit.load",
    "import numpy as np\nnp.load(path)": "np.load",
    "import numpy as np\nnp.load(path, allow_pickle=True)": "np.load",
    "import numpy as np\nnp.load(path, allow_pickle=allowed)": "np.load",
    "from numpy import load": "np.load",
    "eval(path.read_text())": "eval",
    "exec(text)": "exec",
    "__import__(name)": "__import__",
    "import pandas\npandas.read_pickle(path)": "read_pickle",
    "import yaml\nyaml.load(text)": "yaml",
    "import urllib.request": "urllib",
    "from urllib.request import urlopen": "urllib",
    "import requests": "requests",
    "import http.client": "http",
    "import socket": "socket",
    "from huggingface_hub import snapshot_download": "huggingface_hub",
    "require('huggingface_hub', extra='hub', purpose='p')": "huggingface_hub",
    "import importlib\nimportlib.import_module('pickle')": "pickle",
}
HARMLESS = [
    "import numpy as np\nnp.load(path, mmap_mode='r', allow_pickle=False)",
    "import json\njson.load(file)",
    "model.eval()",
    "from safetensors.torch import load, load_file\nload(data)",
    "'pickle.load(file) and eval(text) in a string'",
]

RUNNING = {"pickle", "_pickle", "cPickle", "joblib", "dill", "cloudpickle", "marshal", "shelve", "yaml"}
FETCHING = {"urllib", "urllib3", "requests", "httpx", "aiohttp", "http", "ftplib", "socket", "wget", "huggingface_hub"}


def offences(source: str) -> Iterator[str]:
    """What a file does that it must not; imports of the core of a package are told by their first name."""
    aliases: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                aliases[name.asname or name.name.split(".")[0]] = name.name if name.asname else name.name.split(".")[0]
                yield from forbidden_package(name.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from forbidden_package(node.module)
            for name in node.names:
                yield from forbidden_call(f"{node.module}.{name.name}", None)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            first, dot, rest = called.partition(".")
            yield from forbidden_call(aliases.get(first, first) + dot + rest, node)
            if called.rpartition(".")[2] in ("require", "import_module") and node.args:
                yield from forbidden_package(ast.unparse(node.args[0]).strip("'\""))


def forbidden_package(name: str) -> Iterator[str]:
    if name.split(".")[0] in RUNNING | FETCHING or name.startswith("torch.hub"):
        yield name.lstrip("_")


def forbidden_call(name: str, call: ast.Call | None) -> Iterator[str]:
    """`call`: None for a name that is imported, which is then out of sight."""
    if name in ("torch.load", "torch.jit.load", "torch.package") or name.startswith("torch.hub."):
        yield name
    if name == "numpy.load":
        safe = call is not None and any(
            word.arg == "allow_pickle" and isinstance(word.value, ast.Constant) and word.value.value is False
            for word in call.keywords
        )
        if not safe:
            yield "np.load without allow_pickle=False"
    if name in ("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"):
        yield name
    if name.rpartition(".")[2] in ("read_pickle", "load_state_dict_from_url", "download_url_to_file"):
        yield name


FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
ALLOWED = {
    "models/hub.py": FETCHING,  # the one place that downloads
    "testing/layers.py": {"pickle"},  # pickles a layer and reads it back, in memory: see below
}


@pytest.mark.parametrize("name", FILES)
def test_nothing_runs_what_a_file_says_or_fetches_files(name: str) -> None:
    allowed = ALLOWED.get(name, set())
    found = [what for what in offences((ROOT / name).read_text(encoding="utf-8")) if what.split(".")[0] not in allowed]
    assert found == []


def test_the_test_helpers_unpickle_nothing_but_what_they_have_pickled() -> None:
    calls = [
        ast.unparse(node)
        for node in ast.walk(ast.parse((ROOT / "testing/layers.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pickle.load", "pickle.loads")
    ]
    assert calls == ["pickle.loads(pickle.dumps(layer))"]


def test_the_whole_package_was_looked_at() -> None:
    assert len(FILES) > 40
    assert {"training/checkpoints.py", "training/predictor.py", "models/_pretrained.py", "data/arrays.py"} <= set(FILES)


@pytest.mark.parametrize(("source", "offence"), list(PLANTED.items()))
def test_what_is_planted_is_found(source: str, offence: str) -> None:
    assert any(offence in found for found in offences(source))


@pytest.mark.parametrize("source", HARMLESS)
def test_what_is_harmless_is_not(source: str) -> None:
    assert list(offences(source)) == []
