"""What interruptions cost a run: steps done twice, time in the queue, GPU-hours. Pure, from its ledger."""

from collections.abc import Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]


def interruptions(events: Sequence[Event], gpus: int) -> list[dict[str, Any]]:
    """One entry a restart: cause, lost_steps, queue_s (from the end before to this start), lost_gpu_hours.

    lost_gpu_hours: what its GPUs did between the start and the first step, or twice, the latter at the pace between the
    last life's checkpoints, where it had two. Times are the hosts' own clocks.
    """
    starts = {e["generation"]: e for e in events if e["event"] == "start"}
    # An end that nobody could write down is written by the next start: too late to tell how long that one waited.
    ends = {e["generation"]: e for e in events if e["event"] == "end" and e.get("writer") != "afterwards"}
    found = []
    for generation, start in starts.items():
        if generation == min(starts):
            continue
        restored = next((e for e in events if e["event"] == "restored" and e["generation"] == generation), {})
        before = ends.get(generation - 1, {}).get("time") or _last_word(events, generation - 1)
        lost = restored.get("lost_steps", 0)
        wasted = max(0.0, restored.get("time", start["time"]) - start["time"]) + restored.get("lost_seconds", 0.0)
        wasted += lost * _step_seconds(events, generation - 1)
        found.append(
            {
                "cause": start["cause"],
                "lost_steps": lost,
                "queue_s": round(max(0.0, start["time"] - before), 1) if before else None,
                "lost_gpu_hours": round(wasted * gpus / 3600, 3),
            }
        )
    return found


def goodput(events: Sequence[Event], step: int) -> float | None:
    """Useful steps / steps executed; None before the first."""
    lost = sum(e.get("lost_steps", 0) for e in events if e["event"] == "restored")
    return round(step / (step + lost), 4) if step else None


def worked_seconds(events: Sequence[Event], heard: float = 0.0) -> float:
    """Wall time of all starts, from each start to its end; where nobody could write that down, to the last word.
    heard: when a start that still works was heard of last, outside the ledger."""
    starts = {e["generation"]: e["time"] for e in events if e["event"] == "start"}
    ends = {e["generation"]: e["time"] for e in events if e["event"] == "end" and e.get("writer") != "afterwards"}
    newest = max(starts, default=0)

    def until(generation: int) -> float:
        last = _last_word(events, generation) or 0.0
        return ends.get(generation) or max(last, heard if generation == newest else 0.0)

    return sum(max(0.0, until(generation) - start) for generation, start in starts.items())


def _last_word(events: Sequence[Event], generation: int) -> float | None:
    said = (e["time"] for e in events if e["generation"] == generation and e.get("writer") != "afterwards")
    return max(said, default=None)


def _step_seconds(events: Sequence[Event], generation: int) -> float:
    saved = [e for e in events if e["event"] == "checkpoint" and e["generation"] == generation]
    steps = saved[-1]["step"] - saved[0]["step"] if saved else 0
    return max(0.0, saved[-1]["time"] - saved[0]["time"]) / steps if steps > 0 else 0.0
