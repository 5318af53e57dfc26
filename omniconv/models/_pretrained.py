"""Networks as folders: config.json, model.safetensors and, where something is to be told, a model card README.md."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from omniconv import groups, kernels, supports
from omniconv._errors import describe
from omniconv._files import flush_folder, write_flushed
from omniconv.groups import Group
from omniconv.nn import refresh

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = 1
PARTS: dict[str, Any] = {"kernel": kernels, "support": supports, "body": SimpleNamespace(__all__=())}
"""Arguments that are parts, and the folder whose public names they are looked up in; a body is always of your own."""


class Pretrained(nn.Module):
    """Base of networks that are saved as JSON and safetensors, and never as anything that runs when it is loaded.

    A subclass keeps the arguments of its constructor, the ones without `device` and `dtype`, in `self.arguments`.
    """

    arguments: dict[str, Any]
    not_saved: str | None = None
    """Why the network is not what its arguments build, and cannot be saved; None for those that can."""

    trained: ClassVar[dict[str, type[Pretrained]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Pretrained.trained[cls.__name__] = cls

    def save_pretrained(
        self, folder: str | Path, *, extra: Mapping[str, Any] | None = None, card: str | None = None
    ) -> None:
        """Write the network into `folder`: config.json, model.safetensors and, if there is one, the model card.

        `extra`: what else config.json shall hold, JSON values by name. `card`: Markdown for README.md.
        If a file cannot be written, what was there is kept, all of it. A kernel, support or body of your own has to be
        given to `from_pretrained` again. Raises `ValueError` for what has no JSON form, or for a network whose parts
        were replaced, as by `omniconv.export.bake`; `OSError` that names the folder.
        """
        if self.not_saved is not None:
            raise ValueError(f"this {type(self).__name__} cannot be saved as a network: {self.not_saved}")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        weights = save(tensors, metadata={"format": "pt"})
        config = {
            **(extra or {}),
            "format": FORMAT,
            "class": type(self).__name__,
            "arguments": self._described(),
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        files = {WEIGHTS: weights, CONFIG: as_json(config)}
        if card is not None:
            files[CARD] = card.encode()
        write_together(Path(folder), files)

    def _described(self) -> dict[str, Any]:
        described = {}
        for name, value in self.arguments.items():
            if isinstance(value, Group):
                described[name] = describe_group(value)
            else:
                described[name] = describe_part(name, value) if name in PARTS and callable(value) else value
        return described

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str | None = None,
        kernel: Any = None,
        support: Any = None,
        body: Any = None,
        group: Group | None = None,
    ) -> Self:
        """The network that `save_pretrained` wrote into the local `folder`, in evaluation mode.

        `kernel`, `support`, `body`, `group`: the parts to use where those of the file are not the library's own.
        Nothing is downloaded and nothing in the folder is executed. Raises `FileNotFoundError` for a missing file and
        `ValueError` that names the file for one that is damaged or of another kind.
        """
        config = read_config(folder)
        kind = Pretrained.trained.get(str(config.get("class")))
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"{Path(folder) / CONFIG} describes a {config.get('class')!r}, not a {cls.__name__}.")
        path = Path(folder) / WEIGHTS
        tensors = read_tensors(path)
        arguments = dict(config["arguments"])
        try:
            for name, given in (("kernel", kernel), ("support", support), ("body", body)):
                # Of some networks the body is a name, of others it may be left out: plain values as they are.
                plain = name == "body" and given is None and not isinstance(arguments.get(name), dict)
                if plain or name not in inspect.signature(kind).parameters:
                    continue
                arguments[name] = given if given is not None else built_part(name, arguments.get(name))
            if arguments.get("group") is not None:
                arguments["group"] = group if group is not None else built_group(arguments["group"])
            with torch.random.fork_rng(devices=[]):  # the weights that are drawn are thrown away
                model = kind(**arguments, device=device)
        except (TypeError, ValueError, RuntimeError, MemoryError) as error:
            raise ValueError(f"{Path(folder) / CONFIG} does not fit this version of {cls.__name__}: {error}") from error
        check_tensors(path, tensors, model.state_dict())
        check_sum(path, config.get("sha256"))
        model.to(narrowest(tensors))
        model.load_state_dict(tensors)
        refresh(model)
        return model.eval()


def describe_part(name: str, factory: Any) -> dict[str, Any]:
    """A kernel or support factory as JSON: the name of the class and its keywords.

    What is not the library's own has its module before its name, and has to be given again when it is loaded.
    """
    inner, keywords = (factory.func, factory.keywords) if isinstance(factory, partial) else (factory, {})
    if getattr(factory, "args", ()):
        raise ValueError(
            f"`{name}` must be a functools.partial with keywords only, to be saved; got {describe(factory)}."
        )
    known = getattr(inner, "__name__", type(inner).__name__)
    own = known in PARTS[name].__all__ and getattr(PARTS[name], known) is inner
    described = {key: describe_value(name, value) for key, value in keywords.items()}
    return {"class": known if own else f"{getattr(inner, '__module__', '')}.{known}", **described}


def describe_value(name: str, value: Any) -> Any:
    """A keyword of a part as JSON: the parts that it is made of, alone or several, are described as it is."""
    if isinstance(value, (tuple, list)):
        return [describe_value(name, item) for item in value]
    return describe_part(name, value) if callable(value) else value


def built_part(name: str, described: Any) -> Any:
    """The factory that `describe_part` described; only public classes of the library are looked up."""
    if not isinstance(described, dict):
        raise ValueError(f"`{name}` must be an object with the name of a class; got {described!r}.")
    known = str(described.get("class"))
    if known not in PARTS[name].__all__:
        where = f"of omniconv.{name}s" if PARTS[name].__all__ else "of the library"
        raise ValueError(f"`{name}` {known!r} is not part {where}. Give it: from_pretrained(folder, {name}=...).")
    keywords = {key: built_value(name, value) for key, value in described.items() if key != "class"}
    return partial(getattr(PARTS[name], known), **keywords)


def built_value(name: str, described: Any) -> Any:
    """The keyword that `describe_value` described."""
    if isinstance(described, list):
        return [built_value(name, item) for item in described]
    return built_part(name, described) if isinstance(described, dict) else described


def describe_group(group: Group) -> dict[str, Any]:
    """A group as JSON: the name of the class and its parameters; groups among them are described as it is."""
    known = type(group).__name__
    own = getattr(groups, known, None) is type(group)
    fields = {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}  # type: ignore[arg-type]
    described = {
        name: [describe_group(factor) for factor in value] if isinstance(value, tuple) else value
        for name, value in fields.items()
    }
    return {"class": known if own else f"{type(group).__module__}.{known}", **described}


def built_group(described: Any) -> Group:
    """The group that `describe_group` described; only public classes of the library are looked up."""
    known = str(described.get("class")) if isinstance(described, dict) else repr(described)
    kind = getattr(groups, known) if known in groups.__all__ else None
    if not (isinstance(kind, type) and issubclass(kind, Group)):
        raise ValueError(
            f"`group` {known!r} is not part of omniconv.groups. Give it: from_pretrained(folder, group=...)."
        )
    parameters = {
        name: tuple(built_group(item) for item in value) if isinstance(value, list) else value
        for name, value in described.items()
        if name != "class"
    }
    return kind(**parameters)


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a saved network; raises as `Pretrained.from_pretrained` does."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. A saved network is a local folder with {CONFIG} and {WEIGHTS}; nothing is downloaded."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or not isinstance(config.get("arguments"), dict):
        raise ValueError(f"{path} is not the configuration of a network in format {FORMAT}.")
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises `ValueError` that names the file if it is not one, or damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}.")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a sound safetensors file: {error}. Nothing of it was loaded.") from error


def check_sum(path: Path, expected: Any) -> None:
    """Raise `ValueError` unless the file has the checksum that its configuration tells."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise ValueError(
            f"{path} does not have the checksum in its {CONFIG}: one of them is damaged, or belongs to another network."
        )


def check_tensors(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` unless the file holds the tensors of the network, in their shapes."""
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    wrong = [
        name
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
        or found[name].is_floating_point() != expected[name].is_floating_point()
    ]
    if missing or surplus or wrong:
        raise ValueError(
            f"{path} does not fit its {CONFIG}: missing {missing[:3]}, unknown {surplus[:3]}, "
            f"of another shape or kind of number {wrong[:3]}."
        )


def narrowest(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of a network with these tensors: its kernels stay in float32 when the rest is in half precision."""
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return min(dtypes, key=lambda dtype: dtype.itemsize, default=torch.float32)


def as_json(config: Mapping[str, Any]) -> bytes:
    """A configuration as a file; raises `ValueError` for what has no JSON form."""
    try:
        return (json.dumps(config, indent=2, default=plain) + "\n").encode()
    except TypeError as error:
        raise ValueError(f"{CONFIG} can hold JSON values, arrays and tensors: {error}.") from error


def plain(value: Any) -> Any:
    """An array, a tensor or a numpy number as numbers; raises `TypeError` for anything else."""
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        return value.tolist()
    raise TypeError(f"got {describe(value)}")


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files so that none is replaced before all are on the disk; raises `OSError` that names the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {name: folder / f".{name}.{os.getpid()}.tmp" for name in files}
    try:
        for name, data in files.items():
            write_flushed(written[name], data)
        for name, temporary in written.items():
            temporary.replace(folder / name)
    except OSError as error:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"could not write {folder}: {error.strerror}; what was there is kept") from error
    flush_folder(folder)
