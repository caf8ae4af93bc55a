"""What interruptions cost a run: steps done twice, time in the queue, GPU-hours. Pure, from its ledger."""

import itertools
from typing import Any

from launcher.run.ledger import Event, History


def interruptions(history: History, gpus: int) -> list[dict[str, Any]]:
    """One entry a restart: cause, in_place (in the same job), lost_steps, queue_s (from the end before to this start),
    lost_gpu_hours.

    lost_gpu_hours: what its GPUs did between the start and the first step, or twice, the latter at the pace between the
    last start's checkpoints, where it had two. Times are the hosts' own clocks. gpus: of a start that does not say how
    many ranks it had; 0: ranks have none.
    """
    found, ends, starts = [], history.ends, history.all("start")
    for before_it, start in itertools.pairwise(starts):
        generation = start["generation"]
        restored = history.of(generation).first("restored")
        before = ends.get(generation - 1, {}).get("time") or _last_word(history, generation - 1)
        lost = restored.get("lost_steps", 0)
        idle = max(0.0, restored.get("time", start["time"]) - start["time"])
        twice = restored.get("lost_seconds", 0.0) + lost * _step_seconds(history, generation - 1)
        wasted = idle * gpus_of(start, gpus) + twice * gpus_of(before_it, gpus)
        found.append(
            {
                "cause": start["cause"],
                "in_place": bool(ends.get(generation - 1, {}).get("in_place")),
                "lost_steps": lost,
                "queue_s": round(max(0.0, start["time"] - before), 1) if before else None,
                "lost_gpu_hours": round(wasted / 3600, 3),
            }
        )
    return found


def goodput(history: History, step: int) -> float | None:
    """Useful steps / steps executed; None before the first."""
    return round(step / (step + history.lost_steps), 4) if step else None


def gpus_of(start: Event, gpus: int) -> int:
    """GPUs that worked in a start: one a rank. gpus: as of `interruptions`."""
    return (start.get("world_size") or gpus) if gpus else 0


def worked_seconds(history: History, heard: float = 0.0) -> float:
    """Wall time of all starts, from each start to its end; where nobody could write that down, to the last word.
    heard: when a start that still works was heard of last, outside the ledger."""
    return sum(seconds for _, seconds in _worked(history, heard))


def worked_gpu_seconds(history: History, gpus: int, heard: float = 0.0) -> float:
    """That time by the GPUs of each start; see `interruptions`."""
    return sum(seconds * gpus_of(start, gpus) for start, seconds in _worked(history, heard))


def _worked(history: History, heard: float) -> list[tuple[Event, float]]:
    ends, newest = history.ends, history.generation

    def until(generation: int) -> float:
        last = _last_word(history, generation) or 0.0
        return ends.get(generation, {}).get("time") or max(last, heard if generation == newest else 0.0)

    return [(start, max(0.0, until(start["generation"]) - start["time"])) for start in history.all("start")]


def _last_word(history: History, generation: int) -> float | None:
    said = (e["time"] for e in history.of(generation) if e["writer"] != "afterwards")
    return max(said, default=None)


def _step_seconds(history: History, generation: int) -> float:
    saved = history.of(generation).all("checkpoint")
    steps = saved[-1]["step"] - saved[0]["step"] if saved else 0
    return max(0.0, saved[-1]["time"] - saved[0]["time"]) / steps if steps > 0 else 0.0
