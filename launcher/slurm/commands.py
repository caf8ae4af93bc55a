"""All that is asked of Slurm goes through here.

Slurm's client programs are asked, not its library or its JSON: these exist in every version. Nothing here needs
accounting, which many clusters do not have. Where Slurm lets people choose the text (names, comments, reasons), fields
are separated by control characters and that text comes last.
"""

import contextlib
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher import durations
from launcher.errors import ClusterError
from launcher.slurm import client, notation
from launcher.slurm.client import ask

SUBMIT_SECONDS = 120.0  # sbatch waits and tries again when the controller takes no more jobs for the moment
UNOPENED_LOG = "0:53"  # the exit code of a job whose first node could not open its log
RECORD, FIELD = "\x1e", "\x1f"
# Field of SlurmJob -> squeue's letter for it, scontrol's key, sacct's column; what people write themselves comes last.
SQUEUE = dict(id="i", raw_id="A", state="T", reason="r", start="S", nodes="N", left="L", partition="P", name="j")
SQUEUE |= dict(comment="k")
CONTROL = dict(raw_id="JobId", state="JobState", reason="Reason", start="StartTime", nodes="NodeList")
CONTROL |= dict(partition="Partition", comment="Comment", exit_code="ExitCode")
ACCOUNTING = dict(id="JobID", raw_id="JobIDRaw", state="State", start="Start", nodes="NodeList", partition="Partition")
ACCOUNTING |= dict(exit_code="ExitCode", name="JobName", comment="Comment")
SUSPENDED, UNKNOWN = "SUSPENDED", "unknown"
ASKED_SINCE_WHEN = 16  # suspended jobs, each of which takes a question of its own
JOB = re.compile(r"\d+(_\d+)?")  # an id, of an array's task, too


@dataclass(frozen=True)
class Partition:
    """A queue. `max_minutes` and `max_nodes` are None where there is no limit; no accounts named = all may use it."""

    name: str
    default: bool
    state: str  # UP; DOWN: its jobs wait in the queue; DRAIN, INACTIVE: Slurm takes none for it
    nodes: tuple[str, ...]
    max_minutes: int | None
    max_nodes: int | None
    grace_s: int  # between the signals of a preemption and the kill
    preempt_mode: str  # OFF, REQUEUE, CANCEL, SUSPEND: what happens to its jobs when others want the nodes
    priority_tier: int  # jobs of a higher tier may preempt those of a lower one
    allow_accounts: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """A machine, as configured. `state` is Slurm's own word without its flags: IDLE, MIXED, ALLOCATED, DRAINED..."""

    name: str
    cpus: int
    memory_mb: int
    gpus: int
    gpu_type: str  # as the cluster calls it, "" where it does not
    state: str
    reason: str  # why it is down or drained
    partitions: tuple[str, ...]
    responding: bool = True


@dataclass(frozen=True)
class SlurmJob:
    """A job or one task of an array. Times are ISO 8601 in the cluster's time zone, "" when not known."""

    id: str  # "7", or "7_3" for task 3 of array 7
    raw_id: str  # the number that Slurm gave this very job: 9 where id is "7_3"
    name: str
    state: str  # PENDING, RUNNING, COMPLETING, COMPLETED, CANCELLED, FAILED, TIMEOUT, NODE_FAIL...
    reason: str
    start: str  # expected or actual
    nodes: str  # as Slurm writes it: n[1-3]
    left: str  # of the time limit, [days-]hours:minutes:seconds; suspended time does not count
    partition: str
    comment: str
    restarts: int | None = None  # None: squeue does not tell
    exit_code: str = ""  # "code:signal", of a job that ended
    preempted: bool = False  # since it last started, as far as `ended` knows; Slurm forgets it at a requeue
    suspended: str | None = None  # since when; UNKNOWN where Slurm does not say; None where it is not

    @property
    def seconds_left(self) -> float:
        """Of the time limit; infinite where there is none, or nobody knows."""
        with contextlib.suppress(ValueError):
            return durations.seconds(self.left)
        return math.inf


def config() -> dict[str, str]:
    """slurm.conf as the controller uses it, with defaults: {"JobRequeue": "1", "KillWait": "30 sec", ...}."""
    lines = ask("scontrol", "show", "config").splitlines()
    return {key.strip(): value.strip() for key, equals, value in (line.partition("=") for line in lines) if equals}


def partitions() -> list[Partition]:
    """The partitions that this user may see."""
    rows = [dict(_pairs(line)) for line in ask("scontrol", "show", "partition", "-o").splitlines() if "=" in line]
    return [
        Partition(
            name=row["PartitionName"],
            default=row.get("Default") == "YES",
            state=row.get("State", "UP"),
            nodes=tuple(notation.expand(row.get("Nodes", ""))),
            max_minutes=notation.minutes(row.get("MaxTime", "")),
            max_nodes=notation.number(row.get("MaxNodes", "")),
            grace_s=notation.number(row.get("GraceTime", "")) or 0,
            preempt_mode=row.get("PreemptMode", "OFF"),
            priority_tier=notation.number(row.get("PriorityTier", "")) or 0,
            allow_accounts=notation.words(row.get("AllowAccounts", "ALL")),
        )
        for row in rows
    ]


def nodes() -> list[Node]:
    """Every node of those partitions, once."""
    seen: dict[str, Node] = {}
    for row in _table("sinfo", ["--noheader", "--Node"], "--format=", "NcmGTRE"):
        name, cpus, memory, gres, state, partition, reason = row
        before = seen[name].partitions if name in seen else ()
        gpus, gpu_type = notation.gpus(gres)
        seen[name] = Node(
            name=name,
            cpus=notation.number(cpus) or 0,
            memory_mb=notation.number(memory) or 0,
            gpus=gpus,
            gpu_type=gpu_type,
            state=state.rstrip("*~#!%$@^-+").upper(),
            reason=notation.text(reason) or ("not responding" if "*" in state else ""),
            partitions=(*before, partition),
            responding="*" not in state,
        )
    return list(seen.values())


def said_of(node: str) -> str:
    """What scontrol says of a node; empty where it does not answer."""
    with contextlib.suppress(ClusterError):
        return ask("scontrol", "show", "node", "-o", node)
    return ""


def jobs(ids: Iterable[str] | None = None) -> dict[str, SlurmJob]:
    """This user's jobs in the queue, tasks of arrays one by one, by their id; only `ids` where given.

    An id of an array stands for all its tasks. Raises ClusterError when the controller does not answer.
    """
    wanted = None if ids is None else set(ids)
    found = {}
    options = ["--noheader", "--array", f"--user={os.getuid()}"]
    for row in _table("squeue", options, "--format=", "".join(SQUEUE.values())):
        job = SlurmJob(**dict(zip(SQUEUE, map(notation.text, row), strict=True)))
        if wanted is None or wanted & {job.id, job.raw_id, job.id.partition("_")[0]}:
            found[job.id] = job
    for count, job in enumerate([job for job in found.values() if job.state == SUSPENDED]):
        since = _suspended_since(job.id) if count < ASKED_SINCE_WHEN else None
        found[job.id] = replace(job, suspended=since or UNKNOWN)
    return found


def _suspended_since(job_id: str) -> str | None:
    with contextlib.suppress(ClusterError):  # it may have ended meanwhile
        job = ended(job_id)
        return job and job.suspended
    return None


def ended(job_id: str) -> SlurmJob | None:
    """What Slurm still knows of a job that has left the queue: the controller for minutes, accounting for longer.

    None when neither knows it any more. Also answers for a job that is still there.
    """
    # Of a ledger that somebody else may have written: scontrol has options, too.
    if not (isinstance(job_id, str) and JOB.fullmatch(job_id)):
        return None
    try:
        lines = ask("scontrol", "show", "job", "-o", job_id)
    except ClusterError as error:
        if "Invalid job id" not in str(error):
            raise
        return _accounted(job_id)
    for record in re.split(r"\n(?=JobId=)", lines):
        # The name is the user's, and comes before what it could imitate.
        name = re.search(r"(?s)\bJobName=(.*?) UserId=[^=]+ GroupId=", record)
        row = {}
        for key, value in _pairs(record.replace(name[0], "GroupId=", 1) if name else record):
            row.setdefault(key, value)
        if "JobId" not in row:
            continue
        array, task = row.get("ArrayJobId"), row.get("ArrayTaskId", "")
        id = f"{array}_{task}" if array and task.isdigit() else row["JobId"]
        if job_id in (id, row["JobId"]):
            known = {field: notation.text(row.get(key, "")) for field, key in CONTROL.items()}
            return SlurmJob(
                id,
                name=name[1] if name else "",
                left=notation.left(row.get("TimeLimit", ""), row.get("RunTime", "")),
                restarts=notation.number(row.get("Restarts", "")),
                preempted=bool(notation.text(row.get("PreemptTime", ""))),
                # Of a job that runs it is when it last went on.
                suspended=notation.text(row.get("SuspendTime", "")) if known["state"] == SUSPENDED else None,
                **known,
            )
    return None


def _accounted(job_id: str) -> SlurmJob | None:
    options = ["--parsable2", "--noheader", "--allocations", f"--format={','.join(ACCOUNTING.values())}"]
    try:
        text = ask("sacct", f"--jobs={job_id}", f"--delimiter={FIELD}", *options, seconds=10)
    except ClusterError:  # switched off, or its database is
        return None
    for line in text.splitlines():
        row = dict(zip(ACCOUNTING, map(notation.text, line.split(FIELD, len(ACCOUNTING) - 1)), strict=False))
        if job_id in (row.get("id"), row.get("raw_id")) and len(row) == len(ACCOUNTING):
            row["state"] = row["state"].partition(" ")[0]  # "CANCELLED by 1000"
            return SlurmJob(reason="", left="", **row)
    return None


def submit(
    script: Path, options: Sequence[str] = (), *, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> str:
    """Submit a batch script; returns the job's id, for an array the array's.

    `environment` is what sbatch reads and the job inherits (see `environment`). Raises ClusterError with Slurm's
    reason. A time-out, or an answer without a number, leaves open whether there is a job.
    """
    command = ["sbatch", "--parsable", *options, str(script)]
    answer = client.run(command, seconds=SUBMIT_SECONDS, environment=environment, pass_fds=pass_fds)
    # "id" or "id;cluster"; plugins, and what a site has put in the place of sbatch, print lines of their own around it.
    ids = re.findall(r"(?m)^(\d+)(?:;\S+)?\s*$", answer.stdout)
    if not ids:
        said = client.clean(answer.stdout + answer.stderr) or "nothing"
        raise ClusterError(f"sbatch: it gave no number of a job, but said {said}")
    return ids[-1]


def test_only(script: Path, options: Sequence[str] = (), *, environment: Mapping[str, str]) -> str:
    """What Slurm says it would do with a batch script, submitting nothing. Raises ClusterError with its reason.

    It knows whether a job could run at all, not the limits of a partition where the cluster does not enforce them.
    """
    answer = client.run(["sbatch", "--test-only", *options, str(script)], environment=environment)
    return client.clean(answer.stderr + answer.stdout)


def cancel(job_ids: Iterable[str], *, signal: str | None = None) -> None:
    """Cancel jobs, or send their steps (not the batch shell) a signal such as "USR2". Those that ended are let be."""
    ids = list(job_ids)
    try:
        if ids:
            ask("scancel", *([f"--signal={signal}"] if signal else []), *ids)
    except ClusterError as error:
        if not re.search("Invalid job id specified|already completing or completed", str(error)):
            raise


def steps(job_id: str, name: str) -> list[str]:
    """Ids of the job's steps that are called `name` and have not ended."""
    rows = ask("squeue", "--steps", "--noheader", f"--jobs={job_id}", f"--format=%i{FIELD}%j").splitlines()
    return [id for id, _, found in (row.partition(FIELD) for row in rows) if found == name]


def keep(job_id: str, nodes: Sequence[str]) -> None:
    """Give the other nodes of a running job back. Once in a job's life: without accounting Slurm takes no second one
    (measured on 22.05)."""
    with tempfile.TemporaryDirectory() as folder:  # scontrol leaves a script where it is
        ask("scontrol", "update", f"JobId={job_id}", f"NodeList={','.join(nodes)}", cwd=folder)


def leave_out(job_id: str, nodes: Sequence[str], *, seconds: float) -> None:
    """Ask that a job which waits in the queue does not get `nodes`, in place of those that were left out before.

    The answer is waited for no longer than so many `seconds`. Of a job that has lost nodes, or given some back, Slurm
    takes it only once the job has really left the others, for which this process may have to end (measured on 22.05,
    without accounting).
    """
    client.send("scontrol", "update", f"JobId={job_id}", f"ExcNodeList={','.join(nodes)}", seconds=seconds)


def requeue(job_id: str) -> None:
    """Put a job back into the queue; its steps are killed at once. Raises ClusterError where that is not allowed."""
    ask("scontrol", "requeue", job_id)


def requeue_held(job_id: str) -> None:
    """As `requeue`, but nothing starts it there before a `release`."""
    ask("scontrol", "requeuehold", job_id)


def release(job_id: str) -> None:
    """Let a job that its user holds start. Harmless where it is not held. Raises ClusterError where it is not his."""
    ask("scontrol", "release", job_id)


def depend(job_id: str, dependency: str) -> None:
    """Have a job that waits in the queue wait for what `dependency` says, as afterok:7, or for nothing, and no longer
    for what it waited for before. Raises ClusterError where it has started."""
    ask("scontrol", "update", f"JobId={job_id}", f"Dependency={dependency}")


def set_node(name: str, state: str, reason: str = "") -> None:
    """Mark a node "down" or "resume" it. Raises ClusterError for anybody but an administrator."""
    ask("scontrol", "update", f"nodename={name}", f"state={state}", *([f"reason={reason}"] if reason else []))


# -- reading the answer ------------------------------------------------------------------------------------------------


def _table(tool: str, options: Sequence[str], flag: str, letters: str) -> Iterator[list[str]]:
    """Rows of squeue or sinfo: one value a format letter, the last of which may hold anything."""
    text = ask(tool, *options, flag + RECORD + FIELD.join(f"%{letter}" for letter in letters))
    for record in text.split(RECORD)[1:]:
        row = record.rstrip("\n").split(FIELD, len(letters) - 1)
        if len(row) == len(letters):
            yield row


def _pairs(record: str) -> Iterator[tuple[str, str]]:
    """Key=value pairs of `scontrol -o`; a value ends where the next key begins, and may hold spaces."""
    for match in re.finditer(r"(?s)(?:^|\s)([A-Z][\w/:]*)=(.*?)(?=\s[A-Z][\w/:]*=|\s*$)", record):
        yield match[1], match[2]
