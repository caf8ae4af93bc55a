"""python benchmarks/starting.py [--ranks 1 4] [--turns 7]        two minutes.

From the typed command to the end of the first training step: `sslrun method=rotnet recipe=tiny tasks_per_node=N`, on
this machine, beside as many concurrent `python -c 'import torch'`. The sides take turns; printed are medians, lowest
and highest. Limit: twice the import.

new code: the folder of runs is new, so the code is copied into it, and synced, and what was not compiled is compiled.
The other side starts a second run in such a folder. CPU: seconds of all processes of a side, up to that moment; unlike
wall time it says the same on a machine that does other work, too, but nothing of what waits.

Where the time goes: the command up to the ledger's `start`; the ranks' processes up to their first mark; then rank 0's
own account (the event `first_step`). A `torch` of N ranks is N imports at once.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SSLRUN = Path(sys.executable).with_name("sslrun")
TICKS = os.sysconf("SC_CLK_TCK")
LIMIT, PATIENCE, POLL_SECONDS = 2.0, 300.0, 0.02
IMPORT, NEW, AGAIN = "import torch", "start, new code", "start"


@dataclass
class Taken:
    """Seconds by the clock and of CPUs; `parts`: of a start, in order."""

    wall: float
    cpu: float
    parts: dict[str, float] = field(default_factory=dict)


def imported(count: int, environment: dict[str, str]) -> Taken:
    """`count` interpreters at once, until the last has ended."""
    before, began = os.times(), time.monotonic()
    started = [subprocess.Popen([sys.executable, "-c", "import torch"], env=environment) for _ in range(count)]
    if any([process.wait() for process in started]):
        raise SystemExit("torch cannot be imported")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(time.monotonic() - began, cpu)


def started(count: int, runs: Path, seed: int, environment: dict[str, str]) -> Taken:
    """A run of `count` ranks, which is killed after its first step."""
    words = ["method=rotnet", "recipe=tiny", f"tasks_per_node={count}", f"seed={seed}", f"runs={runs}", "--json"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    there, began = {*runs.glob("rotnet-*")}, time.time()
    command = subprocess.Popen([SSLRUN, *words], env=environment, **quiet)
    end = time.monotonic() + PATIENCE
    try:
        while not (event := first_step({*runs.glob("rotnet-*")} - there)):
            if command.poll() is not None or time.monotonic() > end:
                command.kill()
                raise SystemExit(f"it did not come to its first step:\n{command.communicate()[1].decode()}")
            time.sleep(POLL_SECONDS)
        cpu = cpu_of(command.pid)
    finally:
        command.send_signal(signal.SIGKILL)  # its ranks die with it
        command.communicate()
    parts = {"command": event["started"] - began}
    parts["processes"] = event["time"] - event["started"] - sum(event["seconds"].values())
    return Taken(event["time"] - began, cpu, {**parts, **event["seconds"]})


def first_step(runs: set[Path]) -> dict | None:
    """The event of that name, with the time of the event `start` as `started`; None while there is none."""
    rows = [json.loads(line) for run in runs for file in run.glob("events/*.jsonl") for line in whole_lines(file)]
    events = {row["event"]: row for row in rows}
    return events["first_step"] | {"started": events["start"]["time"]} if "first_step" in events else None


def whole_lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def cpu_of(pid: int) -> float:
    """Seconds that a process, its children and those that it has waited for have had."""
    stats = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        stats[int(file.parent.name)] = int(fields[1]), sum(map(int, fields[11:15])) / TICKS
    ours = {pid}
    while more := {each for each, (parent, _) in stats.items() if parent in ours} - ours:
        ours |= more
    return sum(stats[each][1] for each in ours if each in stats)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    loads = [os.getloadavg()[0]]
    found: dict[tuple[int, str], list[Taken]] = {(n, s): [] for n in options.ranks for s in (IMPORT, NEW, AGAIN)}
    for turn in range(options.turns + 1):
        for count in options.ranks:
            with tempfile.TemporaryDirectory(prefix="starting-") as folder:
                taken = {IMPORT: imported(count, environment)}
                taken |= {s: started(count, Path(folder), seed, environment) for seed, s in enumerate((NEW, AGAIN))}
            for side, each in taken.items() if turn else ():  # the first turn fills caches
                found[count, side].append(each)
            loads.append(os.getloadavg()[0])
    print(f"{options.turns} turns on {os.cpu_count()} cores, load average {min(loads):.1f} to {max(loads):.1f}\n")
    print(f"| ranks | | seconds | / import (limit {LIMIT:g}) | CPU seconds | / import |\n|---|---|---|---|---|---|")
    for (count, side), takes in found.items():
        base = found[count, IMPORT]
        walls, cpus = ([getattr(t, what) for t in takes] for what in ("wall", "cpu"))
        ratios = [
            spread([x / getattr(b, w) for x, b in zip(v, base, strict=True)])
            for v, w in ((walls, "wall"), (cpus, "cpu"))
        ]
        print(f"| {count} | {side} | {spread(walls)} | {ratios[0]} | {spread(cpus)} | {ratios[1]} |")
    print("\nWhere it goes, medians in seconds:\n")
    sides = {key: takes for key, takes in found.items() if key[1] != IMPORT}
    parts = list(dict.fromkeys(part for takes in sides.values() for taken in takes for part in taken.parts))
    print(f"| ranks | | {' | '.join(parts)} |\n|{'---|' * (len(parts) + 2)}")
    for (count, side), takes in sides.items():
        medians = (statistics.median([taken.parts.get(part, 0.0) for taken in takes]) for part in parts)
        print(f"| {count} | {side} | {' | '.join(f'{value:.2f}' for value in medians)} |")


if __name__ == "__main__":
    main()
