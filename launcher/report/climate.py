"""The weather of a cluster: as its config has it, and as the ledgers of runs that were there tell.

Each kind of end that a run goes on after is a hazard: its events are counted, and the node-hours in which they could
come. A rate that is measured is not known, and how unsure it is goes into what is simulated. Waits and starts are taken
as they were seen.
"""

import itertools
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher.errors import InputError
from launcher.plan.weather import Hazard, Spread, Weather
from launcher.run import causes, folder, goodput
from launcher.run.folder import RunDir
from launcher.run.ledger import History
from launcher.slurm import notation
from launcher.spec.runspec import RunSpec
from launcher.start import requeue

# Failures a node and day where nobody says more: 419 in 54 days on 2,048 nodes of 8 GPUs (Llama 3 report, 3.3.4). On a
# research cluster of Meta there were 0.0065 (RSC-1 in Kokolis et al. 2024, "Revisiting reliability in large-scale
# machine learning research clusters").
FAILURES = 0.004
KILL_WAIT = 30.0  # seconds that are left to a preempted job without a grace; Slurm's default
CRED_EXPIRE = 120.0  # before a requeued job starts again; Slurm's default
QUEUE_MINUTES = 10.0, 120.0  # assumed: half of the waits, nine of ten
STALL_SHARE = 0.5  # of a save, by which it delays the training at most: 0.20 to 0.51 measured, docs/benchmarks.md
STOPS, SAME_JOB = 10.0, 5.0  # from a blow to the end, and from there to the next start in place: docs/preemption.md
PRIOR = 0.5  # events that what a config says counts for, where none was seen
FEWEST = 3  # of anything, before it is taken as seen
MOST_RUNS = 50  # whose ledgers are read, the newest first
LOOKED_AT = 400  # runs of a folder, for those


def expected(spec: RunSpec, save: float, step: float, signal_delay: float) -> Weather:
    """As the cluster's config has it. Seconds: save and step, of the run; signal_delay, before a job's limit."""
    cluster, said = spec.cluster, {}
    total, told = cluster.interruptions_per_node_day, cluster.preemptions_per_node_day
    # The generic cluster's rate is one of preemptions and failures, whatever it says of its partition.
    both = cluster.preemptible or cluster.name == "generic"
    preempted = told or (max(0.0, total - FAILURES) if both else 0.0)
    grace = cluster.grace_s or KILL_WAIT
    fits = save + step <= grace
    known = "cluster.preemptions_per_node_day" if told else f"all interruptions but failures, of which {FAILURES:g}"
    saves = f"a save of {save:.0f} s {'fits' if fits else 'does not fit'} into {grace:.0f} s"
    said["preemptions"] = f"{preempted:.4g} a node and day ({known}); {saves}" if preempted else "none"
    said["failures"] = f"{total - preempted:.4g} a node and day (cluster.interruptions_per_node_day)"
    median, p90 = cluster.queue_minutes or QUEUE_MINUTES
    given = "cluster.queue_minutes" if cluster.queue_minutes else "assumed; set cluster.queue_minutes"
    said["queue"] = f"half wait at most {median:g} minutes, 90 % at most {p90:g} ({given})"
    said["start"] = f"{requeue.START_SECONDS:.0f} s from a start to its first step (assumed)"
    slurm = cluster.kind == "slurm"
    return Weather(
        hazards=(
            _hazard("preempted", preempted / 24, saved=float(fits)),
            _hazard("node_failure", max(0.0, total - preempted) / 24),
        ),
        start=Spread.always(requeue.START_SECONDS),
        queue=Spread.lognormal(60 * median, 60 * p90, least=CRED_EXPIRE) if slurm else Spread.always(0.0),
        same_job=Spread.always(SAME_JOB),
        limit=60.0 * cluster.timeout_min - signal_delay if slurm else float("inf"),
        spares=cluster.spare_nodes,
        pauses=requeue.PAUSES,
        most_idle=requeue.NO_PROGRESS,
        said=said,
    )


def _hazard(cause: str, rate: float, **told: Any) -> Hazard:
    """rate: a node-hour."""
    known = causes.of(cause)
    # A lost node ends the job, unless a spare takes its place: the simulation looks for one.
    in_place = known.in_place and cause != "node_failure"
    kept = {"in_place": in_place, "forgiven": known.forgiven, "must_progress": known.must_progress}
    return Hazard(cause, rate, **kept, **{"stops": Spread.always(STOPS), **told})


@dataclass
class Observed:
    """What ledgers tell, added up. Seconds; `blows`: {cause: how many}, `saved`: {cause: of each that is known whether
    nothing was lost}, `stops`: from the safe point of a start that was told to stop to its end, `cuts`: from the last
    step of one that lost some to its end; of each run that is done, in its last start, `steps`: a step, `stalls`: what
    a save delayed it, `closings`: what came after the last."""

    runs: int = 0
    node_hours: float = 0.0
    blows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    saved: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    starts: list[float] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    same_job: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    saves: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    closings: list[float] = field(default_factory=list)

    def add(self, history: History, heard: float = 0.0) -> None:
        """heard: as of `goodput.worked_seconds`, where the run works."""
        worked, ends, self.runs = goodput.worked(history, heard), history.ends, self.runs + 1
        for start, seconds in worked:
            nodes = len(notation.expand(start.get("nodes") or "")) or 1
            self.node_hours += nodes * seconds / 3600
            self._add_start(start, history.of(start["generation"]))
        if worked and (asked := history.of(1).first("submitted")):
            self.queue.append(max(0.0, worked[0][0]["time"] - asked["time"]))
        for (before, _), (start, _) in itertools.pairwise(worked):
            end = ends.get(before["generation"], {})
            through = goodput.where(start, end, history)
            if end and through != "by hand":
                gap = max(0.0, start["time"] - end["time"])
                (self.same_job if through == "same job" else self.queue).append(gap)
            restored = history.of(start["generation"]).first("restored")
            if restored and through != "by hand":
                nothing = not restored.get("lost_steps") and not restored.get("lost_seconds")
                self.saved[start["cause"]].append(nothing)
        self._add_cuts(history)
        for end in {each["generation"]: each for each in history.all("end")}.values():
            if end["cause"] != "time_limit" and causes.of(end["cause"]).forgiven != 0:
                self.blows[end["cause"]] += 1

    def _add_start(self, start: Any, mine: History) -> None:
        restored, told, end = mine.first("restored"), mine.first("stopped_at_safe_point"), mine.last("end")
        if restored:
            self.starts.append(max(0.0, restored["time"] - start["time"]))
        if told and end and end["writer"] != "afterwards":
            self.stops.append(max(0.0, end["time"] - told["time"]))
        saves = [each["seconds"] for each in mine.all("checkpoint") if each.get("seconds") is not None]
        self.saves += saves
        finished = mine.first("finished")
        steps = finished.get("step", 0) - restored.get("step", 0)
        if steps > 0:
            took = finished["seconds"]
            closing = took.get("evaluation", 0.0)
            self.steps.append((sum(took.values()) - closing - took.get("checkpointing", 0.0)) / steps)
            self.stalls.append(took.get("checkpointing", 0.0) / max(1, len(saves)))
            self.closings.append(closing + max(0.0, end.get("time", finished["time"]) - finished["time"]))

    def _add_cuts(self, history: History) -> None:
        """Of a run that is done, whose pace is known."""
        last = history.last("finished")
        first = history.of(last.get("generation", 0)).first("restored").get("step", 0)
        if last.get("step", 0) <= first:
            return
        pace = (sum(last["seconds"].values()) - last["seconds"].get("evaluation", 0.0)) / (last["step"] - first)
        for end in history.ends.values():
            began = history.of(end["generation"]).first("restored")
            after = history.of(end["generation"] + 1).first("restored")
            if began and after.get("lost_steps"):
                done = after["step"] + after["lost_steps"] - began["step"]
                self.cuts.append(max(0.0, end["time"] - began["time"] - done * pace))

    def weather(self, prior: Weather) -> Weather:
        """`prior`, a config's, with what was seen in its place."""
        hazards = {each.cause: each for each in prior.hazards}
        for cause in self.blows:
            hazards.setdefault(cause, _hazard(cause, 0.0))
        found = tuple(self._measured(each) for each in hazards.values())
        counts = ", ".join(f"{cause} {count}" for cause, count in self.blows.items()) or "none"
        said = {
            **prior.said,
            "ledgers": f"{self.runs} runs, {self.node_hours:,.1f} node-hours; ends that a run goes on after: {counts}",
        }
        for name in ("preemptions", "failures"):
            said.pop(name, None)
        for name, seen in (("queue", self.queue), ("start", self.starts)):
            if len(seen) >= FEWEST:
                low, high = sorted(seen)[len(seen) // 2], sorted(seen)[int(0.9 * len(seen))]
                said[name] = f"half take at most {low:,.0f} s, 90 % at most {high:,.0f} ({len(seen)} in ledgers)"
        return replace(
            prior,
            hazards=found,
            start=_seen(self.starts, prior.start),
            queue=_seen(self.queue, prior.queue),
            same_job=_seen(self.same_job, prior.same_job),
            said=said,
        )

    def _measured(self, hazard: Hazard) -> Hazard:
        """Gamma of the events and the node-hours. Of what was never seen, so that a few quiet hours do not promise that
        it never comes, the config's rate counts: as half an event, in the hours that it would take."""
        rate, events = hazard.per_node_hour, self.blows.get(hazard.cause, 0)
        shape, hours = float(events), self.node_hours
        if not events and rate:
            shape, hours = PRIOR, self.node_hours + PRIOR / rate
        seen = self.saved.get(hazard.cause, [])
        # Beside what was seen, what the config says counts as one.
        saved = (sum(seen) + hazard.saved) / (len(seen) + 1) if seen else hazard.saved
        stops = _seen(self.stops if saved > 0.5 else self.cuts, hazard.stops)
        mean = shape / hours if hours else rate
        counted = (shape, hours) if hours else None
        return replace(hazard, per_node_hour=mean, counted=counted, saved=saved, stops=stops)


def _seen(seconds: Sequence[float], otherwise: Spread) -> Spread:
    return Spread.of(seconds) if len(seconds) >= FEWEST else otherwise


def middle(seconds: Sequence[float], otherwise: float) -> float:
    """The median of what was seen, where something was."""
    return statistics.median(seconds) if seconds else otherwise


def of_runs(runs: Iterable[RunDir]) -> Observed:
    """What their ledgers tell; what cannot be read is left out."""
    seen = Observed()
    for run in runs:
        with suppress(InputError, OSError, ValueError, KeyError, TypeError):
            seen.add(run.history(), run.spoke())
    return seen


def alike(runs: Path, cluster: str | None, *, most: int = MOST_RUNS) -> Iterator[RunDir]:
    """The newest runs of a folder that ran on the cluster of that name; None: on any but this machine."""
    found = 0
    for run in _newest(runs):
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
    return [RunDir(runs / name) for name in sorted(times, key=times.__getitem__, reverse=True)[:LOOKED_AT]]


def folder_of(given: Path) -> Path:
    """What `--like` names. Raises InputError where there are no runs."""
    if not next(folder.every(given), None):
        raise InputError.of("--like", given, "there are no runs in it", "name a folder of runs, as of runs=")
    return given
