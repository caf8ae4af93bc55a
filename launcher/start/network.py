"""Where the ranks of a start meet, and by which network interface of each node: their nodes find it out before."""

import os
from collections.abc import Callable, Sequence

from launcher.errors import ClusterError, InputError, NodesRefused, NotStarted
from launcher.plan import containers, steps
from launcher.slurm import commands, meeting, reach
from launcher.slurm.meeting import Apart, Meeting
from launcher.spec.runspec import RunSpec
from launcher.start import job, preflight


def find(spec: RunSpec, nodes: Sequence[str], host: str, *, beside: bool, unwanted: Callable[[], bool]) -> Meeting:
    """For ranks on `nodes`, the first of which calls itself `host`. beside: see steps.meet; unwanted: asked now and
    then whether the start is to end.

    Raises InputError where what the user has set leads nowhere, NodesRefused where few of the nodes do not get there,
    ClusterError where most do not, and NotStarted where the test did not take place or the job is to end.
    """
    given = {**os.environ, **spec.cluster.environment}
    if len(nodes) == 1:  # where no other node can come
        return Meeting("127.0.0.1", _own_port(given.get(meeting.PORT)), {})
    try:
        found = meeting.meet(
            steps.meet(spec, nodes, reach.source(), beside=beside),
            nodes,
            [host, *commands.addresses(nodes[0])],
            given=given,
            environment={**preflight.environment(), **spec.cluster.environment},
            patience=preflight.patience(spec),
            together=min(preflight.PREFLIGHT_SECONDS, containers.patience(spec.cluster, meeting.TOGETHER_SECONDS)),
            over=unwanted,
        )
    except Apart as error:
        _refuse(error, given)
    interfaces = " ".join(sorted({*found.interfaces.values()})) or "whatever interface they choose"
    print(f"sslrun: its nodes reach {nodes[0]} at {found.address}, by {interfaces}", flush=True)
    return found


def _refuse(error: Apart, given: dict[str, str]) -> None:
    if error.why and error.begun:
        # While Slurm ends a job its tasks are ended node by node.
        standing = job.standing()
        raise (NodesRefused(error.why) if standing and standing.state == "RUNNING" else NotStarted(str(error)))
    if not error.setting:
        raise NotStarted(str(error))
    field, fix = f"cluster.environment.{error.setting}", meeting.FIXES[error.setting]
    if not error.begun:  # what has the port may be gone at the next start
        raise NotStarted(f"{error}; set {field} to {fix}")
    if value := given.get(error.setting):
        raise InputError.of(field, value, str(error), f"set it to {fix}, or leave it out")
    raise ClusterError(f"{error}; set {field} to {fix}")


def _own_port(given: str | None) -> int:
    if given and given.isdecimal():
        return int(given)
    with reach.listener(0) as free:
        return free.getsockname()[1]
