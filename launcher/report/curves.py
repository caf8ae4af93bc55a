"""The curves of a run, from metrics.jsonl: TensorBoard's own files need its reader, and say no more."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.run.files import LARGEST, object_in, opened

MOST = 400  # points of one curve; more than a picture has pixels for
FIRST = ("loss", "lr", "images_per_s")


@dataclass(frozen=True)
class Curve:
    """A number over the steps at which it was written. None: it was not a number there."""

    name: str
    steps: list[float]
    values: list[float | None]


def read(file: Path) -> list[Curve]:
    """Every number of the run but those said once, the loss first. Lines that are torn are left out, and what a start
    wrote beyond the step from which the next one went on."""
    columns: dict[str, tuple[list[float], list[float | None]]] = {}
    for row in _that_count(file):
        for name, value in row.items():
            if name in ("step", "time") or not isinstance(value, int | float) or isinstance(value, bool):
                continue
            steps, values = columns.setdefault(name, ([], []))
            steps.append(row["step"])
            values.append(float(value) if math.isfinite(value) else None)
    curves = [Curve(name, *_thinned(*columns[name])) for name in columns if len(columns[name][0]) > 1]
    return sorted(curves, key=lambda c: (FIRST.index(c.name) if c.name in FIRST else len(FIRST), c.name))


def _that_count(file: Path) -> list[dict[str, Any]]:
    """Rows in the order of their steps, each step once."""
    rows: list[dict[str, Any]] = []
    for row in _rows(file):
        while rows and rows[-1]["step"] > row["step"]:
            rows.pop()
        if rows and rows[-1]["step"] == row["step"]:
            rows[-1] |= row
        else:
            rows.append(row)
    return rows


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(opened(file), "rb") as stream:
            lines = stream.read(LARGEST).splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        row = object_in(line)  # None: a writer was killed in its middle
        if row and isinstance(row.get("step"), int):
            yield row


def _thinned(steps: list[float], values: list[float | None]) -> tuple[list[float], list[float | None]]:
    """The mean of every few neighbours where there are too many; one that is no number stays seen."""
    every = math.ceil(len(steps) / MOST)
    if every == 1:
        return steps, values
    parts = [slice(first, first + every) for first in range(0, len(steps), every)]
    return [sum(steps[p]) / len(steps[p]) for p in parts], [_mean(values[p]) for p in parts]


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else sum(values) / len(values)
