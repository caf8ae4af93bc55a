"""What befalls the jobs of a cluster: how often, and for how long they stand still then. Pure; times are seconds.

A law, not a log: blows come as Poisson processes, each kind at a rate a node-hour, whatever came before.
docs/foresight.md has what that leaves out; report/climate.py makes one of a cluster's config and of runs' ledgers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

P90 = NormalDist().inv_cdf(0.9)
POINTS = 200  # that stand for a distribution which is given by a formula


@dataclass(frozen=True)
class Spread:
    """Seconds that differ from one time to the next: any of `values`, each as likely as the others."""

    values: tuple[float, ...]

    @classmethod
    def always(cls, seconds: float) -> "Spread":
        return cls((seconds,))

    @classmethod
    def of(cls, seen: Sequence[float]) -> "Spread":
        return cls(tuple(sorted(seen)))

    @classmethod
    def lognormal(cls, median: float, p90: float, least: float = 0.0) -> "Spread":
        """As waits in queues are spread: half of them to `median`, nine of ten to `p90`; none below `least`."""
        if median <= 0 or p90 <= median:
            return cls.always(max(least, median))
        sigma = math.log(p90 / median) / P90
        levels = ((number + 0.5) / POINTS for number in range(POINTS))
        found = (median * math.exp(sigma * NormalDist().inv_cdf(level)) for level in levels)
        return cls(tuple(max(least, seconds) for seconds in found))

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def median(self) -> float:
        return self.values[len(self.values) // 2]


@dataclass(frozen=True)
class Hazard:
    """One kind of blow, named as the ledger calls the end that it brings (run/causes.py).

    per_node_hour: its rate. counted: (events, node-hours) where that was measured: then it is not known, and each draw
    of a simulation has a rate of its own, from the Gamma distribution of these two. in_place: the same job starts the
    run again. forgiven, must_progress: as of a cause. saved: share of these blows in which the run saves all that it
    did. stops: from the blow to the end of the start, without the save.
    """

    cause: str
    per_node_hour: float
    counted: tuple[float, float] | None = None
    in_place: bool = False
    forgiven: int | None = None
    must_progress: bool = True
    saved: float = 0.0
    stops: Spread = Spread((0.0,))


@dataclass(frozen=True)
class Weather:
    """start: from a start to the first step; start_here: of one in the same job, where that is another (it may find its
    libraries in memory). queue: from an end, or the submission, to the start that Slurm gives.
    same_job: from an end to the next start in place. limit: of a job, until it is told; inf where there is none.
    spares: nodes in reserve, of which each takes the place of one that is lost. pauses: before the first, second, third
    start in place in a row that follows one which brought nothing. most_idle: such ends in a row after which a person
    is needed. said: {what: where the figure comes from}."""

    hazards: tuple[Hazard, ...] = ()
    start: Spread = Spread((0.0,))
    start_here: Spread | None = None
    queue: Spread = Spread((0.0,))
    same_job: Spread = Spread((0.0,))
    limit: float = math.inf
    spares: int = 0
    pauses: tuple[float, ...] = (0.0,)
    most_idle: int = 3
    said: Mapping[str, str] = field(default_factory=dict)

    def between(self, nodes: int, *, lossy: bool = False) -> float:
        """Mean seconds between two blows to a job on so many nodes; lossy: that cost steps."""
        rate = math.fsum(each.per_node_hour * (1 - each.saved if lossy else 1) for each in self.hazards)
        return 3600 / (rate * nodes) if rate else math.inf


@dataclass(frozen=True)
class Journey:
    """What a run still has to do, and how. Seconds but for what says otherwise.

    steps: of the whole run. every: steps from one save to the next. stall: by which a save delays the training.
    save: from its beginning until it counts; training waits for those in haste and for the last. closing: after the
    last save. save_gb: of one (1e9 bytes). done, saved: steps that were done and saved already. waits: it has no job
    yet, or no more. left: of the job that it has, until it is told.
    """

    steps: int
    step: float
    every: int
    stall: float
    save: float
    closing: float = 0.0
    save_gb: float = 0.0
    nodes: int = 1
    gpus_per_node: int = 0
    done: int = 0
    saved: int = 0
    waits: bool = True
    left: float = math.inf

    @property
    def undisturbed(self) -> float:
        """Seconds of what is left, without starts, queues and blows."""
        saves = -(-self.steps // self.every) - 1 - self.done // self.every
        return (self.steps - self.done) * self.step + max(0, saves) * self.stall + self.save + self.closing


def young_daly(stall: float, between: float) -> float:
    """Seconds of training from one save to the next that cost least: sqrt(2 C M), to first order (Young 1974; Daly
    2006, equation 37 without its higher terms). stall: C; between: M, the mean time between blows that cost steps."""
    return math.sqrt(2 * stall * between)
