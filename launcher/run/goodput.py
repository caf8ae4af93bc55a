"""What interruptions cost a run: steps done twice, time in the queue, GPU-hours. Pure, from its ledger."""

import itertools
from typing import Any

from launcher.run.ledger import Event, History


def interruptions(history: History, gpus: int) -> list[dict[str, Any]]:
    """One entry a restart: cause, where (same job, queue or by hand), in_place (in the same job), why (only Slurm could
    mend it, where that is more than the cause), node (where it began, if known), lost_steps, queue_s (from the end
    before to this start), lost_gpu_hours.

    lost_gpu_hours: what its GPUs did between the start and the first step, or twice, the latter at the pace between the
    last start's checkpoints, where it had two. Times are the hosts' own clocks. gpus: of a start that does not say how
    many ranks it had; 0: ranks have none.
    """
    found, ends, starts = [], history.ends, history.all("start")
    for before_it, start in itertools.pairwise(starts):
        generation = start["generation"]
        restored = history.of(generation).first("restored")
        end = ends.get(generation - 1, {})
        before = end.get("time") or _last_word(history, generation - 1)
        lost = restored.get("lost_steps", 0)
        idle = max(0.0, restored.get("time", start["time"]) - start["time"])
        twice = restored.get("lost_seconds", 0.0) + lost * _step_seconds(history, generation - 1)
        wasted = idle * gpus_of(start, gpus) + twice * gpus_of(before_it, gpus)
        found.append(
            {
                "cause": start["cause"],
                "where": where(start, end, history),
                "in_place": bool(end.get("in_place")),
                "why": reason(end) or None,
                "node": end.get("node"),
                "lost_steps": lost,
                "queue_s": round(max(0.0, start["time"] - before), 1) if before else None,
                "lost_gpu_hours": round(wasted / 3600, 3),
            }
        )
    return found


def where(start: Event, end: Event, history: History) -> str:
    """How it came to start again after `end`: in the same job, through the queue, or because somebody asked for it."""
    if end.get("in_place"):
        return "same job"
    asked = not start.get("job") or history.of(start["generation"]).all("submitted")
    return "by hand" if asked else "queue"


def reason(end: Event) -> str:
    """Why only Slurm could mend what ended a start; empty where its cause says that, or where the job could."""
    why = end.get("why") or ""
    return "" if why == end.get("cause", "").replace("_", " ") else why


def spares(history: History, gpus_per_node: int, heard: float = 0.0) -> dict[str, Any] | None:
    """What nodes in reserve brought, and what they cost; None where no start had any.

    restarts: those in the same job that took a spare in the place of a node that was left out; went_on_after_s: of
    each, from the end before until it went on from its checkpoint, None where it came to nothing. idle_node_hours,
    idle_gpu_hours: of the nodes that waited while a start worked. gpus_per_node: 0 where ranks have none; heard: as of
    `worked_seconds`.
    """
    starts, ends = worked(history, heard), history.ends
    if not any(start.get("spares") for start, _ in starts):
        return None
    after: list[float | None] = []
    for (before_it, _), (start, _) in itertools.pairwise(starts):
        end = ends.get(before_it["generation"], {})
        if end.get("in_place") and start.get("spares", 0) < before_it.get("spares", 0):
            restored = history.of(start["generation"]).first("restored")
            after.append(round(max(0.0, restored["time"] - end["time"]), 1) if restored else None)
    idle = sum(seconds * start.get("spares", 0) for start, seconds in starts) / 3600
    return {
        "restarts": len(after),
        "went_on_after_s": after,
        "idle_node_hours": round(idle, 3),
        "idle_gpu_hours": round(idle * gpus_per_node, 3),
    }


def goodput(history: History, step: int) -> float | None:
    """Useful steps / steps executed; None before the first."""
    return round(step / (step + history.lost_steps), 4) if step else None


def gpus_of(start: Event, gpus: int) -> int:
    """GPUs that worked in a start: one a rank. gpus: as of `interruptions`."""
    return (start.get("world_size") or gpus) if gpus else 0


def worked_seconds(history: History, heard: float = 0.0) -> float:
    """Wall time of all starts, from each start to its end; where nobody could write that down, to the last word.
    heard: when a start that still works was heard of last, outside the ledger."""
    return sum(seconds for _, seconds in worked(history, heard))


def worked_gpu_seconds(history: History, gpus: int, heard: float = 0.0) -> float:
    """That time by the GPUs of each start; see `interruptions`."""
    return sum(seconds * gpus_of(start, gpus) for start, seconds in worked(history, heard))


def worked(history: History, heard: float = 0.0) -> list[tuple[Event, float]]:
    """(each start, the seconds that it worked), as `worked_seconds` adds them up."""
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
