"""Which quality of service (QOS) a user's jobs run in, and which may take whose nodes: asked of the accounting database
with `sacctmgr`, https://slurm.schedmd.com/sacctmgr.html. Many clusters have none: then there is no QOS either.
"""

import os
import pwd
from dataclasses import dataclass

from launcher import durations
from launcher.slurm import client

DEFAULT = "normal"  # what every database begins with


@dataclass(frozen=True)
class QualityOfService:
    """`preempts`: those whose jobs' nodes its own jobs may take. `mode`: what becomes of its jobs when others take
    theirs, REQUEUE, CANCEL, SUSPEND, or CLUSTER: what slurm.conf says. `within`: its jobs may take one another's."""

    name: str
    grace_s: int
    mode: str
    within: bool
    preempts: tuple[str, ...]


def every_qos() -> dict[str, QualityOfService]:
    """Those of the database by their names. Raises ClusterError where it does not answer."""
    text = client.ask("sacctmgr", *_OPTIONS, "show", "qos", "format=name,gracetime,preemptmode,preempt")
    found = {}
    for name, grace, mode, preempts in (line.split("|", 3) for line in text.splitlines() if line.count("|") >= 3):
        modes = [word for word in mode.upper().split(",") if word != "WITHIN"]
        found[name] = QualityOfService(
            name=name,
            grace_s=durations.seconds(grace) if grace else 0,
            mode=modes[0] if modes and modes[0] else "CLUSTER",
            within="WITHIN" in mode.upper().split(","),
            preempts=tuple(filter(None, preempts.split(","))),
        )
    return found


def mine(cluster: str, partition: str, account: str | None) -> tuple[str, tuple[str, ...]]:
    """(the QOS of this user's jobs that name none, those that may be named) with `account`, by default the user's own
    default one, on the cluster called `cluster`. Raises ClusterError where the database does not answer."""
    user = pwd.getpwuid(os.getuid()).pw_name
    columns = "format=defaultaccount,cluster,account,partition,defaultqos,qos"
    text = client.ask("sacctmgr", *_OPTIONS, "show", "user", user, "withassoc", columns)
    rows = [line.split("|", 5) for line in text.splitlines() if line.count("|") >= 5]
    fitting = [row for row in rows if row[1] == cluster and row[2] == (account or row[0])]
    fitting = [row for row in fitting if row[3] == partition] or [row for row in fitting if not row[3]]
    for *_, default, names in fitting:
        allowed = tuple(filter(None, names.split(",")))
        return default or (allowed[0] if len(allowed) == 1 else DEFAULT), allowed  # as slurmctld chooses (measured)
    return DEFAULT, ()


_OPTIONS = ("--parsable2", "--noheader")
