"""Slurm's notation -> names and numbers. Pure."""

import contextlib
import re
from collections.abc import Iterator

from launcher import durations

EMPTY = ("", "(null)", "None", "none", "N/A", "Unknown", "NONE", "None assigned")


def expand(nodelist: str) -> list[str]:
    """The names behind Slurm's short form: "n[1-3,7]" -> n1 n2 n3 n7, "r[0-1]n[01-02],login" -> five names."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text(nodelist)):
        here = [""]
        for plain, ranges in re.findall(r"([^\[]+)|\[([^\]]*)\]", part):
            here = [name + piece for name in here for piece in ([plain] if plain else _numbers(ranges))]
        names += here
    return names


def _numbers(ranges: str) -> Iterator[str]:
    for item in ranges.split(","):
        first, _, last = item.partition("-")
        yield from (str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1))


def text(value: str) -> str:
    return "" if value in EMPTY else value


def words(value: str) -> tuple[str, ...]:
    return () if value in ("ALL", *EMPTY) else tuple(value.split(","))


def number(value: str) -> int | None:
    """With which a value begins: 30 of "30 sec"; None where it begins with none."""
    match = re.match(r"\d+", value)
    return int(match[0]) if match else None


def minutes(limit: str) -> int | None:
    """None for UNLIMITED."""
    with contextlib.suppress(ValueError):
        return durations.minutes(limit)
    return None


def left(limit: str, used: str) -> str:
    """Of a time limit, of which so much is used, as squeue writes it; empty where there is none."""
    with contextlib.suppress(ValueError):
        rest = max(0, durations.seconds(limit) - durations.seconds(used))
        return f"{rest // 60}:{rest % 60:02d}"
    return ""


def gpus(gres: str) -> tuple[int, str]:
    """How many, and their kinds: "gpu:a100:8(S:0-1),mps:800" -> 8, "a100"."""
    total, kinds = 0, []
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = item.split(":")
        if name == "gpu":
            total += int(rest[-1]) if rest and rest[-1].isdigit() else 1
            kinds += [rest[0]] if rest and not rest[0].isdigit() else []
    return total, "+".join(kinds)
