"""What the ledgers of runs tell of the weather that they had: how often each kind of end came, in how many node-hours,
and how long starts, saves and waits took. Some have hundreds of starts: each event is looked at a few times."""

import itertools
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from launcher.errors import InputError
from launcher.run import causes, goodput
from launcher.run.folder import RunDir
from launcher.run.ledger import Event, History
from launcher.slurm import notation
from launcher.spec.runspec import FromRun
from launcher.start import requeue

MOST_RUNS = 50  # whose ledgers are read, the newest first
LOOKED_AT = 4  # times as many runs of a folder, for those


@dataclass
class Observed:
    """What ledgers tell, added up. Seconds; `blows`: {cause: how many}; `saved`: {cause: of each that could cost steps
    whether it cost none}; `starts`: from a start to its first step, `starts_here`: of those in the same job; `queue`,
    `same_job`: from an end to the next start, the latter without the pause that the launcher itself makes; `stops`:
    from the safe point of a start that was told to stop to its end; `cuts`: from the last step of one that lost some to
    its end; of each run that is done, in its last start, `steps`: a step, `stalls`: what a save delayed it, `closings`:
    what came after the last."""

    runs: int = 0
    node_hours: float = 0.0
    blows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    saved: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    starts: list[float] = field(default_factory=list)
    starts_here: list[float] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    same_job: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    saves: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    closings: list[float] = field(default_factory=list)

    def add_run(self, run: RunDir) -> None:
        awaits = any(isinstance(source, FromRun) for source in run.spec().sources.values())
        self.add(run.history(), run.spoke(), awaits=awaits)

    def add(self, history: History, heard: float = 0.0, *, awaits: bool = False) -> None:
        """heard: as of `goodput.worked_seconds`, where the run works. awaits: it waited for other runs first, which is
        no wait in the queue."""
        parts: dict[int, list[Event]] = defaultdict(list)
        for event in history:
            parts[event["generation"]].append(event)
        starts = [part for _, part in sorted((n, History(part)) for n, part in parts.items()) if part.first("start")]
        self.runs += 1
        for before, mine in zip((History(), *starts), starts, strict=False):
            ((start, seconds),) = goodput.worked(mine, heard if mine is starts[-1] else 0.0)
            self.node_hours += (len(notation.expand(start.get("nodes") or "")) or 1) * seconds / 3600
            self._add_start(start, mine, here=bool(before.ends.get(before.generation, {}).get("in_place")))
        if starts and not awaits and (asked := starts[0].first("submitted")):
            self.queue.append(max(0.0, starts[0].first("start")["time"] - asked["time"]))
        pace = self._pace(starts[-1]) if starts else None
        for before, after in itertools.pairwise(starts):
            self._add_restart(before, after, history, pace)
        for end in {each["generation"]: each for each in history.all("end")}.values():
            if end["cause"] != "time_limit" and causes.of(end["cause"]).forgiven != 0:
                self.blows[end["cause"]] += 1

    def _add_start(self, start: Event, mine: History, *, here: bool) -> None:
        """here: the same job had one before."""
        restored, told, end = mine.first("restored"), mine.first("stopped_at_safe_point"), mine.last("end")
        if restored:
            (self.starts_here if here else self.starts).append(max(0.0, restored["time"] - start["time"]))
        if told and end and end["writer"] != "afterwards":
            self.stops.append(max(0.0, end["time"] - told["time"]))
        saves = [each["seconds"] for each in mine.all("checkpoint") if each.get("seconds") is not None]
        self.saves += saves
        finished = mine.first("finished")
        steps = finished.get("step", 0) - restored.get("step", 0)
        if steps > 0:
            took = finished["seconds"]
            closing, saving = took.get("evaluation", 0.0), took.get("checkpointing", 0.0)
            self.steps.append((sum(took.values()) - closing - saving) / steps)
            self.stalls.append(saving / max(1, len(saves)))
            self.closings.append(closing + max(0.0, end.get("time", finished["time"]) - finished["time"]))

    def _add_restart(self, before: History, after: History, history: History, pace: float | None) -> None:
        """pace: seconds a step, of a run that is done."""
        start, end, restored = after.first("start"), before.ends.get(before.generation, {}), after.first("restored")
        through = goodput.where(start, end, after)
        if through == "by hand":
            return
        if end:
            gap = max(0.0, start["time"] - end["time"])
            if through == "queue":
                self.queue.append(gap)
            else:
                paused = requeue.pause(history.before(start["generation"])) if gap >= requeue.PAUSES[0] else 0.0
                self.same_job.append(max(0.0, gap - paused))
        if restored:
            lost = bool(restored.get("lost_steps") or restored.get("lost_seconds"))
            if lost or before.first("stopped_at_safe_point"):  # else there was nothing to lose
                self.saved[start["cause"]].append(not lost)
            began = before.first("restored")
            if lost and end and began and pace:
                done = restored["step"] + restored.get("lost_steps", 0) - began["step"]
                self.cuts.append(max(0.0, end["time"] - began["time"] - done * pace))

    def _pace(self, last: History) -> float | None:
        """Seconds a step, saves included, of a run that is done. last: its last start."""
        finished = last.first("finished")
        steps = finished.get("step", 0) - last.first("restored").get("step", 0)
        if steps <= 0:
            return None
        return (sum(finished["seconds"].values()) - finished["seconds"].get("evaluation", 0.0)) / steps


def middle(seconds: Sequence[float], otherwise: float) -> float:
    """The median of what was seen, where something was."""
    return statistics.median(seconds) if seconds else otherwise


def of_runs(runs: Iterable[RunDir]) -> Observed:
    """What their ledgers tell; what cannot be read is left out."""
    seen = Observed()
    for run in runs:
        with suppress(InputError, OSError, ValueError, KeyError, TypeError):
            seen.add_run(run)
    return seen


def alike(runs: Path, cluster: str | None, *, most: int = MOST_RUNS) -> Iterator[RunDir]:
    """The newest runs of a folder that ran on the cluster of that name; None: on any but this machine."""
    found = 0
    for run in _newest(runs)[: LOOKED_AT * most]:
        with suppress(InputError, OSError):
            here = run.spec().cluster
            fits = here.name == cluster if cluster else here.kind == "slurm"
            if fits and run.history().generation:
                yield run
                found += 1
        if found == most:
            return


def _newest(runs: Path) -> list[RunDir]:
    times = {}
    with suppress(OSError), os.scandir(runs) as entries:
        for entry in entries:
            with suppress(OSError):
                times[entry.name] = os.stat(f"{entry.path}/events").st_mtime
    return [RunDir(runs / name) for name in sorted(times, key=times.__getitem__, reverse=True)]
