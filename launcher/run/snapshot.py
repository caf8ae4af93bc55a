"""The code that a run executes: a copy taken when the run is made, so that editing the code changes nothing queued.

    <runs>/.code/DIGEST/launcher/... methods/... and the packages of a method and of protocols from elsewhere
    <runs>/<id>/code -> ../.code/DIGEST

What is copied: in a git checkout the tracked, modified and untracked files (git's ignore rules hold), elsewhere every
file of the packages. DIGEST is the sha256 over all names and contents; it is in the run's ledger, and worked out again
from the files at every start.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import translate
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn

from launcher.errors import InputError
from launcher.run.files import sync_names, writing_in
from launcher.run.question import agreed
from launcher.spec import registry

# What code that was taken long ago calls a module of today.
FORMERLY = {"launcher.start.batch": "launcher.batch", "launcher.start.worker": "launcher.worker"}
PACKAGES = ("launcher", "methods", "cluster_configs", "sweeps")
LARGEST_MB = 100
SYNCED_AT_ONCE = 8  # files
IGNORED = ("__pycache__",)
# Names of files that hold passwords and keys: whoever reads the run's code would read them, too.
PRIVATE = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
    "credentials*", ".git-credentials", ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc", "secrets.y*ml",
    "secrets.json", "secrets.toml", "*.token",
)  # fmt: skip
_PRIVATE = re.compile("|".join(map(translate, PRIVATE)))  # all at once, of hundreds of files


@dataclass(frozen=True)
class Snapshot:
    """A copy of the code. `origin`: the commit that it was taken from, with `+changes` where files differ from it."""

    path: Path
    digest: str
    origin: str


def take(method: str, runs: Path, protocols: Iterable[str] = ()) -> Snapshot:
    """Copy the code of sslrun, of `method` and of `protocols` to `runs`/.code; one that is there already is used.

    Raises InputError when it is larger than LARGEST_MB: then something that is no code lies among it; and where a file
    that nobody has committed is called like one of passwords, unless a person at a terminal says that it may go along.
    """
    files: dict[str, Path] = {}
    origin = ""
    wanted = {registry.METHODS: [method], registry.PROTOCOLS: [*protocols]}
    points = [point for group, names in wanted.items() for point in entry_points(group=group) if point.name in names]
    for package in dict.fromkeys((*PACKAGES, *(point.module.partition(".")[0] for point in points))):
        folder = Path(importlib.util.find_spec(package).submodule_search_locations[0])  # type: ignore[union-attr, index]
        found = _in_git(folder)
        if found is not None and not origin:
            described = _git(folder, "describe", "--always", "--dirty=+changes", "--abbrev=12", "--exclude=*")
            origin = (described or "").strip()
        _ask_about_private(folder, found)
        for file in found if found is not None else _all_files(folder):
            files[f"{package}/{file.relative_to(folder).as_posix()}"] = file
    size = sum(file.stat().st_size for file in files.values()) / 1e6
    if size > LARGEST_MB:
        largest = max(files.values(), key=lambda f: f.stat().st_size)
        reason = f"the code takes {size:.0f} MB, more than {LARGEST_MB}; the largest file is {largest}"
        raise InputError(f"code: {reason}; move data out of the packages, or have git ignore it")
    contents = {name: file.read_bytes() for name, file in sorted(files.items())}
    digest = _digest(contents)
    target = runs / ".code" / digest
    if not _is_whole(target):
        with writing_in(runs):
            _write(contents, target)
    return Snapshot(target, digest, origin)


def link(folder: Path, target: Path, name: str = "code") -> None:
    """Point `folder`/code at a snapshot, or at what points at one, by one rename."""
    beside = folder / f".{name}.{os.getpid()}"
    beside.unlink(missing_ok=True)
    # By where both really lie: from behind a link, .. leads elsewhere than their names say.
    there = target.parent.resolve() / target.name
    beside.symlink_to(os.path.relpath(there, folder.resolve()))
    beside.rename(folder / name)
    sync_names(folder)


def module(folder: Path, name: str) -> str:
    """What the code in `folder` calls the module `name`."""
    before = FORMERLY[name]
    return before if (folder / f"{before.replace('.', '/')}.py").is_file() else name


def verify(folder: Path, digest: str) -> Path:
    """Where the code in `folder` really lies: this very path is to be run, since a link may lead elsewhere a moment
    later. Raises InputError when it is not the user's own, is gone, or is not what was taken."""
    fix = "`sslrun resume RUN --code=current` takes the code as it is now"
    path = Path(os.path.realpath(folder))
    if not path.is_dir():
        raise InputError(f"code={folder}: the snapshot is gone; {fix}")
    for place in (path.parent, path):  # who may write in `.code` can put another folder in the place of this one
        found = place.lstat()
        if found.st_uid != os.getuid():
            raise InputError(f"{place}: it belongs to user {found.st_uid}, not to you; {fix}")
        if found.st_mode & stat.S_IWOTH:
            raise InputError(f"{place}: everybody may write there; chmod o-w it, then {fix}")
    if digest_of(path) != digest:
        raise InputError(f"code={folder}: it is not what was submitted, its hash has changed; {fix}")
    return path


def digest_of(folder: Path) -> str:
    """The digest of what lies in `folder` now; compiled files do not count."""
    return _digest({f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(_all_files(folder))})


def _digest(contents: dict[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name in sorted(contents):
        whole.update(f"{name}\0{hashlib.sha256(contents[name]).hexdigest()}\n".encode())
    return whole.hexdigest()[:32]


def _is_whole(target: Path) -> bool:
    """Raises OSError where it cannot be read."""
    with contextlib.suppress(FileNotFoundError):  # somebody is moving it aside
        return target.is_dir() and digest_of(target) == target.name
    return False


def _write(contents: dict[str, bytes], target: Path) -> None:
    """All files beside, on disk, then one rename; whoever loses a race uses the winner's."""
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        for folder in sorted({(beside / name).parent for name in contents}):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ThreadPoolExecutor(SYNCED_AT_ONCE) as pool:  # a disk takes several in the time of one
            list(pool.map(_put, (beside / name for name in contents), contents.values()))
        for folder in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
            sync_names(folder)
        try:
            beside.rename(target)
        except OSError:
            if not _is_whole(target):  # runs that use a damaged one will be told at their next start
                with contextlib.suppress(FileNotFoundError):  # somebody else has moved it
                    target.rename(target.with_name(f".damaged-{target.name}.{os.getpid()}"))
                beside.rename(target)
        for folder in target.parents[:2]:
            sync_names(folder)
    except OSError:
        if not _is_whole(target):  # else somebody else wrote the same a moment earlier
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _put(path: Path, content: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    path.chmod(0o400)


def _ask_about_private(folder: Path, in_git: list[Path] | None) -> None:
    files = _all_files(folder) if in_git is None else in_git
    named = [file for file in files if _PRIVATE.match(file.name.lower())]
    if named and in_git is not None:
        listed = _git(folder, "ls-files", "-oz", "--exclude-standard", "--", ".") or ""
        uncommitted = {folder / name for name in listed.split("\0")}
        named = [file for file in named if file in uncommitted]
    for file in sorted(named):
        reason = "it is called like a file of passwords or keys, nobody has committed it, and a copy goes with the run"
        if not (sys.stdin.isatty() and agreed(f"{file}: {reason}. Take it?")):
            fix = "move it elsewhere" if in_git is None else f"have git ignore it: `echo {file.name} >> .gitignore`"
            raise InputError(f"code={file}: {reason}; {fix}")


def _git(folder: Path, *words: str) -> str | None:
    """What git says in `folder`; None where it fails, or is not there."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, encoding="utf-8", errors="replace", timeout=20
        )
        if answer.returncode == 0:
            return answer.stdout
    return None


def _in_git(folder: Path) -> list[Path] | None:
    """The files of `folder` that git does not ignore, where it is part of a checkout; else None."""
    listed = _git(folder, "ls-files", "-coz", "--exclude-standard", "--", ".")
    if not listed:  # no git, no checkout, or a folder that the checkout ignores (a virtual environment in it)
        return None
    return [p for name in set(listed.split("\0")) if name and (p := folder / name).is_file()]


def _all_files(folder: Path) -> list[Path]:
    """Raises OSError where a folder cannot be read: to `Path.rglob` it would be empty."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    paths = (Path(place, name) for place, _, names in os.walk(folder, onerror=refuse) for name in names)
    return [p for p in paths if p.is_file() and not any(part in IGNORED for part in p.parts)]
