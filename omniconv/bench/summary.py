"""What the cells say together: how good the automatic choice is, and how it stands beside what people use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from omniconv.bench.cases import GOALS, LONG, Goal
from omniconv.bench.conv import CLOSE, PEERS, SLOWER, Cell, Measured


def summarise(measured: Measured, goals: Sequence[Goal] = GOALS) -> dict[str, Any]:
    """The figures by which the library is judged, for JSON.

    `choice`: the automatic choice beside the best engine. `predictions`: of times, by engine. `peers`: the automatic
    choice beside the better of `PEERS`. `goals`: cases with a goal of their own. `long`: on the long sequences of
    published comparisons.
    """
    return {
        "choice": choice(measured.cells),
        "predictions": predictions(measured.cells),
        "peers": peers(measured.cells),
        "measured": len(measured.cells),
        "missing": len(measured.missing),
        "goals": [reached(measured, goal) for goal in goals if measured.device == "cpu"],
        "long": [long(measured, cell) for cell in measured.cells if cell.case.family == LONG],
    }


def choice(cells: Sequence[Cell]) -> dict[str, Any]:
    """Share of the cells in which "auto" is close to the best engine by its name, and the worst ratio."""
    ratios = {}
    for cell in cells:
        if cell.engines:
            ratios[cell.case.name] = cell.ratio("auto", cell.fastest(cell.engines))
    return {
        "cells": len(ratios),
        "share_within_10_percent": sum(ratio <= CLOSE for ratio in ratios.values()) / max(1, len(ratios)),
        **largest(ratios),
    }


def predictions(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """By engine, and of "auto": cells, the typical factor between predicted and measured time (the exponential of the
    root mean square of its logarithm), and the worst factor with its case, above 1 where too much was predicted.

    What took no part in rounds is left out unless it was chosen.
    """
    factors: dict[str, dict[str, float]] = {}
    for cell in cells:
        chosen = ("auto", *cell.chosen.split(", "))
        for name in [name for name in cell.predicted if name in cell.names]:
            if name in cell.once and name not in chosen:
                continue
            factors.setdefault(name, {})[cell.case.name] = cell.predicted[name] / cell.seconds(name)
    judged = {}
    for name, by_case in factors.items():
        logarithms = [math.log(factor) for factor in by_case.values()]
        typical = math.exp(math.sqrt(sum(x * x for x in logarithms) / len(logarithms)))
        worst = max(by_case, key=lambda case: abs(math.log(by_case[case])))
        judged[name] = {"cells": len(by_case), "typical": typical, "worst": by_case[worst], "worst_case": worst}
    return judged


def peers(cells: Sequence[Cell]) -> dict[str, Any]:
    """Time of "auto" over that of the better peer: the geometric mean, the largest, the cells where it is slower."""
    ratios, slower = {}, []
    for cell in cells:
        if timed := [name for name in cell.names if name in PEERS]:
            best = cell.fastest(timed)
            ratios[cell.case.name] = ratio = cell.ratio("auto", best)
            if ratio > SLOWER:
                slower.append({"case": cell.case.name, "peer": best, "ratio": ratio})
    mean = math.exp(sum(map(math.log, ratios.values())) / max(1, len(ratios)))
    return {
        "cells": len(ratios),
        "mean": mean,
        **largest(ratios),
        "slower": sorted(slower, key=lambda row: -float(row["ratio"])),
    }


def largest(ratios: dict[str, float]) -> dict[str, Any]:
    """The largest ratio and its case; None without any."""
    worst = max(ratios, key=ratios.__getitem__, default=None)
    return {"worst": None if worst is None else ratios[worst], "worst_case": worst}


def reached(measured: Measured, goal: Goal) -> dict[str, Any]:
    """How many times as fast as the peer "auto" is, its share of memory, and whether both are as wanted; None where the
    case was not measured.
    """
    cell = next((cell for cell in measured.cells if cell.case == goal.case), None)
    speed = memory = None
    if cell is not None and goal.peer in cell.names:
        speed = cell.ratio(goal.peer, "auto")
    if cell is not None and goal.memory_peer in cell.memory:
        memory = cell.memory["auto"] / cell.memory[goal.memory_peer]
    return {
        "case": goal.case.name,
        "peer": goal.peer,
        "times_as_fast": speed,
        "wanted": goal.times,
        "memory_peer": goal.memory_peer,
        "memory": memory,
        "wanted_memory": goal.memory,
        "reached": speed is not None and memory is not None and speed >= goal.times and memory <= goal.memory,
    }


def long(measured: Measured, cell: Cell) -> dict[str, Any]:
    """Milliseconds of "auto", times of a copy, and how many times as fast as each peer that was timed it is."""
    return {
        "case": cell.case.name,
        "chosen": cell.chosen,
        "ms": 1e3 * cell.seconds("auto"),
        "times_copy": cell.seconds("auto") / measured.floor(cell.case),
        "times_as_fast": {name: cell.ratio(name, "auto") for name in cell.peers},
    }
