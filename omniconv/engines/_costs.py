"""Predicted times: the amounts of work that an engine states, times the rates that were measured on a device."""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from omniconv._machine import processor
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem

SHIPPED = Path(__file__).parent / "rates"
"""A file for every kind of device, in the form that `Rates.to_json` writes."""


@dataclass(frozen=True)
class Rates:
    """What a device's engines take: seconds per unit of work.

    `units`: by "engine mixing axes pass", such as "fft depthwise 1 run", the seconds of each unit that the engine's
    `work` (pass "run") or `adjoint_work` (pass "adjoint") counts.
    `double`: by the same names, those in float64, where they are known; else they are taken for the same.
    `about`: where, when and how they were measured.
    """

    units: dict[str, tuple[float, ...]]
    double: dict[str, tuple[float, ...]]
    about: dict[str, Any]

    def seconds(self, name: str, work: tuple[float, ...], dtype: torch.dtype) -> float:
        """The time of that much work; infinite where the rates are not known."""
        rates = self.units.get(name)
        if dtype == torch.float64:
            rates = self.double.get(name, rates)
        if rates is None:
            return math.inf
        if len(rates) != len(work):
            raise ValueError(
                f"the rates of {name!r} are {len(rates)} numbers for {len(work)} kinds of work: they were measured "
                "with another version. Run `omniconv tune` again."
            )
        return sum(rate * amount for rate, amount in zip(rates, work, strict=True))

    def completed(self, others: Rates) -> Rates:
        """These rates, with the others for mixings, axes and passes of which these have no engine's at all."""
        kinds = {key.split(maxsplit=1)[1] for key in self.units}
        units, double = (
            {key: table[key] for key in table if key.split(maxsplit=1)[1] not in kinds}
            for table in (others.units, others.double)
        )
        return replace(self, units=units | self.units, double=double | self.double)

    @property
    def origin(self) -> str:
        """Where they come from, in words."""
        about = {"processor": "an unknown machine", "date": "an unknown day", **self.about}
        return str(about.get("words") or f"rates measured on {about['processor']}, {about['date']}")

    def to_json(self) -> str:
        """The rates as text with a line for each name."""
        parts = [f'"about": {json.dumps(self.about)}']
        for key, table in (("units", self.units), ("double", self.double)):
            lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in table.items())
            parts.append(f'"{key}": {{\n{lines}\n }}')
        return "{\n " + ",\n ".join(parts) + "\n}\n"

    @staticmethod
    def from_json(text: str) -> Rates:
        """What `to_json` wrote; raises `ValueError` for other text."""
        try:
            read = json.loads(text)
            units, double = (
                {name: tuple(float(rate) for rate in rates) for name, rates in read[key].items()}
                for key in ("units", "double")
            )
            return Rates(units, double, dict(read["about"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a file of measured rates: {error!r}") from error


def run_seconds(engine: Engine, problem: Problem) -> float:
    """Predicted seconds of an engine's convolution; infinite where it is never chosen on its own."""
    work = engine.work(problem)
    return (
        math.inf if work is None else rates(problem.device).seconds(name(engine, problem, "run"), work, problem.dtype)
    )


def adjoint_seconds(engine: Engine, problem: Problem, need_x: bool, need_taps: bool) -> float:
    """Predicted seconds of an engine's gradients."""
    work = engine.adjoint_work(problem, need_x, need_taps)
    if work is None:
        return math.inf
    return rates(problem.device).seconds(name(engine, problem, "adjoint"), work, problem.dtype)


def name(engine: Engine, problem: Problem, part: str) -> str:
    """The name of an engine's rates for a problem."""
    return f"{engine.name} {'depthwise' if problem.depthwise else 'dense'} {problem.dim} {part}"


@lru_cache(maxsize=8)
def rates(device: str) -> Rates:
    """Those that `omniconv tune` measured on this machine, or else those that the package brings.

    A device without any is taken for a CPU: its engines are compared by the CPU's rates. Rates of another machine are
    left out with a warning.
    """
    own = measured_rates(device)
    if own is not None:
        return own
    return shipped(device)


def shipped(device: str) -> Rates:
    """Those that the package brings, for a device without any those of a CPU."""
    path = SHIPPED / f"{device}.json"
    return Rates.from_json((path if path.exists() else SHIPPED / "cpu.json").read_text())


def measured_rates(device: str) -> Rates | None:
    """What `omniconv tune` left on this machine; None where it left nothing that can be used."""
    path: Path | str = "the user's cache directory"
    try:
        path = measured_file(device)
        found = Rates.from_json(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        warnings.warn(f"{path} cannot be read ({error}); the rates of the package are used instead.", stacklevel=2)
        return None
    except ValueError as error:
        raise ValueError(f"{path} is {error}. Delete it, or run `omniconv tune` again.") from error
    here = torch.cuda.get_device_name() if device == "cuda" else processor()
    if found.about.get("processor") != here:
        warnings.warn(
            f"{path} was measured on {found.about.get('processor')}, and this is {here}; the rates of the package are "
            "used instead. Run `omniconv tune` here.",
            stacklevel=2,
        )
        return None
    return found


def measured_file(device: str) -> Path:
    """Where `omniconv tune` keeps a device's rates: in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "omniconv" / f"rates-{device}.json"
