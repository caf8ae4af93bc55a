"""The checkpoints that a run starts from, kept with it: whoever made them may prune them, and trains on.

    RUN/pinned/init_from/step_00000300/    or continue_from, or method.FIELD: a folder for each field of its spec

Each file is a hard link, which takes room only once the original is gone. Where it is another user's, who could change
it in its place, or on another file system, it is a copy, of which the runs of a folder have one together. The spec says
where the checkpoint was found; what the job reads, and compares with the spec's digest, is the pin. A file of weights,
which nobody prunes, has none, nor has a run that was made before there were pins.
"""

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from launcher.errors import InputError
from launcher.run.files import NotOurs, opened, read_json, replacing, sync_names
from launcher.spec.runspec import InitFrom, PinnedNetwork, RunSpec

FOLDER, MANIFEST = "pinned", "manifest.json"
CHUNK = 8 << 20  # bytes


def lay(folder: Path, spec: RunSpec) -> None:
    """Pin in the run's `folder` every checkpoint that `spec` names. Raises InputError, about the field, where one is
    gone, cannot be read, or is not what was asked for; OSError where `folder` cannot be written."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)  # of a launch that was killed
    for field, source in _sources(spec):
        path = Path(source.path)
        if path.is_dir():
            target = folder / FOLDER / field / path.name
            target.mkdir(parents=True)
            with contextlib.ExitStack() as undo:
                undo.callback(shutil.rmtree, folder / FOLDER, ignore_errors=True)
                _pin(field, source, _nearest(path, source.digest, folder.parent), target)
                for each in (target, *target.parents[:3]):  # as far as the run's folder
                    sync_names(each)
                undo.pop_all()


def where(folder: Path, field: str, source: InitFrom) -> Path:
    """Where the run in `folder` finds what it pinned for `field`."""
    pin = folder / FOLDER / field / Path(source.path).name
    return pin if pin.is_dir() else Path(source.path)


def _sources(spec: RunSpec) -> Iterator[tuple[str, InitFrom]]:
    named = {"init_from": spec.init_from, "continue_from": spec.continue_from}
    yield from ((field, source) for field, source in named.items() if source)
    for each in dataclasses.fields(spec.method):
        if isinstance(getattr(spec.method, each.name), PinnedNetwork):
            yield f"method.{each.name}", getattr(spec.method, each.name)


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
        names = [MANIFEST, *found["files"]]
        opened_files = {name: opened(path / name) for name in names if os.path.basename(name) == name}
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
