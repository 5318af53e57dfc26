"""Options from and to TOML files: every option of `omniconv fit` can stand there, under its own name."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omniconv._errors import require
from omniconv._files import write_whole

ABSENT = "(not given)"


def with_config(command: type[Any], arguments: list[str]) -> tuple[Any, list[str]]:
    """The command with the defaults of `--config FILE`, and the arguments without that option; None without a file.

    `arguments`: what follows the name of the command. What is given there goes before the file. Options that have no
    default and are not in the file are `ABSENT`, for `check_given` to find if the arguments do not give them either.
    """
    kept: list[str] = []
    paths: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == "--config":
            paths.append(value if equals else next(rest, ""))
        else:
            kept.append(argument)
    if not paths:
        return None, arguments
    if len(paths) > 1 or not paths[0]:
        raise ValueError("`--config` takes one file, once.")
    hints = get_type_hints(command)
    absent = {
        field.name: Path(ABSENT) if hints[field.name] is Path else ABSENT
        for field in fields(command)
        if field.default is MISSING
    }
    return command(**{**absent, **read_options(Path(paths[0]), command)}), kept


def check_given(command: Any) -> None:
    """Raise `ValueError` if an option without a default came neither from the file nor from the command line."""
    for field in fields(command):
        if str(getattr(command, field.name)) == ABSENT:
            raise ValueError(f"`{field.name}` is neither in the file of --config nor on the command line.")


def read_options(path: Path, command: type[Any]) -> dict[str, Any]:
    """The options in a TOML file, checked by name and kind.

    Raises `ValueError` that names the nearest option for one that does not exist.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}.") from error
    hints = get_type_hints(command)
    return {name: converted(path, name, value, hints) for name, value in options.items()}


def converted(path: Path, name: str, value: Any, hints: dict[str, Any]) -> Any:
    """A value of the file as its option wants it; raises as `read_options` does."""
    if name not in hints:
        close = get_close_matches(name, hints, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else f" Options are {', '.join(hints)}."
        raise ValueError(f"{path}: there is no option {name!r}.{meant}")
    hint = hints[name]
    if get_origin(hint) is tuple:
        (kind, *_), items = get_args(hint), value if isinstance(value, list) else [value]
        if isinstance(value, list) and all(item in get_args(kind) for item in items):
            return tuple(value)
        raise ValueError(f"{path}: `{name}` must be a list of {', '.join(map(repr, get_args(kind)))}; got {value!r}.")
    kinds = [kind for kind in kinds_of(hint) if kind is not NoneType]
    for kind in kinds:
        if kind is Path and isinstance(value, str):
            return Path(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is kind or value == kind:  # a kind may be one of several literal values
            return value
    wanted = " or ".join(getattr(kind, "__name__", repr(kind)) for kind in kinds)
    raise ValueError(f"{path}: `{name}` must be {wanted}; got {value!r}.")


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """The types and literal values of a union, of literal values or of one type."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(kind for part in get_args(hint) for kind in kinds_of(part)) or (hint,)


def write_options(path: Path, command: Any) -> None:
    """Every option of a command as TOML, but those that are None, which TOML cannot say and leaving out means."""
    tomli_w: Any = require("tomli_w", extra="cli", purpose="writing run.toml")
    values = {field.name: getattr(command, field.name) for field in fields(command)}
    plain = {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }
    write_whole(path, tomli_w.dumps(plain).encode())
