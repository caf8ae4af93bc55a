"""What interruptions cost a run: steps done twice, time in the queue, GPU-hours. Pure, from its ledger."""

from typing import Any

from launcher.run.ledger import History


def interruptions(history: History, gpus: int) -> list[dict[str, Any]]:
    """One entry a restart: cause, lost_steps, queue_s (from the end before to this start), lost_gpu_hours.

    lost_gpu_hours: what its GPUs did between the start and the first step, or twice, the latter at the pace between the
    last start's checkpoints, where it had two. Times are the hosts' own clocks.
    """
    found, ends = [], history.ends
    for start in history.all("start")[1:]:
        generation = start["generation"]
        restored = history.of(generation).first("restored")
        before = ends.get(generation - 1, {}).get("time") or _last_word(history, generation - 1)
        lost = restored.get("lost_steps", 0)
        wasted = max(0.0, restored.get("time", start["time"]) - start["time"]) + restored.get("lost_seconds", 0.0)
        wasted += lost * _step_seconds(history, generation - 1)
        found.append(
            {
                "cause": start["cause"],
                "lost_steps": lost,
                "queue_s": round(max(0.0, start["time"] - before), 1) if before else None,
                "lost_gpu_hours": round(wasted * gpus / 3600, 3),
            }
        )
    return found


def goodput(history: History, step: int) -> float | None:
    """Useful steps / steps executed; None before the first."""
    return round(step / (step + history.lost_steps), 4) if step else None


def worked_seconds(history: History, heard: float = 0.0) -> float:
    """Wall time of all starts, from each start to its end; where nobody could write that down, to the last word.
    heard: when a start that still works was heard of last, outside the ledger."""
    ends, newest = history.ends, history.generation

    def until(generation: int) -> float:
        last = _last_word(history, generation) or 0.0
        return ends.get(generation, {}).get("time") or max(last, heard if generation == newest else 0.0)

    return sum(max(0.0, until(start["generation"]) - start["time"]) for start in history.all("start"))


def _last_word(history: History, generation: int) -> float | None:
    said = (e["time"] for e in history.of(generation) if e["writer"] != "afterwards")
    return max(said, default=None)


def _step_seconds(history: History, generation: int) -> float:
    saved = history.of(generation).all("checkpoint")
    steps = saved[-1]["step"] - saved[0]["step"] if saved else 0
    return max(0.0, saved[-1]["time"] - saved[0]["time"]) / steps if steps > 0 else 0.0
