"""`sslrun logs`: what the ranks printed, across all starts of a run."""

import json
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import InputError, harmless
from launcher.run.files import opened
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.run.folder import RunDir
    from launcher.run.state import State
    from launcher.slurm.commands import SlurmJob

EXAMPLE = "sslrun logs deepercluster-demo -f"
POLL_SECONDS = 0.5
MOST = 16 * 2**20  # bytes of a log that are shown at once; a file system may claim any number
QUEUE_SECONDS = 10.0  # between two looks at the queue; the files are looked at more often


def add_arguments(parser: ArgumentParser) -> None:
    arguments.add_run(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on while the run does, across its restarts")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="every rank, each line with its rank")
    parser.add_argument("--json", action="store_true", help="no text: the last line of stdout lists the log files")


def run(options: Namespace) -> int:
    """What the ranks printed."""
    from launcher.report import view
    from launcher.run.state import ACTIVE
    from launcher.slurm import queue

    found = arguments.find(options)
    folder = found.path / "logs"
    if options.json:
        print(json.dumps({"id": found.id, "logs": [str(p) for p in _wanted(folder, every=True, rank=0)]}))
        return 0
    screen, read, told, asked = view.console(), {}, "", -QUEUE_SECONDS
    while True:
        for log in _wanted(folder, every=options.all, rank=options.rank):
            _print_new(log, read, labelled=options.all)
        if time.monotonic() - asked > QUEUE_SECONDS or not options.follow:
            asked = time.monotonic()
            jobs, _ = queue.of_runs([found])
            state = found.state(jobs)
        elif found.state().name not in ACTIVE:
            asked = -QUEUE_SECONDS  # the ledger says that it ended: look at once whether it will go on
        if not options.follow or state.name not in ACTIVE:
            break
        if state.name != "running" and state != told:
            waits = _waits(found, state, jobs)
            screen.print(f"{found.id} is {state.name}{f': {waits}' if waits else ''}", soft_wrap=True)
            told = state
        time.sleep(POLL_SECONDS)
    if not read:
        raise _no_log(found, state, jobs, options)
    return 0


def _waits(found: "RunDir", state: "State", jobs: "Mapping[str, SlurmJob] | None") -> str:
    """That it waits, and for what, as far as that is known; empty where it does not."""
    from launcher.report import behind
    from launcher.slurm import reasons

    reason, where = reasons.of(state.why_pending), arguments.runs_option(found)
    before = behind.standing([found], jobs).get(found.path, []) if state.name == "pending" else []
    waits = behind.in_words(before, found.runs, where)
    waits = waits or (reason.said(state.job, found.id, where) if reason.word else "")
    return f"it waits for {waits}" if waits else ""


def _no_log(found: "RunDir", state: "State", jobs: "Mapping[str, SlurmJob] | None", options: Namespace) -> InputError:
    """The error that nothing of what was asked for is there."""
    from launcher.run.state import ACTIVE
    from launcher.slurm import queue

    stage = found.doing(state.name, found.history()).get("stage") if state.name == "running" else ""
    why = _waits(found, state, jobs) or stage or queue.last_words(found) or state.message
    one = not options.all and _wanted(found.path / "logs", every=True, rank=0)
    reason = f"{found.id} is {state.name} and has no log{' of it' if one else ''}" + (f" ({why})" if why else "")
    command = f"`sslrun logs {found.typed} -f` shows what comes"
    fix = "use --all" if one else command if state.name in ACTIVE else f"`sslrun resume {found.typed}` starts it"
    return (
        InputError.of("--all", ..., reason, fix) if options.all else InputError.of("--rank", options.rank, reason, fix)
    )


def _wanted(folder: Path, *, every: bool, rank: int) -> list[Path]:
    logs = sorted((p for p in folder.glob("rank*.log") if p.stem[4:].isdecimal()), key=lambda p: int(p.stem[4:]))
    return logs if every else [p for p in logs if p.stem == f"rank{rank}"]


def _print_new(log: Path, read: dict[Path, int], *, labelled: bool) -> None:
    with open(opened(log), "rb") as file:
        size, begin = os.fstat(file.fileno()).st_size, read.get(log, 0)
        if size - begin > MOST:
            arguments.say(f"{log}: the last {MOST:,} of {size - begin:,} bytes")
            begin = size - MOST
        file.seek(begin)
        text = file.read(max(0, size - begin))  # what is written from now on is for the next look
    read[log] = begin + len(text)
    for line in text.decode(errors="replace").splitlines():
        print(f"{log.stem}: {harmless(line)}" if labelled else harmless(line), flush=True)
