"""What a batch script runs on the first node of a job: starts of a run, one after another, their ranks on its nodes.

The twin of local.py. It holds the run's lock and writes each start's first event and its last; the ranks are started
only once the code is what was submitted and every node sees the run and its Python. What the job's own nodes can mend
starts again in the same job; what only Slurm can mend goes back into the queue. The pickle that brings Slurm here holds
the run's path and nothing else.
"""

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from launcher.errors import (
    ClusterError,
    InputError,
    NodesRefused,
    NotStarted,
    RunFailed,
    SetupFailed,
    SslrunError,
    Superseded,
    Unreadable,
)
from launcher.plan import worlds
from launcher.run import causes, heartbeats, private, snapshot, waiting
from launcher.run.files import opened
from launcher.run.folder import RunDir
from launcher.run.ledger import History, Ledger
from launcher.run.state import of
from launcher.slurm import badnodes, commands
from launcher.slurm.commands import SlurmJob
from launcher.spec.runspec import RunSpec
from launcher.start import chain, evidence, job, network, preflight, ranks, requeue, stages, streams, unpacking
from launcher.start.allocation import Allocation
from launcher.start.ending import Outcome, judge, note_commits
from launcher.start.standby import Standby
from launcher.start.told import EARLY_SECONDS, Told
from launcher.start.understudy import Understudy

LOCK_SECONDS, WRITTEN_SECONDS = 180.0, 120.0  # NFS forgets a client after 90 s
POLL_SECONDS = 2.0
CONTROLLER_SECONDS = 60.0  # for which a start waits for a controller before nodes are given up


@dataclass
class Lasting:
    """What lasts from one start to the next of the same job."""

    told: Told
    nodes: Allocation
    understudy: Understudy
    standby: Standby
    pause: float = 0.0  # seconds before the next one


class Next(Enum):
    """What follows the end of a start."""

    NOTHING = "it does not start again by itself"
    HERE = "it starts again in the same job"
    QUEUE = "it goes back into the queue"


def main(path: str) -> None:
    """Run the run in `path` and exit: 0 when it is done or will go on later, 2 to 4 otherwise."""
    streams.never_fail()  # a log on a full disk loses lines, and not the run
    told = Told()
    run = RunDir(path)
    try:
        waiting.patiently(lambda: _reachable(run))
        lock = _lock(run)
        if lock is None:
            raise ClusterError(f"{run.id} is being run by somebody else")
        if of(waiting.patiently(run.history), held=False).name == "done":  # it finished while it was being preempted
            sys.exit(0)
        cause = waiting.patiently(lambda: evidence.how_it_ended_before(run))
        generation = waiting.patiently(run.generation) + 1
        if waiting.patiently(lambda: chain.held_back(run, Ledger(run.path, generation, "batch"))):
            sys.exit(0)
    except (Unreadable, OSError) as error:  # also where the folder is not there: it may be mounted a moment later
        print(f"sslrun: {_said(error)}", flush=True)
        # There is no ledger to count in.
        if job.restarts() < causes.of(Unreadable.cause).forgiven:
            with contextlib.suppress(ClusterError):
                job.back_into_the_queue()
        sys.exit(Unreadable.exit_code)
    except SslrunError as error:
        print(f"sslrun: {error}", flush=True)
        sys.exit(error.exit_code)
    here, follows = Lasting(told, Allocation(), Understudy(), Standby()), Next.HERE
    while follows is Next.HERE:
        ledger = Ledger(run.path, generation, "batch")
        here.told.rest(here.pause)
        outcome, follows = _one(run, ledger, cause, here)
        cause, generation = outcome.cause, generation + 1
    here.standby.end()
    os.close(lock)
    if follows is Next.QUEUE:
        _requeue(run, ledger, outcome, here.nodes)
    code = 0 if outcome.state in ("stopped", "preempted", "cancelled") else outcome.exit_code
    sys.exit(chain.exit_code(run, code))


def _one(run: RunDir, ledger: Ledger, cause: str, here: Lasting) -> tuple[Outcome, Next]:
    """One start, from its first event to its last, for this `cause`: (how it ended, what follows)."""
    print(evidence.mark(ledger.generation), flush=True)
    hopeless, here.told.ranks_begun = None, False
    try:
        spec, taken = _begin(run, ledger, cause, here)
        hopeless = evidence.hopeless(run)
        if not hopeless and (said := evidence.unready(run)):
            _leave_out(run, ledger, here.nodes, {here.nodes.first: said.partition(": ")[2]})
            raise SetupFailed(said)
        outcome = hopeless or _work(run, spec, taken, ledger, here)
    except SslrunError as error:
        begun = here.told.ranks_begun or not here.told.signal
        outcome = Outcome("failed", error.cause, str(error), error.exit_code) if begun else evidence.NOT_BEGUN
    except OSError as error:
        why = InputError.cause if waiting.answered(error) else Unreadable.cause
        outcome = Outcome("failed", why, _said(error), RunFailed.exit_code)
    try:
        outcome, follows, why = waiting.patiently(lambda: _concluded(run, ledger, outcome, hopeless, here))
    except (Unreadable, OSError) as error:  # the next start says how this one ended, and counts it
        outcome, follows, why = Outcome("preempted", Unreadable.cause, _said(error), 0), Next.QUEUE, Unreadable.cause
    except SslrunError as error:
        outcome, follows, why = Outcome("failed", error.cause, str(error), error.exit_code), Next.NOTHING, ""
    if outcome.message:
        print(f"sslrun: {outcome.message}", flush=True)
    if follows is not Next.NOTHING:
        print(f"sslrun: {follows.value}{f': {why}' if why else ''}", flush=True)
    _end(ledger, outcome, follows, why)
    if follows is Next.HERE and not _written(ledger):  # nobody could count it
        follows = Next.QUEUE
    return outcome, follows


def _written(ledger: Ledger) -> bool:
    """Whether all that was said is on the disk, which may be full for a while."""
    end = time.monotonic() + WRITTEN_SECONDS
    while (trouble := ledger.settle()) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return not trouble


def _begin(run: RunDir, ledger: Ledger, cause: str, here: Lasting) -> tuple[RunSpec, list[str]]:
    """Write the first event: (the spec on as many nodes as it is started on, these nodes). Raises SslrunError or
    OSError where it cannot be started; the event is there all the same."""
    found, nodes, told = job.standing(), here.nodes, here.told
    nodes.ask(found)
    spec, taken, wrong = None, [], None
    try:
        told.warning_s = run.plan()["signal_delay_s"]
        told.ask(found)
        spec = run.spec()
        taken = nodes.take(worlds.counts(spec))
        spec = spec.on(len(taken))
    except (SslrunError, OSError) as error:
        wrong = error
    spares = min(spec.cluster.spare_nodes, len(nodes.usable) - len(taken)) if taken else 0
    ledger.write(
        "start",
        cause=cause,
        pid=os.getpid(),
        job=job.own_id(),
        restart_count=job.restarts(),
        nodes=nodes.shown(taken or nodes.names),
        world_size=len(taken) * spec.tasks_per_node if spec else 0,
        **({"spares": spares} if spares else {}),  # nodes that wait in reserve
    )
    if wrong:
        raise wrong
    if not _written(ledger):  # what a start may touch hangs on its number
        raise Unreadable(f"{run.path}/events cannot be written on {os.uname().nodename}: is the disk full?")
    return spec, taken


def _work(run: RunDir, spec: RunSpec, taken: list[str], ledger: Ledger, here: Lasting) -> Outcome:
    """Start the ranks, once the code is what was submitted and every node can run it. Raises SslrunError."""
    nodes, told = here.nodes, here.told

    def unwanted() -> bool:
        return bool(told.signal) or evidence.cancelled(run, ledger.generation)  # where no rank lives nobody hears of it

    def asked_whether_unwanted() -> bool:
        told.ask(job.standing())
        return unwanted()

    if unwanted():
        return evidence.NOT_BEGUN
    run.refuse_foreign()
    private.refuse_lost(run.path, spec)
    run.keep_private(spec)
    code = snapshot.verify(run.code_folder(), run.code()["digest"])
    waiting.patiently(lambda: stages.pin(run, spec, ledger))
    patience = min(preflight.SEEN_SECONDS, evidence.limit(run) / 10)  # a short job has no minute to give
    seen = False
    try:
        hosts = preflight.look(
            run,
            spec,
            taken,
            code,
            seconds=patience,
            beside=nodes.leftover,
            unwanted=asked_whether_unwanted,
            show=waiting.shown_by(run.path, ledger.generation),
        )
        if unwanted():
            return evidence.NOT_BEGUN
        seen = True
        if spec.cluster.local_env:
            spec = unpacking.on_nodes(
                run, spec, code, taken, ledger, beside=nodes.leftover, unwanted=asked_whether_unwanted
            )
        meeting = network.find(
            run,
            spec,
            taken,
            hosts.get(taken[0], taken[0]),
            spare=len(nodes.usable) - min(worlds.counts(run.spec())),
            beside=nodes.leftover,
            unwanted=asked_whether_unwanted,
        )
    except NotStarted as error:
        if unwanted():
            return evidence.NOT_BEGUN
        nodes.leftover = True  # as far as is known
        if isinstance(error, NodesRefused):
            if set(nodes.usable) <= set(error.why):
                raise error.of_all() from None
            # A node without room for the environment is as good as any for a run that brings none.
            _leave_out(run, ledger, nodes, error.why, mark=not seen)
        raise
    if unwanted():
        return evidence.NOT_BEGUN
    _give_back(nodes, spec.cluster.spare_nodes)  # once it is known that those it takes are good
    if spec.cluster.spare_nodes:
        here.understudy.stand_by(run, spec, nodes)
    ended = ranks.start(run, spec, code, taken, meeting, ledger.generation, told, here.standby, beside=nodes.leftover)
    nodes.leftover |= bool(ended.lost) or not ended.over  # of a node that is lost Slurm may not know all at once
    said = waiting.patiently(run.history).of(ledger.generation)
    outcome = judge(said, ended.exit_code, ended.rank, f"{ended.how}; see `sslrun logs {run.typed} --all`")
    if outcome.state == "failed" and ended.lost:
        _leave_out(run, ledger, nodes, ended.lost)
        if gone := [f"{node} {why}" for node, why in ended.lost.items() if why != preflight.STILL_HELD]:
            return Outcome("failed", "node_failure", "; ".join(gone), RunFailed.exit_code)
    return outcome


def _give_back(nodes: Allocation, spares: int) -> None:
    """What the job was granted and does not use, once."""
    kept = nodes.to_keep(spares)
    if len(kept) == len(nodes.names) or nodes.gave_back:
        return
    try:
        commands.keep(job.own_id(), kept)
        nodes.gave_back = True
        print(f"sslrun: {len(nodes.names) - len(kept)} of its nodes are given back", flush=True)
        nodes.names = kept
    except ClusterError as error:  # then they are kept, and idle
        print(f"sslrun: nodes that are not used cannot be given back: {error}", flush=True)


def _leave_out(run: RunDir, ledger: Ledger, nodes: Allocation, why: Mapping[str, str], *, mark: bool = True) -> None:
    """Of the next starts of this job, and of what is submitted for a day where they are to be `mark`ed."""
    for node, reason in why.items():
        if node not in nodes.left_out:
            nodes.left_out[node] = reason
            ledger.write("left_out", node=node, why=reason)
            if mark:
                badnodes.mark(run, [node], reason)


def _concluded(
    run: RunDir, ledger: Ledger, outcome: Outcome, hopeless: Outcome | None, here: Lasting
) -> tuple[Outcome, Next, str]:
    """(how this start is understood to have ended, what follows, why that). Raises OSError."""
    found = job.standing()
    # Slurm counts a restart as soon as it ends the job for one, and this process may live on for KillWait.
    elsewhere = found is not None and found.state == "RUNNING" and (found.restarts or 0) > job.restarts()
    if elsewhere or run.generation() > ledger.generation:  # this node stood still, and Slurm has started the job again
        outcome = Outcome("failed", Superseded.cause, "the run has been started again elsewhere", RunFailed.exit_code)
    elif outcome.state != "done" and not hopeless:
        outcome = evidence.understood(run, ledger.generation, outcome, found, here.told)
    note_commits(run, ledger)
    if hopeless:
        return hopeless, Next.NOTHING, ""
    history = run.history()
    outcome, again = requeue.decide(history, outcome)
    if not again:
        return outcome, Next.NOTHING, ""
    where = heartbeats.processes(run, ledger.generation).get(outcome.rank)
    outcome.node = where[0] if where else ""
    if requeue.recurs(history, outcome):
        why = f"{outcome.cause} there twice in a row"
        # Of a crash the code may be the reason, and then no other run need avoid the node.
        _leave_out(run, ledger, here.nodes, {outcome.node: why}, mark=outcome.cause != "crash")
    if not causes.of(outcome.cause).in_place:
        return outcome, Next.QUEUE, ""
    here.pause = requeue.pause(history)
    only = _only_slurm(run, history, found, here)
    return outcome, Next.QUEUE if only else Next.HERE, only


def _only_slurm(run: RunDir, history: History, found: SlurmJob | None, here: Lasting) -> str:
    """Why the job's own nodes cannot mend what they could otherwise; empty where they can."""
    nodes, told, found = here.nodes, here.told, found or job.standing(CONTROLLER_SECONDS)
    if found is None:
        return "Slurm does not answer"
    if found.state not in ("RUNNING", "SUSPENDED"):
        return f"the job is {found.state}"
    told.ask(found)
    if told.signal:
        return f"the job was told to end by {told.signal}"
    nodes.ask(found)
    if nodes.first not in nodes.names:
        return "its first node is lost"
    takes, left = here.pause + requeue.start_seconds(history), found.seconds_left - told.warning_s - EARLY_SECONDS
    if left < takes:
        return f"{found.seconds_left:.0f} s are left of the job, and a start takes about {takes:.0f} s and a save"
    if len(nodes.usable) < min(worlds.counts(run.spec())):
        return "too few of its nodes are left"
    return ""


def _reachable(run: RunDir) -> None:
    """Raises OSError where what this start stands on cannot be read."""
    run.history()
    with contextlib.suppress(InputError, FileNotFoundError):  # is said below, in the ledger
        run.spec()
    os.close(opened(run.path / "lock", os.O_RDWR | os.O_CREAT))


def _said(error: SslrunError | OSError) -> str:
    """One line. What failed need not have been a read: a program may be missing, or a disk full."""
    if isinstance(error, SslrunError):
        return str(error)
    return str(SslrunError(f"{error.filename or 'a file'}: {error.strerror or error} (on {os.uname().nodename})"))


def _lock(run: RunDir) -> int | None:
    """The run's lock. After a restart the file server may not yet have forgotten a node that was lost with it."""
    patience = LOCK_SECONDS if job.restarts() else 0.0
    end = time.monotonic() + patience
    while (lock := run.lock()) is None and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return lock


def _end(ledger: Ledger, outcome: Outcome, follows: Next, why: str = "") -> None:
    """`why`: only Slurm can mend it."""
    again = {"requeued": follows is Next.QUEUE, "in_place": follows is Next.HERE}
    more = {name: said for name, said in (("node", outcome.node), ("why", why)) if said}
    ledger.write("end", state=outcome.state, cause=outcome.cause, message=outcome.message, **again, **more)


def _requeue(run: RunDir, ledger: Ledger, outcome: Outcome, nodes: Allocation) -> None:
    """Also after a preemption: a job that exits within the grace is over, whatever PreemptMode says. But not a job that
    was cancelled since: Slurm would take it back all the same (measured on 22.05)."""
    try:
        if _cancelled(run, ledger):
            message = f"cancelled; {outcome.message}" if outcome.message else "cancelled"
            _end(ledger, Outcome("cancelled", "cancelled", message, outcome.exit_code), Next.NOTHING)
            return
        job.back_into_the_queue(without=_without(run, nodes))
    except ClusterError as error:
        stopped = Outcome("stopped", outcome.cause, f"{outcome.message}; not requeued: {error}", outcome.exit_code)
        print(f"sslrun: {stopped.message}", flush=True)
        _end(ledger, stopped, Next.NOTHING)


def _without(run: RunDir, nodes: Allocation) -> list[str]:
    """Nodes that the job is not to get again. That they cannot be told now is no reason to keep it from the queue."""
    with contextlib.suppress(SslrunError, OSError):
        return badnodes.excluded(run.spec(), nodes.left_out)[0]
    return []


def _cancelled(run: RunDir, ledger: Ledger) -> bool:
    """As far as can be read."""
    with contextlib.suppress(SslrunError, OSError):
        return evidence.cancelled(run, ledger.generation)
    return False
