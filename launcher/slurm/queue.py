"""What the queue adds to a run's own ledger: asked once for many runs, and never waited for when Slurm is down."""

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import ClusterError, InputError
from launcher.run.files import tail
from launcher.run.folder import RunDir
from launcher.run.ledger import goes_on
from launcher.run.state import ACTIVE, of
from launcher.slurm import badnodes, commands, notation

ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")
LACKS = re.compile(r"(?P<node>\S+) has no (?P<what>/.+?)(?P<yours> of yours)?; ")  # as the batch script says it
# The same; where the job's Python could start, the ledger has it.
FAILED_SETUP = re.compile(r"\S+: cluster\.setup\[\d+\] ")
TOLD = ("submitted", "start", "end")  # what the ledger says of a run's jobs
BLAMED = 16  # lost jobs that a submission asks Slurm about: a sweep may have lost a thousand to one node


@dataclass(frozen=True)
class Lost:
    """How a job ended that wrote no end into the run's ledger. `node`: the one whose fault it was, where known."""

    words: str = ""
    node: str = ""
    why: str = ""


def of_runs(runs: Iterable[RunDir]) -> tuple[Mapping[str, commands.SlurmJob] | None, str]:
    """(the user's jobs in the queue, "") or (None, why it could not be asked); asked only if a run may be there."""
    if not any(_has_job(run) for run in runs):
        return None, ""
    try:
        return commands.jobs(), ""
    except ClusterError as error:
        return None, f"{error}: states are the ledgers' last word"


def _has_job(run: RunDir) -> bool:
    """Whether the ledger names a job. Not where it cannot be read: whoever asks for the run's state is told why."""
    try:
        return bool(of(run.history(), held=False).job)
    except (OSError, ValueError):
        return False


def refuse_second_writer(run: RunDir) -> None:
    """Raises InputError when somebody runs it, or a job in the queue will."""
    run.refuse_second_writer()
    state = run.state(of_runs([run])[0])
    if state.job and state.name in ACTIVE:
        reason = f"job {state.job} has it, and a run has one writer"
        raise InputError.of("RUN", run.id, reason, f"`sslrun cancel {run.typed}` takes it back")


def last_words(run: RunDir) -> str:
    """Why a run's job ended before the run could say anything itself; empty when there is nothing to add."""
    return lost(run).words


def blame(runs: Iterable[RunDir]) -> None:
    """Put the nodes on which the runs' last jobs could not begin on the list of those to leave out."""
    unheard = [run for run in runs if run.history().last(*TOLD).get("event") == "submitted"]
    for run in unheard[-BLAMED:]:
        found = lost(run)
        if found.node:
            badnodes.mark(run, [found.node], found.why)


def lost(run: RunDir) -> Lost:
    """What is known of a job that is gone and of which the ledger has no end: from its log, else from Slurm."""
    held, history = run.held(), run.history()
    told = history.last(*TOLD)
    # As if no job were in the queue; those that are say so below.
    gone = of(history, held=held, queue={}).name in ("failed", "stopped")
    if not told or not gone or (told["event"] == "end" and not goes_on(told)):
        return Lost()
    job, began = history.job, told["event"] != "submitted"
    given = history.submission(job)
    if not given:
        return Lost()
    folder = Path(given["folder"])
    log = folder / f"slurm-{job}.log"
    said = _last_line(log, "sslrun: ")  # what the batch script wrote for a person
    lacks = LACKS.match(said)
    if lacks or (said and (FAILED_SETUP.match(said) or not began)):
        # What is not here either, or somebody else's, is no node's fault.
        blamed = lacks and Path(lacks["what"]).exists() and (not lacks["yours"] or folder.stat().st_uid == os.getuid())
        return Lost(said, lacks["node"], f"has no {lacks['what']}") if blamed else Lost(said)
    try:
        found = commands.ended(job)
    except ClusterError:
        return Lost()
    if found is None:
        if began or log.exists():
            return Lost()
        words = f"job {job} ended before the run began, and Slurm no longer knows how; it wrote no log"
        return Lost(f"{words}: it was cancelled, or its first node does not see {folder}")
    if found.state in ALIVE:
        return Lost()
    if found.exit_code == commands.UNOPENED_LOG:
        first = notation.expand(found.nodes)[0]
        words = f"job {job}: its first node, {first}, could not open its log: it does not see {folder}, or cannot write"
        fix = "choose a folder that all nodes share with runs=PATH"
        return Lost(f"{words} there; {fix}", first, f"could not open a log in {folder}")
    when = "without a word" if began else "before the run began"
    where = f", on {found.nodes}" if found.nodes else ""
    last = _last_line(log).strip()[:300]
    last = f"; the last line of {log}: {last}" if last else ""
    return Lost(f"job {job} ended {when}: {found.state}, exit code {found.exit_code}{where}{last}")


def _last_line(log: Path, begins: str = "") -> str:
    """The last line of `log` that is not blank and begins so, without its beginning; empty where there is none. None of
    before its last start."""
    with contextlib.suppress(OSError, ValueError):
        lines = reversed(tail(log).rpartition("\n== start ")[2].splitlines())
        return next((line.removeprefix(begins) for line in lines if line.strip() and line.startswith(begins)), "")
    return ""
