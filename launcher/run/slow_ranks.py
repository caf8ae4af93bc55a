"""Which rank takes longer over its own part of a step than the others: the rule, and what a person can do about it.

Ranks tell how long that part took, of every WINDOW steps together (runtime/pace.py). One that is slow is named after
some of these in a row, and is named until it has been well in as many: what happens once, and what goes up and down
around the threshold, is no news.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median_low
from typing import Any

from launcher.errors import first_few
from launcher.run.ledger import Event, History
from launcher.run.state import ACTIVE

WINDOW = 100  # steps that each rank tells of at once
IN_A_ROW = 3  # of these, before a rank is named, and before it no longer is
SLOW, WELL = 1.2, 1.1  # times the median
LEAST_SECONDS = 0.001  # a step, above the median: less is of no account, however short the steps are
NODE = re.compile(r"[\w.-]+")  # as clusters call theirs; of another name no line is made for a shell


@dataclass(frozen=True)
class Change:
    """A rank became slow, or no longer is. ratio: of its own part of a step to the median of all ranks."""

    rank: int
    ratio: float
    slow: bool


class Judge:
    """Looks at one window after another."""

    def __init__(self) -> None:
        self._named: set[int] = set()
        self._otherwise: dict[int, list[float]] = {}  # rank: its ratios since it was last as it counts

    def look(self, seconds: Sequence[float]) -> list[Change]:
        """seconds: of each rank, a step; NaN of one that measured none, of which nothing is said. The median is the
        lower one where there are two, or of two ranks neither could be much slower than it."""
        measured = {rank: own for rank, own in enumerate(seconds) if own > 0}
        usual = median_low(measured.values()) if measured else 0.0
        changes = []
        for rank, own in measured.items():
            named, ratio = rank in self._named, own / usual
            other = ratio < WELL if named else ratio >= SLOW and own - usual >= LEAST_SECONDS
            seen = self._otherwise[rank] = [*self._otherwise.get(rank, ()), ratio] if other else []
            if len(seen) == IN_A_ROW:
                changes.append(Change(rank, fmean(seen), not named))
                self._named ^= {rank}
                seen.clear()
        return changes


def of(history: History) -> list[Event]:
    """The `slow_rank` events of the latest start that are not over, by rank."""
    named: dict[int, Event] = {}
    for event in history.of(history.generation).all("slow_rank", "slow_rank_over"):
        named.pop(event["rank"], None)
        if event["event"] == "slow_rank":
            named[event["rank"]] = event
    return [named[rank] for rank in sorted(named)]


def summary(history: History, state: str, *, slurm: bool, exclude: str | None) -> dict[str, Any]:
    """What `sslrun show` says of them: which they are, and the override of `sslrun resume` that leaves their nodes out,
    beside those that `exclude` leaves out already; empty where no cluster has another node."""
    gone = (exclude or "").split(",")
    slow = [event for event in of(history) if event["node"] not in gone] if state != "done" else []
    nodes = list(dict.fromkeys(event["node"] for event in slow if NODE.fullmatch(event["node"])))
    keys = ("rank", "node", "ratio", "step")
    return {
        "slow_ranks": [{key: event[key] for key in keys} for event in slow],
        "leave_out": _override([*filter(None, [exclude]), *nodes]) if slurm and nodes else "",
    }


def _override(nodes: Sequence[str]) -> str:
    """A comma outside quotes would separate the points of a sweep."""
    joined = ",".join(nodes)
    return f"cluster.exclude='{joined}'" if "," in joined else f"cluster.exclude={joined}"


def said(slow: Sequence[Mapping[str, Any]]) -> str:
    """Of `slow_ranks`, the first few of them in one line."""
    each = "rank {rank} on {node} takes {ratio:.2f} times as long as the others"
    return first_few([each.format(**facts) for facts in slow])


def what_to_type(facts: Mapping[str, Any], where: str) -> str:
    """The line by which a run goes on without the nodes of its slow ranks; empty where there is none. facts: those of
    its summary. where: what a command needs behind the run's id to find it from here."""
    if not facts["leave_out"]:
        return ""
    stop = f"sslrun cancel {facts['id']}{where} && " if facts["state"] in ACTIVE else ""
    override = facts["leave_out"]  # which a shell is to leave alone
    return f"{stop}sslrun resume {facts['id']}{where} " + (f'"{override}"' if {*"'["} & {*override} else override)
