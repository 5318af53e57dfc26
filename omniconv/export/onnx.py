"""Networks as ONNX files, for runtimes that know nothing of torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from omniconv._errors import describe, require
from omniconv._files import write_whole
from omniconv.export._plain import AnyDownsample
from omniconv.export.bake import bake
from omniconv.models import Network
from omniconv.nn import Downsample

TOLERANCE = 1e-5
"""Relative difference, in the Euclidean norm, that the file's outputs may have from the network's."""
MOST = 2**31
"""Bytes that an ONNX file can hold."""


def to_onnx(model: Network, file: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a network as an ONNX file for batches and signals of any size, once onnxruntime agrees with it.

    The file has one input "x", (batch, channels, *size) in float32 or, of tokens, ids (batch, size) in int64, and one
    output "y". It holds the convolutions at the resolution of the network, or of its view (`at_resolution`), as ONNX's
    own `Conv`: see `bake`, also for what cannot be written. Masks, times and positions are not in it.

    `model`: in evaluation mode; a copy is written in float32. `file`: what is there is replaced.
    `metadata`: words that go into the file, by name.

    Before anything is written, onnxruntime runs the file on noise of four sizes, three of which the network was not
    traced at. Raises `ArithmeticError` where a relative difference exceeds 1e-5, `ImportError` that names the extra
    `export`, and otherwise `TypeError` or `ValueError` that names the argument.

    >>> from omniconv.models import CCNN
    >>> model = CCNN(1, 2, size=32, blocks=1, width=4).eval()
    >>> to_onnx(model, "model.onnx")  # doctest: +SKIP
    >>> onnxruntime.InferenceSession("model.onnx").run(None, {"x": signals})[0].shape  # doctest: +SKIP
    (8, 2)
    """
    if not isinstance(model, Network):
        raise TypeError(f"`model` must be a network of omniconv.models; got {describe(model)}.")
    words = checked_words(metadata or {})
    size = sum(parameter.nbytes for parameter in model.parameters())
    if size >= MOST:
        raise ValueError(f"`model` has parameters of {size / 2**30:.1f} GiB; an ONNX file holds at most 2.")
    onnxruntime: Any = require("onnxruntime", extra="export", purpose="checking what was written as ONNX")
    require("onnxscript", extra="export", purpose="writing ONNX")
    data = traced(model, words)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch, lengths in zip((2, 1, 3, 1), checked_sizes(model), strict=True):
        check_alike(model, session, noise(model, batch, lengths))
    write_whole(Path(file), data)


def checked_words(metadata: Mapping[str, str]) -> dict[str, str]:
    """The words, or `TypeError` unless names and words are strings."""
    for name, word in metadata.items():
        if not isinstance(name, str) or not isinstance(word, str):
            raise TypeError(f"`metadata` must have words by name, strings both; got {name!r}: {word!r}.")
    return dict(metadata)


def checked_sizes(model: Network) -> list[tuple[int, ...]]:
    """The reference size, at which the network is traced, and three others."""
    return [
        tuple(max(2, n) for n in model.grid.size),
        tuple(n + 3 for n in model.grid.size),
        tuple(n // 2 + 1 for n in model.grid.size),
        tuple(3 * n // 2 + 1 for n in model.grid.size),
    ]


def noise(model: Network, batch: int, size: tuple[int, ...]) -> Tensor:
    """White noise as the network takes it, or ids at random; always the same."""
    generator = torch.Generator().manual_seed(0)
    if model.embedding is not None:
        return torch.randint(model.embedding.tokens, (batch, *size), generator=generator)
    return torch.randn(batch, model.in_channels, *size, generator=generator)


def traced(model: Network, words: Mapping[str, str]) -> bytes:
    """The network as the bytes of an ONNX file."""
    plain = bake(model).float().cpu()
    for name, module in list(plain.named_modules()):
        if isinstance(module, Downsample):
            parent, _, own = name.rpartition(".")
            setattr(plain.get_submodule(parent), own, AnyDownsample(module))
    x = noise(model, 2, checked_sizes(model)[0])
    first = 1 if model.embedding is not None else 2
    free = dict.fromkeys((0, *range(first, x.ndim)), Dim.DYNAMIC)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(plain, (x,), dynamic_shapes=(free,), strict=True)
            written: Any = torch.onnx.export(program, input_names=["x"], output_names=["y"], dynamo=True, verbose=False)
    except Exception as error:  # the framework raises many kinds, most of them its own
        reason = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"`model` cannot be written as ONNX for signals of any size: {type(error).__name__}: {reason}"
        ) from error
    for name, word in words.items():
        written.model.metadata_props[name] = word
    data: bytes = written.model_proto.SerializeToString()
    return data


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the framework says of itself on the way: operators of packages that are not there, old names."""
    loggers = [
        (logging.getLogger(name), level) for name, level in (("torch.onnx", logging.ERROR), ("torch", logging.CRITICAL))
    ]
    before = [logger.level for logger, _ in loggers]
    for logger, level in loggers:
        logger.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for (logger, _), level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@torch.no_grad()
def check_alike(model: Network, session: Any, x: Tensor) -> None:
    """Raise `ArithmeticError` unless the file computes what the network does."""
    parameter = next(model.parameters())
    taken = x if model.embedding is not None else x.to(parameter.dtype)
    expected = model(taken.to(parameter.device)).double().cpu()
    (found,) = session.run(None, {"x": x.numpy()})
    error = torch.from_numpy(found).double() - expected
    relative = float(error.norm() / expected.norm().clamp(min=torch.finfo(torch.float64).tiny))
    if not relative <= TOLERANCE:
        raise ArithmeticError(
            f"the ONNX file differs from the network by {relative:.1e} for signals of size {tuple(x.shape)}; "
            f"{TOLERANCE:.0e} may be. Nothing was written."
        )
