"""How a generation of a run ended: from its ranks' exit codes and from their own words in the ledger."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import InputError, Unreadable
from launcher.run import heartbeats, manifest
from launcher.run.files import names
from launcher.run.folder import RunDir
from launcher.run.ledger import History, Ledger
from launcher.run.manifest import STEP
from launcher.start.handover import STOPPED_CODE

# A pause that may end ranks: the libraries' deadlines are minutes. A busy machine does not stand still for as long.
LONG_PAUSE_SECONDS = 60.0
SOON_SECONDS = 300.0  # what came of it has come by then: NCCL takes minutes to say where it stood


@dataclass
class Outcome:
    """Its state, the cause for the ledger, what to tell a person, and the exit code. `rank`, `node`: where it began,
    where that is known."""

    state: str
    cause: str
    message: str
    exit_code: int
    rank: int | None = None
    node: str = ""


def judge(history: History, code: int, first: int | None, otherwise: str) -> Outcome:
    """What `history` of one generation and `code` amount to.

    code: 0 when every rank ended with 0, STOPPED_CODE when those that did not had saved, anything else otherwise.
    first: the rank that failed first, where known; otherwise the earliest to complain, by the time since all ranks met.
    otherwise: what to say when no rank said anything.
    """
    if code == 0 and history.all("finished"):
        return Outcome("done", "done", "", 0)
    if code == STOPPED_CODE or (code == 0 and history.all("stopped_at_safe_point")):
        return Outcome("stopped", "stopped", "stopped at a safe point, state saved", 130)
    errors = history.all("error")
    wrong_input = [e for e in errors if e["exit_code"] == InputError.exit_code]
    if wrong_input:
        return Outcome("failed", "input", wrong_input[0]["message"], InputError.exit_code)
    blamed = [e for e in errors if first is None or e["writer"] == f"rank{first}"]
    # What one rank met and the others lost it by.
    said = [e for e in errors if e["cause"] in ("diverged", Unreadable.cause)] or blamed
    if said:
        earliest = min(said, key=lambda e: e.get("alive_s", 0.0))
        rank = earliest["writer"].removeprefix("rank")
        return Outcome("failed", earliest["cause"], earliest["message"], 4, int(rank) if rank.isdecimal() else first)
    if code == 0:  # any library can end its process so; srun does where it could start no rank at all
        why = f"exit code 0, and no rank said that it had finished: {otherwise}"
        return Outcome("failed", "unfinished", why, 4, first)
    return Outcome("failed", "killed", otherwise, 4, first)


def stuck(run: RunDir, outcome: Outcome) -> Outcome:
    """`outcome`, unless the ranks ended because they got nowhere: then who kept the others waiting; or because they had
    not run for a while: then for how long."""
    # Ranks that got nowhere end themselves, or one another; whatever else is said of an end is said better.
    if outcome.cause not in ("crash", "killed"):
        return outcome
    paused = suspended(run, outcome)
    if paused is not outcome or not heartbeats.stalled(run):
        return paused
    blamed = heartbeats.to_blame(run)
    slow = heartbeats.named(blamed) or "no rank got on"
    first = blamed[0].rank if blamed else None
    return Outcome("failed", "stuck", f"stuck: {slow}; every rank's stacks are in its log", 4, first)


def suspended(run: RunDir, outcome: Outcome) -> Outcome:
    """`outcome`, unless the ranks ended soon after they had stood still for long, in a suspended job or in a virtual
    machine that was paused: libraries take that for a peer that does not answer."""
    generation = run.generation()
    said = run.history().of(generation)
    heard = heartbeats.alive_s(run, generation)
    last = {e["writer"]: e.get("alive_s", 0.0) for e in said.all("error")}
    long = []
    for pause in said.all("paused"):
        rank = pause["rank"]
        after = max(heard.get(rank, 0.0), last.get(f"rank{rank}", 0.0)) - pause["alive_s"]  # by its own clock
        if pause["seconds"] >= LONG_PAUSE_SECONDS and after <= SOON_SECONDS:
            long.append(pause["seconds"])
    if not long:
        return outcome
    seconds = max(long)
    return Outcome("failed", "suspended", f"suspended for {seconds:.0f} s, which ended it: {outcome.message}", 4)


def note_commits(run: RunDir, ledger: Ledger) -> None:
    """A rank says what it committed when its next save is due: what it could no longer say is written down now. A start
    that was killed before that has got on all the same."""
    told = {e["step"] for e in run.history().all("checkpoint")}
    step, amount = 0, 0
    with contextlib.suppress(OSError):  # what cannot be read now is no progress that can be told
        for path in run.checkpoints():
            with contextlib.suppress(OSError, ValueError):  # damaged: the next start will say so
                saved = manifest.read(path)
                if saved.get("generation") == ledger.generation and saved["step"] not in told:
                    ledger.write("checkpoint", step=saved["step"], path=path.name)
        step, amount = kept(run.path / "features")
    if amount and [step, amount] > max((e["work"] for e in run.history().all("kept")), default=[]):
        ledger.write("kept", work=[step, amount])


def kept(folder: Path) -> tuple[int, int]:
    """(the step, an amount that only grows) of the work between steps that is kept in `folder` (runtime/store.py);
    (0, 0) where none is. An amount counts up in what the names of the files say: items, or the iteration of a state.
    Raises OSError."""
    works = [name for name in names(folder) if STEP.fullmatch(name.partition("-")[0])]
    newest = max((work.partition("-")[0] for work in works), default=None)
    if newest is None:
        return 0, 0
    files = (name for work in works if work.startswith(newest) for name in names(folder / work))
    found = (re.search(r"\.\d+-(\d+)\.\w+\.safetensors$", name) for name in files)
    return int(newest.removeprefix("step_")), sum(int(each[1]) for each in found if each)
