"""Which rank the others wait for: read from the heartbeats that the ranks leave in a run's folder (runtime/health.py).

Ranks are compared with one another, by time since they all met and by what they have passed since; so a node whose
clock is wrong is not taken for a dead one.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from launcher.errors import first_few
from launcher.run.folder import RunDir
from launcher.run.shapes import HEARTBEAT, WAITING

READY = "standby{}.json"  # in the folder of heartbeats: of a rank that waits for its start to begin (start/ahead.py)
BEATS_MISSED = 3  # before a rank counts as gone
BEATS_STILL = 2  # without progress, on every rank, before the slowest is named: ranks do not write at the same moment
SLACK_SECONDS = 1.0


@dataclass(frozen=True)
class Suspect:
    """A rank that the others seem to wait for. `stage` and `step` are the last that it told; `why`: half a sentence."""

    rank: int
    host: str
    stage: str
    step: int | None
    why: str

    def __str__(self) -> str:
        where = f", last in {self.stage}" if self.stage else ""
        at = f" at step {self.step}" if self.step is not None else ""
        return f"rank {self.rank}{f' on {self.host}' if self.host else ''}: {self.why}{where}{at}"


def slowest(run: RunDir) -> list[Suspect]:
    """The ranks that keep a running run from going on, by rank; empty while it does.

    First those that were not heard of in this generation, then those whose heartbeat stopped (the process is stopped or
    gone, or its host is), else, where all beat and none gets anywhere, those that are behind the others.
    """
    start = run.history().last("start")
    if not start:
        return []
    beats = _read(run, start["generation"])
    known = {beat["rank"] for beat in beats}
    missing = [rank for rank in range(start.get("world_size", 0)) if rank not in known]
    if missing:  # they may only be about to start
        waited = max((beat["alive_s"] for beat in beats), default=0) > BEATS_MISSED * _longest_beat(beats)
        return [Suspect(rank, "", "", None, "not heard of yet") for rank in missing] if waited else []
    if silent := _silent(beats):
        return silent
    if any(beat["still_s"] < BEATS_STILL * beat["every_s"] for beat in beats):
        return []
    return [_suspect(b, f"behind the others, no progress for {b['still_s']:.0f} s") for b in _last(beats)]


def to_blame(run: RunDir) -> list[Suspect]:
    """After ranks ended because they got nowhere: those that never noticed, because they were stopped, else those that
    had passed less than the others; empty where all were alike."""
    beats = _read(run, run.generation())
    silent = [beat for beat in beats if not beat["stalled"]]
    if silent:
        return [_suspect(beat, "no sign of life while the others waited") for beat in silent]
    return [_suspect(beat, "behind the others") for beat in _last(beats)]


def named(suspects: Sequence[Suspect]) -> str:
    """The first few of them in one line; empty where there are none."""
    return first_few([*map(str, suspects)])


def stalled(run: RunDir) -> list[int]:
    """Ranks that made no progress for as long as `cluster.stall_minutes` says; their stacks are in their logs."""
    beats = _read(run, run.generation())
    return [beat["rank"] for beat in beats if beat["stalled"]]


def alive(run: RunDir, generation: int) -> int:
    """How many ranks of this generation were heard of."""
    return len(_read(run, generation))


def ready(run: RunDir, generation: int) -> int:
    """How many ranks of this generation wait for it to begin."""
    found = 0
    for file in run.path.glob(f"heartbeats/{READY.format('*')}"):
        with contextlib.suppress(OSError, ValueError):
            found += WAITING.read(file)["generation"] == generation
    return found


def processes(run: RunDir, generation: int) -> dict[int, tuple[str, int]]:
    """{rank: (its node, as Slurm calls it, its process there)} of the ranks of this generation that were heard of."""
    return {beat["rank"]: (beat["host"], beat["pid"]) for beat in _read(run, generation) if "pid" in beat}


def alive_s(run: RunDir, generation: int) -> dict[int, float]:
    """Until when each rank of this generation was heard of: seconds since all ranks met, 0 before that."""
    return {beat["rank"]: beat["alive_s"] if beat["joined"] else 0.0 for beat in _read(run, generation)}


def host(run: RunDir, rank: int) -> str:
    """The node of a rank, as it said last; empty where it was not heard of."""
    with contextlib.suppress(OSError, ValueError):
        return HEARTBEAT.read(run.path / "heartbeats" / f"rank{rank}.json")["host"]
    return ""


def _read(run: RunDir, generation: int) -> list[dict[str, Any]]:
    beats = []
    for file in run.path.glob("heartbeats/rank*.json"):
        with contextlib.suppress(OSError, ValueError):
            beat = HEARTBEAT.read(file)
            if beat["generation"] == generation:
                beats.append({**beat, "written": file.stat().st_mtime})
    return sorted(beats, key=lambda beat: beat["rank"])


def _silent(beats: Sequence[dict[str, Any]]) -> list[Suspect]:
    met = [beat for beat in beats if beat["joined"]]
    if not met:
        return []
    patience = BEATS_MISSED * _longest_beat(met) + SLACK_SECONDS
    latest = max(beat["alive_s"] for beat in met)
    late = [(beat, latest - beat["alive_s"]) for beat in met if latest - beat["alive_s"] > patience]
    # Nobody is left to compare with: only here a clock is read, and only to tell a person.
    quiet = time.time() - max(beat["written"] for beat in beats)
    if quiet > 2 * patience:
        late = [(beat, quiet + latest - beat["alive_s"]) for beat in met]
    return [_suspect(beat, f"no sign of life for {seconds:.0f} s") for beat, seconds in late]


def _last(beats: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of those that have passed less than the others; empty where all are alike."""
    passed = [(beat["points"], beat["marks"]) for beat in beats]
    behind = [beat for beat, place in zip(beats, passed, strict=True) if place == min(passed)]
    return behind if len(behind) < len(beats) else []


def _longest_beat(beats: Sequence[dict[str, Any]]) -> float:
    return max((beat["every_s"] for beat in beats), default=0.0)


def _suspect(beat: dict[str, Any], why: str) -> Suspect:
    return Suspect(beat["rank"], beat["host"], beat["stage"], beat["step"], why)
