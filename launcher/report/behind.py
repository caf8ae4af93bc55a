"""The runs that a run waits for, in words."""

import contextlib
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import SslrunError
from launcher.run.folder import RunDir
from launcher.run.state import ACTIVE, State
from launcher.slurm.commands import SlurmJob
from launcher.start import chain, stages

Facts = Mapping[str, Any]
Jobs = Mapping[str, SlurmJob]
GONE = "gone"  # in the place of a state
DAMAGED = (SslrunError, OSError, ValueError, KeyError)  # it is told of where it is read


def standing(runs: Iterable[RunDir], jobs: Jobs | None) -> dict[Path, list[Facts]]:
    """{folder: which runs each of `runs`, which have not begun, waits for, and where these stand: {run, path, state,
    step}}. Those that are done stand there where its job would not start all the same, and those whose folder is gone.
    jobs: the user's in Slurm's queue, None where nobody could or needed to ask."""
    awaited: dict[Path, list[stages.Awaited]] = {}
    for run in runs:
        with contextlib.suppress(*DAMAGED):
            awaited[run.path] = stages.of_run(run)
    # A sweep may have a thousand points behind one run: that is read once.
    sources = {each.run.path: each for some in awaited.values() for each in some}
    known: dict[Path, Facts] = {}
    for path, source in sources.items():
        with contextlib.suppress(*DAMAGED):
            for each, state in stages.standing([source], jobs):
                known[path] = _facts(each.run, state, jobs)
            if not (path / "spec.json").exists():
                known[path] = {"run": source.run.id, "path": str(path), "state": GONE, "step": 0}
    found = {path: [known[each.run.path] for each in some if each.run.path in known] for path, some in awaited.items()}
    for path, some in awaited.items():
        with contextlib.suppress(*DAMAGED):
            if some and not found[path] and chain.stuck(RunDir(path), jobs or {}):
                found[path] = [_facts(each.run, State("done"), jobs) for each in some]
    return found


def evaluations(run: RunDir) -> list[RunDir]:
    """Those of a run whose jobs wait for its end, as far as the queue need not be asked."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(f"{run.path}/evals"))
    return waiting([RunDir(run.path / "evals" / name) for name in names], None)


def waiting(runs: Iterable[RunDir], jobs: Jobs | None) -> list[RunDir]:
    """Those of `runs` whose jobs, which have not begun, wait for the end of others."""
    found = []
    for run in runs:
        with contextlib.suppress(*DAMAGED):
            state = run.state(jobs)
            found += [run] if state.name == "pending" and state.job and stages.of_run(run) else []
    return found


def cell(before: Sequence[Facts]) -> str:
    """For a table: the first of them, and how many there are besides."""
    more = f", {len(before) - 1} more" if len(before) > 1 else ""
    return f"{before[0]['run']} ({before[0]['state']}){more}" if before else ""


def in_words(before: Sequence[Facts], folder: Path, where: str) -> str:
    """Each of them, and what to type where nobody runs it. folder: of runs, which commands find with `where`."""
    said = []
    for each in before:
        near = Path(each["path"]).parent.resolve() == folder.resolve()
        name = each["run"] if near else each["path"]
        stands = f"{name} ({each['state']} at step {each['step']})"
        if each["state"] == GONE:
            said.append(f"{name} ({GONE}): put its folder back, or `sslrun cancel` what waits for it")
            continue
        starts = f"starts what waits for it{'' if each['state'] == 'done' else ', too'}"
        resume = f": `sslrun resume {shlex.quote(name)}{where if near else ''}` {starts}"
        said.append(stands if each["state"] in ACTIVE else stands + resume)
    return "; ".join(said)


def idle(before: Sequence[Facts]) -> list[Facts]:
    """Those of them that nobody runs."""
    return [each for each in before if each["state"] not in ACTIVE]


def _facts(run: RunDir, state: State, jobs: Jobs | None) -> Facts:
    step = run.summary(jobs, digest=False)["step"]
    return {"run": run.id, "path": str(run.path), "state": state.name, "step": step}
