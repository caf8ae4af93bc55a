"""The weather of a cluster: as its config has it, and as the ledgers of runs that were there tell.

Each kind of end that a run goes on after is a hazard: its events are counted, and the node-hours in which they could
come. A rate that is measured is not known, and how unsure it is goes into what is simulated. Waits and starts are taken
as they were seen.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from launcher.plan.weather import Hazard, Spread, Weather
from launcher.report.observed import Observed
from launcher.run import causes
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
    slurm = cluster.kind == "slurm"
    said["queue"] = f"half wait at most {median:g} minutes, 90 % at most {p90:g} ({given})" if slurm else "none"
    said["start"] = f"{requeue.START_SECONDS:.0f} s from a start to its first step (assumed)"
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


def measured(seen: Observed, prior: Weather) -> Weather:
    """`prior`, a config's, with what was seen in its place."""
    hazards = {each.cause: each for each in prior.hazards}
    for cause in seen.blows:
        hazards.setdefault(cause, _hazard(cause, 0.0))
    found = tuple(_measured(seen, each) for each in hazards.values())
    counts = ", ".join(f"{cause} {count}" for cause, count in seen.blows.items()) or "none"
    said = {
        **prior.said,
        "ledgers": f"{seen.runs} runs, {seen.node_hours:,.1f} node-hours; ends that a run goes on after: {counts}",
    }
    for name in ("preemptions", "failures"):
        said.pop(name, None)
    for name, some in (("queue", seen.queue), ("start", seen.starts)):
        if len(some) >= FEWEST:
            low, high = sorted(some)[len(some) // 2], sorted(some)[int(0.9 * len(some))]
            said[name] = f"half take at most {low:,.0f} s, 90 % at most {high:,.0f} ({len(some)} in ledgers)"
    return replace(
        prior,
        hazards=found,
        start=_seen(seen.starts, prior.start),
        start_here=_seen(seen.starts_here, prior.start_here),
        queue=_seen(seen.queue, prior.queue),
        same_job=_seen(seen.same_job, prior.same_job),
        said=said,
    )


def _measured(seen: Observed, hazard: Hazard) -> Hazard:
    """Gamma of the events and the node-hours. Of what was never seen, so that a few quiet hours do not promise that
    it never comes, the config's rate counts: as half an event, in the hours that it would take."""
    rate, events = hazard.per_node_hour, seen.blows.get(hazard.cause, 0)
    shape, hours = float(events), seen.node_hours
    if not events and rate:
        shape, hours = PRIOR, seen.node_hours + PRIOR / rate
    known = seen.saved.get(hazard.cause, [])
    # Beside what was seen, what the config says counts as one.
    saved = (sum(known) + hazard.saved) / (len(known) + 1) if known else hazard.saved
    stops = _seen(seen.stops if saved > 0.5 else seen.cuts, hazard.stops)
    mean = shape / hours if hours else rate
    counted = (shape, hours) if hours else None
    return replace(hazard, per_node_hour=mean, counted=counted, saved=saved, stops=stops)


def _seen(seconds: Sequence[float], otherwise: Spread | None) -> Spread | None:
    return Spread.of(seconds) if len(seconds) >= FEWEST else otherwise
