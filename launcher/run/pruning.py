"""What can go from a run's folder and from what its runs share: found first, so that it can be said before it goes.

Never the newest checkpoint that verifies, which is what runs take that wait for the end, nor one that an evaluation
waits for; what another run starts from, that run has pinned. Whoever deletes holds the run's lock.
"""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import ClusterError, InputError
from launcher.run import files, pins, waiting
from launcher.run.files import read_json
from launcher.run.folder import ENVIRONMENTS, RunDir
from launcher.run.manifest import verify

LONG_GONE_DAYS = 7.0  # since a submission's folder was last written to; until then people may ask what went wrong
HALF_WRITTEN_DAYS = 1.0  # since a copy of the code, or an environment, was begun that nobody finished
SECOND_LOOK_SECONDS = 1.0  # between a submitter's look at a snapshot and its link to it pass milliseconds


@dataclass(frozen=True)
class Deletable:
    """Something that can go. `what`: its kind in a word or two; `size`: bytes."""

    path: Path
    what: str
    size: int


@dataclass(frozen=True)
class Findings:
    """`kept`: path of what stays -> why. `notes`: what a person should know besides."""

    doomed: list[Deletable]
    kept: dict[Path, str]
    notes: list[str]


def find(run: RunDir, keep: int, jobs: Callable[[], Mapping[str, Any]]) -> Findings:
    """Everything that can go, where the `keep` newest checkpoints that verify stay. Reads every byte of those.

    jobs: asks Slurm for the user's jobs; called where arrays were submitted.
    """
    found = Findings([], {}, [])
    _find_checkpoints(run, keep, found)
    _find_work(run, found)
    for what in SHARED:
        _find_unused(what, run.path.parent, found)
    _find_submissions(run, jobs, found)
    return found


def delete(items: Iterable[Deletable], runs: Path) -> list[Deletable]:
    """Delete `items` and return those that went: what runs share, and one has begun to use meanwhile, stays.

    Raises InputError where the file system refuses.
    """
    items, gone = list(items), []
    try:
        for item in items:
            if item.what not in SHARED:
                files.remove(item.path, under=f".saving-pruned-{item.path.name}" if item.what == CHECKPOINT else "")
                gone.append(item)
        for what in SHARED:
            gone += _delete_shared(what, [item for item in items if item.what == what], runs)
        return gone
    except OSError as error:
        fix = "make it writable, and prune again"
        raise InputError.of("runs", error.filename, f"cannot be deleted ({error.strerror})", fix) from None


# -- checkpoints ---------------------------------------------------------------------------------------------------

CHECKPOINT, QUARANTINED, TEMPORARY, SUBMISSION, PINNED = (
    "checkpoint", "quarantined checkpoint", "temporary folder", "submission", "pinned checkpoint",
)  # fmt: skip
CODE, ENVIRONMENT = "unused code", "unused environment"
# Where what several runs use lies beside them, and the link by which a run uses it.
SHARED = {CODE: (".code", "code"), ENVIRONMENT: (ENVIRONMENTS, "environment")}


def _find_checkpoints(run: RunDir, keep: int, found: Findings) -> None:
    folder = run.path / "checkpoints"
    if not _is_folder(folder, found):
        return
    saved = [path for path in run.checkpoints() if _is_folder(path, found)]
    found.doomed.extend(_items(folder.glob(".saving-*"), TEMPORARY, found))
    good: list[Path] = []
    broken: dict[Path, str] = {}
    for path in reversed(saved):
        if len(good) == keep:
            break
        try:
            reason = verify(path)
        except OSError as error:
            found.notes.append(f"all checkpoints stay: {waiting.unreadable(error)}")
            return
        if reason:
            broken[path] = reason
        else:
            good.append(path)
    if not good:
        if saved or any(folder.glob("broken-*")):
            found.notes.append("no checkpoint verifies, so all of them stay, also the quarantined ones")
        return
    _find_pins(run, found)
    try:
        needed = _needed(run)
    except OSError as error:
        found.notes.append(f"all checkpoints stay: what starts from them is unknown, {waiting.unreadable(error)}")
        return
    for path, reason in broken.items():
        if path > good[0]:
            # The next start sets it aside and says why. It may still be whole: a file system may fail for an hour.
            found.kept[path] = f"does not verify ({reason}); `sslrun resume` sets it aside"
    for path in saved:
        if path in good:
            found.kept[path] = "verified"
        elif path.name in needed:
            found.kept[path] = needed[path.name]
        elif path not in found.kept:
            found.doomed.extend(_items([path], CHECKPOINT, found))
    found.doomed.extend(_items(sorted(folder.glob("broken-*")), QUARANTINED, found))


def _find_pins(run: RunDir, found: Findings) -> None:
    """What the run pinned of others: it has a checkpoint to go on from, and only other networks are loaded again."""
    ended = run.state().name == "done"
    for evaluation in _folders_in(run.path / "evals", found):
        if (evaluation / pins.FOLDER).exists() and RunDir(evaluation).state().name == "done":
            found.doomed.extend(_items([evaluation / pins.FOLDER], PINNED, found))
    for field in sorted((run.path / pins.FOLDER).glob("*")):
        if ended or field.name in ("init_from", "continue_from"):
            found.doomed.extend(_items([field], PINNED, found))
        else:
            found.kept[field] = "each start loads it"


def _needed(run: RunDir) -> dict[str, str]:
    """Name of a checkpoint -> who needs it: evaluations that have not ended, and runs that start from it and were made
    before they pinned it. Raises OSError where one of the user's own cannot be read."""
    needed = {}
    folder = os.path.realpath(run.path / "checkpoints")
    for file in _own(run.path.parent, "spec.json"):
        if (file.parent / pins.FOLDER).is_dir():
            continue
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, AttributeError):  # no spec, no pin
            spec = read_json(file)
            method = {f"method.{name}": value for name, value in spec.get("method", {}).items()}
            sources = {name: spec.get(name) for name in ("init_from", "continue_from")}
            for field, source in {**sources, **method}.items():
                where = source.get("path") if isinstance(source, dict) else None
                if where and os.path.realpath(Path(where).parent) == folder:
                    verb = "starts from" if field in ("init_from", "continue_from") else "uses"
                    needed[Path(where).name] = f"{file.parent.name} {verb} it ({field})"
    for file in _own(run.path / "evals", "eval.json"):
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
            step, evaluation = read_json(file)["step"], RunDir(file.parent)
            if step is not None and evaluation.state().name not in ("done", "failed", "cancelled"):
                needed[f"step_{step:08d}"] = f"{evaluation.id} has not ended"
    return needed


def _own(folder: Path, name: str) -> list[Path]:
    """The files of this name in the user's own folders in `folder`. Raises OSError where one cannot be looked into."""
    found = []
    for each in files.names(folder):
        status = os.lstat(folder / each)
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and name in files.names(folder / each):
            found.append(folder / each / name)
    return found


def _find_work(run: RunDir, found: Findings) -> None:
    """What was kept of work between two steps (runtime/store.py): of use until a checkpoint of a later step stands."""
    if not _is_folder(run.path / "features", found):
        return
    newest = max((path.name for path in run.checkpoints()), default="")
    found.doomed.extend(_items(run.path.glob("features/.gone-*"), TEMPORARY, found))
    for folder in sorted(run.path.glob("features/step_*")):
        if folder.name < newest:
            found.doomed.extend(_items([folder], TEMPORARY, found))
        else:
            what = "probe" if "-" in folder.name else "clustering"
            found.kept[folder] = f"features of a {what} with which `sslrun resume` goes on"


# -- what the runs of a folder share ---------------------------------------------------------------------------------


def _find_unused(what: str, runs: Path, found: Findings) -> None:
    folder, link = SHARED[what]
    try:
        entries = _folders_in(runs / folder, found)
        _own(runs, link)
    except OSError as error:
        found.notes.append(f"{what.removeprefix('unused ')} stays, whoever uses it: {waiting.unreadable(error)}")
        return
    used = _used(runs, link) if entries else set()
    unused = [p for p in entries if not p.name.startswith(".") and p.name not in used]
    leftovers = [p for p in entries if p.name.startswith(".") and _days_old(p) > HALF_WRITTEN_DAYS]
    found.doomed.extend(_items(unused + leftovers, what, found))


def _used(runs: Path, link: str) -> set[str]:
    users = ("*", "*/submit", "*/evals/*", "*/evals/*/submit", ".arrays/*")
    links = (folder / link for pattern in users for folder in runs.glob(pattern))
    # Also a link that leads nowhere now: `_delete_shared` has put what it means aside.
    return {Path(os.path.realpath(link)).name for link in links if os.path.lexists(link)}


def _delete_shared(what: str, items: list[Deletable], runs: Path) -> list[Deletable]:
    """Out of sight first, then a second look at who uses it: a submission may have found it a moment earlier."""
    aside = {}
    for item in items:
        aside[item.path.name] = files.rename(item.path, f".unused-{item.path.name.lstrip('.')}")
    if aside:
        time.sleep(SECOND_LOOK_SECONDS)
    used, gone = _used(runs, SHARED[what][1]) if aside else set(), []
    for item in items:
        hidden = aside[item.path.name]
        if item.path.name in used and not item.path.exists():
            files.rename(hidden, item.path.name)
            continue
        files.remove(hidden)
        gone.append(item)
    return gone


def _find_submissions(run: RunDir, jobs: Callable[[], Mapping[str, Any]], found: Findings) -> None:
    """Pickles, scripts and Slurm's logs of jobs that are long gone."""
    mine, arrays = run.path / "submit", run.path.parent / ".arrays"
    if _is_folder(mine, found) and _days_old(mine) > LONG_GONE_DAYS and not run.history().open_intent:
        found.doomed.extend(_items([mine], SUBMISSION, found))
    old = [path for path in _folders_in(arrays, found) if _days_old(path) > LONG_GONE_DAYS]
    if not old:
        return
    try:
        waiting = {job.comment.rpartition(":")[2] for job in jobs().values()}
    except ClusterError as error:
        found.notes.append(f"submissions of arrays stay, their jobs may still be in the queue: {error}")
        return
    found.doomed.extend(_items([p for p in old if p.name not in waiting], SUBMISSION, found))


# -- files ----------------------------------------------------------------------------------------------------------


def _items(paths: Iterable[Path], what: str, found: Findings) -> list[Deletable]:
    folders = [path for path in paths if _is_folder(path, found)]
    return [Deletable(path, what, sum(map(_freed, _files(path)))) for path in folders]


def _folders_in(folder: Path, found: Findings) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _is_folder(path, found)] if _is_folder(folder, found) else []


def _is_folder(path: Path, found: Findings) -> bool:
    """Of a link, which anybody may have laid who can write here, it is said that it stays, with all behind it."""
    if path.is_symlink():
        found.kept[path] = f"it is a link to {os.readlink(path)}, and nothing behind it is looked at"
        return False
    return path.is_dir()


def _freed(file: Path) -> int:
    """Bytes that go with it: none where a run that starts from it has pinned it."""
    found = file.lstat()
    return found.st_size if found.st_nlink == 1 else 0


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path


def _days_old(folder: Path) -> float:
    """Since anything in it was last written."""
    newest = max(p.lstat().st_mtime for p in (folder, *_files(folder)))
    return (time.time() - newest) / 86400
