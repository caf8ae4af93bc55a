"""The checkpoints that a run starts from, kept with it: whoever made them may prune them, and trains on.

    RUN/pinned/init_from/step_00000300/    or continue_from, or method.FIELD: a folder for each field of its spec
    RUN/evals/knn-1/pinned/run/step_...    of an evaluation that judges a run which trains on

Each file is a hard link, which takes room only once the original is gone. Where it is another user's, who could change
it in its place, or on another file system, it is a copy, of which the runs of a folder have one together. A checkpoint
that there is when a run is made is pinned then, the last one of a run that trains at the first start after its end.
What was taken from a run the ledger says, as `pinned`, since spec.json is frozen: each start loads that, and nothing
else. A file of weights, which nobody prunes, has no pin, nor has a run that was made before there were pins.
"""

import contextlib
import errno
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from launcher.errors import InputError
from launcher.run import manifest
from launcher.run.files import NotOurs, names, opened, read_json, replacing, sync_names
from launcher.run.ledger import Event, History, Ledger
from launcher.run.manifest import STEP
from launcher.run.state import of
from launcher.spec import registry
from launcher.spec.runspec import FromRun, InitFrom, RunSpec

FOLDER, MANIFEST = "pinned", "manifest.json"
JUDGED = "run"  # the place of what an evaluation judges, which is no field of its spec
CHUNK = 8 << 20  # bytes


def lay(folder: Path, spec: RunSpec) -> None:
    """Pin in the run's `folder`, which is being made, every checkpoint that `spec` names and that there is. Raises
    InputError, about the field, where one is gone, cannot be read, or is not what was asked for; OSError where `folder`
    cannot be written."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)  # of a launch that was killed
    for field, source in spec.sources.items():
        with _as_typed_in(spec, field):
            if not isinstance(source, FromRun):
                if Path(source.path).is_dir():
                    keep(folder, field, source)
            elif source.step is not None or done(History.read(Path(source.path))):
                _take(folder, field, source, Ledger(folder, 1, "submit"))


def complete(folder: Path, spec: RunSpec, pen: Ledger) -> None:
    """Pin what `lay` could not, at the run's start. Raises as `lay` does, also where a run has not ended."""
    for field, source in missing(folder, spec).items():
        with _as_typed_in(spec, field):
            _take(folder, field, source, pen)


def as_typed(spec: RunSpec, field: str) -> str:
    """The name of a field of `spec.sources` for who types it."""
    return field if registry.method(spec.method.name).trains else "features"


@contextlib.contextmanager
def _as_typed_in(spec: RunSpec, field: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise error.about(as_typed(spec, field)) from None


def missing(folder: Path, spec: RunSpec) -> dict[str, FromRun]:
    """What the run in `folder` is to take from other runs and has not taken yet, by field. Raises OSError."""
    waits = {field: source for field, source in spec.sources.items() if isinstance(source, FromRun)}
    told = {event["field"] for event in History.read(folder).all("pinned")} if waits else set()
    return {field: source for field, source in waits.items() if field not in told}


def done(history: History) -> bool:
    """Whether the run of this ledger was trained to its end."""
    return of(history, held=False).name == "done"


def where(folder: Path, field: str, path: str | Path) -> Path:
    """Where the run in `folder` finds the checkpoint at `path` that it pinned for `field`."""
    pin = folder / FOLDER / field / Path(path).name
    return pin if pin.is_dir() else Path(path)


def taken(folder: Path, field: str, source: InitFrom | FromRun) -> InitFrom:
    """What the run in `folder` takes for `field`: where it finds that, and its digest. Raises InputError where nothing
    was taken from a run yet, OSError."""
    if isinstance(source, FromRun):
        told: Event = next((e for e in reversed(History.read(folder).all("pinned")) if e["field"] == field), {})
        if not told:
            reason = "the ledger does not say which checkpoint was taken"
            raise InputError.of(field, source.path, reason, "start a new run")
        source = InitFrom(told["path"], told["digest"])
    return InitFrom(str(where(folder, field, source.path)), source.digest)


def identity_of(run: Path) -> str:
    """As the run in this folder was made, whatever is known of specs now. Raises OSError, ValueError, LookupError."""
    return str(read_json(run / "spec.json")["identity"])


def checkpoint(field: str, source: FromRun) -> InitFrom:
    """The checkpoint that `source` means, as it is now. Raises InputError where that run is another one now, or has not
    ended, or the checkpoint is gone or cannot be read; OSError where that cannot be told."""
    run, fix = Path(source.path), "restore it, or start another run"
    try:
        same = identity_of(run) == source.identity
    except FileNotFoundError:
        raise InputError.of(field, run, "that run is gone", fix) from None
    except (ValueError, LookupError, TypeError):
        same = False
    if not same:
        raise InputError.of(field, run, "that folder holds another run now", fix)
    step = source.step
    if step is None:
        history = History.read(run)
        if not done(history):
            raise InputError.of(field, run, "that run is not done", history.first_fix(shlex.quote(str(run))))
        newest = max(filter(STEP.fullmatch, names(run / "checkpoints")), default="step_0")
        step = history.last("finished").get("step", int(newest.removeprefix("step_")))
    path = run / "checkpoints" / f"step_{step:08d}"
    try:
        return InitFrom(str(path), manifest.read(path)["digest"])
    except FileNotFoundError:
        fix = fix if source.step is None else "type it again, or name another step"  # it may have been the newest
        raise InputError.of(field, path, "there is no such checkpoint any more", fix) from None
    except ValueError as error:
        raise InputError.of(field, path, f"cannot be read ({error})", fix) from None


def keep(folder: Path, field: str, source: InitFrom) -> None:
    """Pin one checkpoint under the name of `field`. Raises as `lay` does."""
    path = Path(source.path)
    target = folder / FOLDER / field / path.name
    shutil.rmtree(target.parent, ignore_errors=True)  # of a start that was killed
    target.mkdir(parents=True)
    with contextlib.ExitStack() as undo:
        undo.callback(_remove_empty, folder / FOLDER)
        undo.callback(shutil.rmtree, target.parent, ignore_errors=True)
        _pin(field, source, _nearest(path, source.digest, folder.parent), target)
        for each in (target, *target.parents[:3]):  # as far as the run's folder
            sync_names(each)
        undo.pop_all()


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _take(folder: Path, field: str, source: FromRun, pen: Ledger) -> None:
    """Pin, and then say so: of what the ledger says all is there. Raises OSError where it cannot be said."""
    found = checkpoint(field, source)
    keep(folder, field, found)
    step = int(Path(found.path).name.removeprefix("step_"))
    pen.write("pinned", field=field, path=found.path, step=step, digest=found.digest)
    if trouble := pen.settle():
        raise OSError(errno.ENOSPC, trouble, str(folder / "events"))


def _nearest(path: Path, digest: str, runs: Path) -> Path:
    """Another run's copy of the checkpoint at `path` which can be linked where that one cannot."""
    if _is_ours(path) and path.stat().st_dev == runs.stat().st_dev:
        return path
    for other in runs.glob(f"*/{FOLDER}/*/{path.name}"):
        with contextlib.suppress(OSError, NotOurs):
            if _is_ours(other) and read_json(other / MANIFEST).get("digest") == digest:
                return other
    return path


def _is_ours(path: Path) -> bool:
    return path.lstat().st_uid == os.geteuid()


def _pin(field: str, source: InitFrom, path: Path, target: Path) -> None:
    try:
        found = read_json(path / MANIFEST)
        listed = [MANIFEST, *found["files"]]
        opened_files = {name: opened(path / name) for name in listed if os.path.basename(name) == name}
    except FileNotFoundError:
        raise InputError.of(field, source.path, "it was pruned this moment", "start it again") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise InputError.of(field, source.path, reason, "make it readable, or start from another") from None
    try:
        if found.get("digest") != source.digest:
            reason = "it has changed since it was looked for"
            raise InputError.of(field, source.path, reason, "start it again")
        for name, descriptor in opened_files.items():
            if not _linked(path / name, descriptor, target / name):
                _copy(descriptor, target / name)
    finally:
        for descriptor in opened_files.values():
            os.close(descriptor)


def _linked(file: Path, descriptor: int, target: Path) -> bool:
    """Whether `target` is now a hard link of the open file, which is the user's."""
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        return False
    with contextlib.suppress(OSError):  # another file system, too many links
        os.link(file, target, follow_symlinks=False)
        if os.path.samestat(found, target.lstat()):
            return True
        target.unlink()  # another file has got its name
    return False


def _copy(descriptor: int, target: Path) -> None:
    size = os.fstat(descriptor).st_size
    if size > CHUNK:
        print(f"copying {size / 1e9:.2f} GB, which cannot be linked: {target}", file=sys.stderr, flush=True)
    with open(os.dup(descriptor), "rb") as stream, replacing(target) as out:
        shutil.copyfileobj(stream, out, CHUNK)
