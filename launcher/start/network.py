"""Where the ranks of a start meet, and by which network interface of each node: their nodes find it out before."""

import os
from collections.abc import Callable, Mapping, Sequence

from launcher.errors import ClusterError, InputError, NodesRefused, NotStarted, SslrunError
from launcher.plan import containers, steps
from launcher.run import waiting
from launcher.run.folder import RunDir
from launcher.run.ledger import History
from launcher.slurm import commands, meeting, notation, reach
from launcher.slurm.meeting import Apart, Meeting
from launcher.spec.runspec import RunSpec
from launcher.start import job, preflight

GOT_ON = ("environment", "checkpoint", "eval", "scored")  # events of ranks that had met


def find(
    run: RunDir,
    spec: RunSpec,
    nodes: Sequence[str],
    host: str,
    *,
    spare: int,
    beside: bool,
    unwanted: Callable[[], bool],
) -> Meeting:
    """For ranks of `run` on `nodes`, the first of which calls itself `host`. spare: how many of the job's nodes the run
    can do without; beside: see steps.meet; unwanted: asked now and then whether the start is to end.

    Raises NodesRefused where few of the nodes do not get there; where most do not, or too many for the rest to do with
    what the user has set, InputError for that, ClusterError where nothing is set, and NotStarted where an earlier start
    has got on. NotStarted, too, where the test did not take place or the job is to end.
    """
    given = {**os.environ, **spec.cluster.environment}
    if len(nodes) == 1:  # where no other node can come
        return Meeting("127.0.0.1", _own_port(given.get(meeting.PORT)), {})
    try:
        found = meeting.meet(
            steps.meet(spec, nodes, reach.source(), beside=beside),
            nodes,
            meeting.names(host, commands.said_of(nodes[0])),
            given=given,
            environment={**preflight.environment(), **spec.cluster.environment},
            patience=preflight.patience(spec),
            together=min(preflight.PREFLIGHT_SECONDS, containers.patience(spec.cluster, meeting.TOGETHER_SECONDS)),
            over=unwanted,
        )
    except Apart as error:
        raise _refusal(error, given, spare, waiting.patiently(run.history)) from None
    interfaces = " ".join(sorted({*found.interfaces.values()})) or "whatever interface they choose"
    print(f"sslrun: its nodes reach {nodes[0]} at {found.address}, by {interfaces}", flush=True)
    return found


def _refusal(error: Apart, given: Mapping[str, str], spare: int, history: History) -> SslrunError:
    standing = job.standing()
    if not (standing and standing.state == "RUNNING"):  # while Slurm ends a job its tasks are ended node by node
        return NotStarted(str(error))
    field, value, met = f"cluster.environment.{error.setting}", given.get(error.setting), _have_met(history)
    if error.why and (not value or met or len(error.why) <= spare):
        set_to = f" ({field}={value})" if value else ""
        return NodesRefused({node: f"{why}{set_to}" for node, why in error.why.items()})
    said = f"{error}; {error.advice}" if error.advice and not error.why else str(error)
    # What has the port may be gone at the next start, and what was reached may be again; no port becomes one.
    if not error.setting or not error.begun or (met and error.setting != meeting.PORT):
        return NotStarted(said)
    if value:
        fix = f"set it to {meeting.FIXES[error.setting]}, or leave it out"
        return InputError.of(field, value, str(error), fix)
    return ClusterError(said)


def _have_met(history: History) -> bool:
    """Did ranks of an earlier start on several nodes get on?"""
    several = (start for start in history.all("start") if len(notation.expand(start.get("nodes", ""))) > 1)
    return any(history.of(start["generation"]).all(*GOT_ON) for start in several)


def _own_port(given: str | None) -> int:
    if given and given.isdecimal():
        return int(given)
    with reach.listener(0) as free:
        return free.getsockname()[1]
