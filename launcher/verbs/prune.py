"""`sslrun prune`: old checkpoints and leftovers of a run go."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from launcher.errors import InputError
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.run.folder import RunDir
    from launcher.run.pruning import Deletable, Findings

EXAMPLE = "sslrun prune deepercluster-demo --keep 2"


def add_arguments(parser: ArgumentParser) -> None:
    arguments.add_run(parser)
    parser.add_argument("--keep", type=int, default=1, metavar="N", help="checkpoints that stay, 1 by default")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Delete all but the newest checkpoints that verify, leftovers of saves, unused code and old submissions."""
    from launcher.run import pruning
    from launcher.run.ledger import Ledger
    from launcher.run.question import agreed
    from launcher.slurm import commands

    if options.keep < 1:
        raise InputError.of("--keep", options.keep, "the last checkpoint always stays", "give 1 or more")
    found = arguments.find(options)
    _refuse_active(found)
    lock = found.lock()
    if lock is None:
        found.refuse_second_writer()
        raise InputError.of("RUN", found.id, "somebody has just started it", f"`sslrun cancel {found.typed}` stops it")
    try:
        findings = pruning.find(found, options.keep, commands.jobs)
        _say(found, findings)
        if not findings.doomed:
            return _answer(found, findings, [], options)
        if not options.yes and not sys.stdin.isatty():
            raise InputError.of("--yes", ..., "nothing is deleted unasked, and nobody is here to be asked", "add --yes")
        if not options.yes and not agreed("delete?"):
            return 130
        gone = pruning.delete(findings.doomed, found.path.parent)
        names = [item.path.name for item in gone if item.what == pruning.CHECKPOINT]
        Ledger(found.path, found.generation(), "prune").write("pruned", checkpoints=names, bytes=_bytes(gone))
    finally:
        os.close(lock)
    return _answer(found, findings, gone, options)


def _refuse_active(found: "RunDir") -> None:
    """Also a run that Slurm may start any moment: its ranks would look for what is being deleted."""
    from launcher.slurm import queue

    jobs, trouble = queue.of_runs([found])
    state = found.state(jobs)
    if state.name == "running" or state.job:
        reason = f"it is {state.name}" + (f" as job {state.job}" if state.job else "")
        reason += f" ({trouble})" if trouble else ""
        raise InputError.of("RUN", found.id, reason, f"wait, or `sslrun cancel {found.typed}` first")


def _say(found: "RunDir", findings: "Findings") -> None:
    from launcher.report import view

    screen = view.console()
    for note in findings.notes:
        screen.print(note, soft_wrap=True)
    for path, why in findings.kept.items():
        screen.print(f"stays: {path.name}, {why}", soft_wrap=True)
    kinds: dict[str, list[Deletable]] = {}
    for item in findings.doomed:
        kinds.setdefault(item.what, []).append(item)
    for what, items in kinds.items():
        names = ", ".join(item.path.name for item in items[:5]) + (", ..." if len(items) > 5 else "")
        plural = "s" if len(items) > 1 and not what.endswith("code") else ""
        count = f"{len(items)} {what}{plural}"
        screen.print(f"goes: {count}, {_gb(items)}: {names}", soft_wrap=True)
    total = f"{_gb(findings.doomed)} can go" if findings.doomed else "nothing to delete"
    screen.print(f"{found.id}: {total}", soft_wrap=True)


def _bytes(items: "list[Deletable]") -> int:
    return sum(item.size for item in items)


def _gb(items: "list[Deletable]") -> str:
    return f"{_bytes(items) / 1e9:.3f} GB"


def _answer(found: "RunDir", findings: "Findings", gone: "list[Deletable]", options: Namespace) -> int:
    if gone:
        arguments.say(f"deleted {_gb(gone)}")
    if options.json:
        deleted = [{"path": str(item.path), "what": item.what, "bytes": item.size} for item in gone]
        kept = [{"path": str(path), "why": why} for path, why in findings.kept.items()]
        answer = {"id": found.id, "path": str(found.path), "freed_gb": _bytes(gone) / 1e9}
        print(json.dumps({**answer, "deleted": deleted, "kept": kept}))
    return 0
