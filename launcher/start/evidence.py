"""How a start on Slurm ended: from what its ranks said, what Slurm wrote into the job's log, and its word for it."""

import contextlib
import math
import os
import re
import time
from pathlib import Path
from typing import Any

from launcher.errors import ClusterError, InputError, RunFailed, SetupFailed, harmless
from launcher.plan import setup, steps
from launcher.run import causes, files
from launcher.run.folder import RunDir
from launcher.run.ledger import History, Ledger
from launcher.slurm import badnodes, commands, notation
from launcher.slurm.commands import SlurmJob
from launcher.start import job, requeue
from launcher.start.ending import Outcome, note_commits, stuck
from launcher.start.told import EARLY_SECONDS, Told

SCRIPT_SECONDS = 60  # that a job may take for what it does before its script
LOST = "went down while it ran this"
FAILED_ITEM = re.compile(r"(?P<node>\S+): (?P<item>cluster\.setup\[\d+\] `.*?` (ended|left the shell) with \d+)")
NOT_BEGUN = Outcome("stopped", "stopped", "no rank had begun", 0)


def mark(generation: int) -> str:
    """Begins a generation's part of the job's log, which holds one part a start."""
    return f"== start {generation}"


def how_it_ended_before(run: RunDir) -> str:
    """Why this generation begins: what ended the one before. An end that nobody could write down is written now, with
    Slurm's word for it where the job's log has one."""
    last = run.history().last("start", "end")
    if not last:
        return "submitted"
    if last["event"] == "end":
        return last["cause"]
    first_lost, down = _first_node_lost(run), _blame_lost_nodes(run, last)
    cause = requeue.died_of(_log_of(run, last), node_down=first_lost or down)
    ended = Outcome("preempted", cause, f"ended without a word: {cause}", 0)
    afterwards = Ledger(run.path, last["generation"], "afterwards")
    note_commits(run, afterwards)
    again = last.get("job") == job.own_id()  # else somebody has submitted the run anew
    afterwards.write("end", state=ended.state, cause=cause, message=ended.message, requeued=again)
    return cause


def _first_node_lost(run: RunDir) -> bool:
    """Has the understudy put the job back into the queue, and said so? The node may be back by now."""
    word = run.path / steps.FIRST_LOST
    try:
        node = files.read(word, 1000).decode().strip()
        word.unlink()
    except (OSError, ValueError):
        return False
    badnodes.mark(run, [node], LOST)
    return True


def _blame_lost_nodes(run: RunDir, start: dict[str, Any]) -> bool:
    """Is a node that a generation ran on down now? It is left out of later submissions."""
    with contextlib.suppress(ClusterError):
        down = {node.name for node in commands.nodes() if node.state == "DOWN"}
        if lost := sorted(down & set(notation.expand(start.get("nodes", "")))):
            badnodes.mark(run, lost, LOST)
            return True
    return False


def _log_of(run: RunDir, start: dict[str, Any]) -> str:
    """What the job's log says of one generation; empty where it cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        log = Path(run.history().submission(start.get("job"))["folder"]) / f"slurm-{start['job']}.log"
        return files.tail(log).rpartition(mark(start["generation"]))[2].partition("\n== start ")[0]
    return ""


def hopeless(run: RunDir) -> Outcome | None:
    """How the run ends if it is not to start again; None where it may. Slurm starts a run again also where nobody here
    decided that: its first node died, say. A start that somebody submitted was decided."""
    history = run.history()
    before = history.before(history.generation)
    last = before.last("end")
    if last.get("writer") != "afterwards" or history.of(history.generation).all("submitted"):
        return None
    judged = History(event for event in before if event is not last)
    outcome, again = requeue.decide(judged, Outcome("failed", last["cause"], last["message"], RunFailed.exit_code))
    return None if again else outcome


def unready(run: RunDir) -> str:
    """What the batch script could not do of cluster.setup, though it was done before, here or by another task of the
    array, so that the node is to blame; empty where all was done. Raises InputError where it never was, and where the
    item is to blame after all: it has failed on another node in the same way, or three times."""
    said = harmless(os.environ.get(setup.UNREADY, ""))
    if not said:
        return ""
    done = Path(run.history().submission(job.own_id()).get("folder", ""), setup.mark(run.spec().cluster.setup))
    if done.exists():
        how = FAILED_ITEM.match(said)
        if not how or not _item_is_to_blame(run.history(), how):
            return said
        badnodes.forgive(run.runs, how["item"])
        with contextlib.suppress(OSError):
            done.unlink()
    fix = f"`sslrun resume {run.typed} cluster.setup=[...]` goes on with others" if not run.owner else "mend it"
    raise InputError(f"{said}; {fix}{', and `|| true` behind an item lets it fail' if '` ended with ' in said else ''}")


def _item_is_to_blame(history: History, how: re.Match) -> bool:
    """Whether the starts just before this one ended so, too."""
    nodes = []
    for generation in range(history.generation - 1, 0, -1):
        end = history.of(generation).last("end")
        before = FAILED_ITEM.match(end.get("message", "")) if end.get("cause") == SetupFailed.cause else None
        if not before or before["item"] != how["item"]:
            break
        nodes.append(before["node"])
    return len(nodes) >= requeue.NO_PROGRESS - 1 or any(node != how["node"] for node in nodes)


def cancelled(run: RunDir, generation: int) -> bool:
    """Has somebody asked for the end of this job, with `sslrun cancel` or with scancel? Where the start before was of
    the same job they may have done so once that had been judged."""
    history = run.history()
    since = generation - bool(history.of(generation - 1).last("end").get("in_place"))
    here = [start for start in history.all("start") if start["generation"] in (since, generation)]
    # A run that was cancelled in the queue and submitted again has an event about the job that it had then.
    asked = [e for e in history.all("cancel") if e["generation"] >= since and e.get("job") in (None, job.own_id())]
    return bool(asked) or any(requeue.ended_by_slurm(_log_of(run, start)) == "cancelled" for start in here)


def understood(run: RunDir, generation: int, outcome: Outcome, found: SlurmJob | None, told: Told) -> Outcome:
    """How the end is to be understood, from evidence."""
    said = run.history().of(generation)
    stopped = outcome.state == "stopped"
    state = ", no time to save" if said.all("save_skipped") else ", state saved"
    saved = state if stopped and outcome is not NOT_BEGUN else f"; {outcome.message}"
    start = said.first("start")
    # While the job ends Slurm calls its state COMPLETING, whatever ended it; the log says more.
    slurms = requeue.ended_by_slurm(_log_of(run, start))
    if cancelled(run, generation):
        return Outcome("cancelled", "cancelled", f"cancelled{saved}", outcome.exit_code)
    if found and found.preempted:
        slurms = "preempted"
    if slurms and (stopped or causes.of(outcome.cause).may_be_slurms):
        if slurms == "node_failure":
            _blame_lost_nodes(run, start)
        return Outcome("preempted", slurms, f"{slurms.replace('_', ' ')}{saved}", 0)
    if not stopped:
        return stuck(run, outcome)
    signals = {e.get("signal") for e in said.all("stopped_at_safe_point")} or {told.signal}
    left = found.seconds_left if found else math.inf
    left = left if left < math.inf else limit(run) - (time.monotonic() - told.began)
    if "SIGUSR2" in signals and left < run.plan()["signal_delay_s"] + EARLY_SECONDS + SCRIPT_SECONDS:
        return Outcome("preempted", "time_limit", f"the time limit came{saved}", 0)
    names = " and ".join(sorted(filter(None, signals)))
    return Outcome("preempted", "asked", f"told to stop by {names}{saved}", 0)


def limit(run: RunDir) -> float:
    """Seconds that the job may take: from two times of the controller's clock, which this node's need not follow."""
    with contextlib.suppress(KeyError):  # Slurm before 23.02 does not say
        return float(os.environ["SLURM_JOB_END_TIME"]) - float(os.environ["SLURM_JOB_START_TIME"])
    return 60.0 * run.spec().cluster.timeout_min
