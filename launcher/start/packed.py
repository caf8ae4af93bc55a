"""The environment of the ranks, packed into one file when a run is submitted: `cluster.local_env` unpacks it on nodes.

    <runs>/.environments/DIGEST/environment.tar    env/..., and base/... where it is a virtual environment
    <runs>/.environments/DIGEST/packed.json        what it holds, and the sha256 of its bytes
    <runs>/<id>/environment -> ../.environments/DIGEST

DIGEST is over the names, sizes and times of all that is installed, the interpreter and its standard library among them.
What lies in /usr is each node's own and stays there; what is installed editable elsewhere stays where it is.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from launcher.errors import InputError
from launcher.plan import script
from launcher.run import files, snapshot
from launcher.run.files import NotOurs, own_folder, read, writing_in
from launcher.run.folder import ENVIRONMENTS, RunDir
from launcher.run.ledger import Ledger
from launcher.run.shapes import PACKED
from launcher.spec.runspec import RunSpec
from launcher.start import unpacked
from launcher.start.elf import with_own_libraries
from launcher.start.unpacked import ARCHIVE

ABOUT, BESIDE = "packed.json", ".packing-"
ASKED_SECONDS = 120.0  # that the interpreter has for its answer
SYSTEM = re.compile(r"/(usr|bin|sbin|lib\w*)(/.*)?|/")  # where it is no network's
# Of the folder that a virtual environment stands on, without what tests and builds Python itself; and its packages,
# where the environment sees them.
BASE = r"bin/python[\d.]*|lib\w*/lib[^/]*\.so[^/]*|lib\w*/python{version}/(?!{but}).*"
NOT_OF_BASE = "test/|config-|site-packages/"
NOT_OF_CONDA = ("pkgs/", "envs/", "conda-bld/")
BLOCK = 4096
SHOWN_EACH = 256  # files
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
FACTS = """\
import json, sys
version = "%d.%d" % sys.version_info[:2]
print(json.dumps({"prefix": sys.prefix, "base": sys.base_prefix, "version": version, "path": sys.path}))
"""

Show = Callable[[str, int, int], Any]


def into(runs: Sequence[RunDir], show: Show | None = None) -> dict[str, str]:
    """Pack the environment of the ranks of each run as it is now, unless it is packed, and write that down: the next
    starts take it. Returns {a run's id: what a person should know}. The caller alone submits to that folder of runs.

    show: gets (what is done, of it so far, all of it or 0 where that is not known). Raises InputError where it cannot
    be packed, does not fit, or cannot be written down.
    """
    archives: dict[Environment, _Archive] = {}
    apart: dict[tuple[Environment, Path], list[str]] = {}
    notes = {}
    for run in runs:
        spec, code = run.spec(), run.code_folder().resolve()
        environment = of_ranks(spec, run.runs)
        with writing_in(run.runs, "free some space, or choose another folder with runs=PATH"):
            if environment not in archives:
                archives[environment] = _Archive(environment, run.runs / ENVIRONMENTS, show)
            archive = archives[environment]
            snapshot.link(run.path, archive.path, "environment")
            pen = Ledger(run.path, run.generation() + 1, "submit")
            pen.write("packed", **archive.about, fresh=archive.fresh, seconds=archive.seconds)
            if trouble := pen.settle():  # a job would find nothing packed
                raise OSError(errno.ENOSPC, trouble, str(run.path))
        if (environment, code) not in apart:  # it asks as many questions as there are packages
            apart[environment, code] = environment.apart(code)
        how = f"packed in {archive.seconds:.0f} s" if archive.fresh else "packed before"
        what = f"{environment.prefix} ({archive.about['bytes'] / 1e9:.2f} GB, {how})"
        said = [f"{what} is unpacked in {spec.cluster.local_env} on each node, and ranks start from there"]
        said += [f"not packed, and read where it is: {path}" for path in apart[environment, code]]
        notes[run.id] = "\n".join(said)
    return notes


def of(run: RunDir) -> dict[str, Any]:
    """What the next start of the run takes, as PACKED; {} where nothing was packed. Packed again since, the same
    environment may be other bytes."""
    written = run.history().last("packed")
    return (written and _complete(run.runs / ENVIRONMENTS / written["digest"])) or written


def forget(archive: Path, sha256: str) -> None:
    """Have an archive that is not what was packed, but one with this sha256, packed by whoever submits next."""
    with contextlib.suppress(NotOurs, OSError):
        if PACKED.read(archive.with_name(ABOUT))["sha256"] == sha256:  # else somebody has packed it again
            archive.with_name(ABOUT).unlink()


def of_ranks(spec: RunSpec, runs: Path) -> "Environment":
    """What is packed for a run of the folder `runs`. Raises InputError where it cannot be."""
    environment = _environment(script.python_of(spec.cluster))
    copies = Path(os.path.expandvars(spec.cluster.local_env))
    for field, given, folder, fix in (
        ("runs", runs, runs.absolute(), "choose another folder with runs=PATH"),
        ("cluster.local_env", spec.cluster.local_env, copies, "choose a folder of each node's own disk"),
    ):
        if folder.is_absolute() and folder.resolve().is_relative_to(environment.prefix.resolve()):
            reason = f"it lies in the environment {environment.prefix}, which cluster.local_env packs"
            raise InputError.of(field, given, reason, fix)
    return environment


# -- what is installed -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """`name`: in the archive. `link`: where it leads there, of one that stays a link."""

    name: str
    path: Path
    status: os.stat_result
    link: str | None = None


class Environment:
    """Of an interpreter. `roots`: {what is packed: its name in the archive}; `places`: the same, by every path that it
    has; `python`: the interpreter in the archive. Raises InputError where it cannot be taken elsewhere."""

    def __init__(self, python: str):
        bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [python, "-P", "-c", FACTS]
        try:
            said = subprocess.run(
                command, env=bare, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASKED_SECONDS, check=True
            )
            facts = json.loads(said.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise _refused(python, f"it does not say where its packages are ({error})") from None
        self.prefix, base = Path(facts["prefix"]), Path(facts["base"])
        self._asked, self._version, self._path = python, facts["version"], facts["path"]
        if _of_each_node(str(self.prefix)):
            raise _refused(python, f"its packages are in {self.prefix}, which each node has of its own")
        with self.reading(), open(python, "rb") as file:
            if file.read(4) != b"\x7fELF":
                raise _refused(python, "it is a script, and what that does would be lost")
        self.roots = {self.prefix: "env"}
        if base != self.prefix and not _of_each_node(str(base)):
            self.roots[base] = "base"
        self.places = {str(root): place for root, place in self.roots.items()}
        self.places |= {os.path.realpath(root): place for root, place in self.roots.items()}
        own = Path(os.path.abspath(python))
        inside = own.relative_to(self.prefix) if own.is_relative_to(self.prefix) else f"bin/python{self._version}"
        self.python = f"env/{inside}"

    def files(self) -> Iterator[_File]:
        """All that is packed, in order. Raises InputError."""
        with self.reading():
            for root in self.roots:
                for name, status in self._taken(root):
                    yield self._file(root, name, status)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, an OSError is of something that is packed: it becomes an InputError."""
        try:
            yield
        except OSError as error:
            if error.errno in GONE:
                raise self.changed() from None
            reason = f"{error.filename or self.prefix} cannot be read ({error.strerror or error})"
            fix = "make it readable, or leave cluster.local_env out"
            raise InputError.of("cluster.python", self._asked, reason, fix) from None

    def changed(self) -> InputError:
        fix = "the same command again, once nothing is being installed"
        return InputError(f"cluster.local_env: {self.prefix} changed while it was packed; {fix}")

    def _taken(self, root: Path) -> Iterator[tuple[str, os.stat_result]]:
        if self.roots[root] == "env":
            return (found for found in unpacked.entries(root) if not found[0].startswith(NOT_OF_CONDA))
        seen = any(path.startswith(f"{root}/") and path.endswith("/site-packages") for path in self._path)
        but = NOT_OF_BASE.removesuffix("|site-packages/") if seen else NOT_OF_BASE
        pattern = re.compile(BASE.format(version=re.escape(self._version), but=but), re.DOTALL)
        return (found for found in unpacked.entries(root) if pattern.fullmatch(found[0]))

    def _file(self, root: Path, name: str, status: os.stat_result) -> _File:
        packed, path = f"{self.roots[root]}/{name}", root / name
        if not stat.S_ISLNK(status.st_mode):
            return _File(packed, path, status)
        target = os.path.normpath(path.parent / os.readlink(path))
        for known, place in self.places.items():
            if f"{target}/".startswith(f"{known}/"):
                inside = os.path.normpath(place + target[len(known) :])
                return _File(packed, path, status, os.path.relpath(inside, os.path.dirname(packed)))
        if path.is_file() and not _of_each_node(target):  # uv may link to its cache
            return _File(packed, path, path.stat())
        return _File(packed, path, status, target)

    def apart(self, code: Path) -> list[str]:
        """Folders elsewhere that Python looks into, without those of which the run has a copy in `code`."""
        found = [path for path in self._path if os.path.isdir(path)]
        for told in (file for path in found.copy() for file in Path(path).glob("*.dist-info/direct_url.json")):
            with contextlib.suppress(NotOurs, OSError, ValueError, KeyError, TypeError, AttributeError):
                direct = json.loads(read(told))
                found += [unquote(urlsplit(direct["url"]).path)] if direct.get("dir_info", {}).get("editable") else []
        copied = [f"{inner}{each.name}" for each in code.iterdir() if each.is_dir() for inner in ("", "src/")]
        return [
            path
            for path in dict.fromkeys(found)
            if not _of_each_node(path)
            and not any(Path(path).is_relative_to(known) for known in self.places)
            and not any(os.path.isdir(f"{path}/{name}") for name in copied)
        ]


@lru_cache
def _environment(python: str) -> Environment:
    return Environment(python)


def _of_each_node(path: str) -> bool:
    return bool(SYSTEM.fullmatch(path)) and unpacked.kind_of(Path(path)) not in unpacked.NETWORK


def _refused(python: str, reason: str) -> InputError:
    fix = "name the interpreter of an environment with cluster.python, or leave cluster.local_env out"
    return InputError.of("cluster.python", python, reason, fix)


def digest_of(files: Iterable[_File]) -> str:
    """Without what Python compiles: whoever imports first writes it."""
    sha256 = hashlib.sha256()
    for each in files:
        if "__pycache__/" not in each.name:
            facts = each.status.st_size, each.status.st_mtime_ns, each.status.st_mode & 0o100
            row = (each.name, *facts) if each.link is None else (each.name, each.link)
            sha256.update(repr(row).encode(errors="surrogateescape"))
    return sha256.hexdigest()


# -- the archive -------------------------------------------------------------------------------------------------------


def _complete(folder: Path) -> dict[str, Any] | None:
    """What is said of the archive there, as PACKED, where all of it is there."""
    with contextlib.suppress(NotOurs, OSError):
        about = PACKED.read(folder / ABOUT)
        if about["digest"] == folder.name and (folder / ARCHIVE).lstat().st_size == about["size"]:
            return about
    return None


class _Archive:
    """Of an environment as it is now, in the folder `shared`: found there, or `fresh`. `about`: as PACKED; `seconds`
    that it took. Raises InputError, OSError."""

    def __init__(self, environment: Environment, shared: Path, show: Show | None):
        began = time.monotonic()
        own_folder(shared)
        self.environment, self._show = environment, show or (lambda stage, done, of: None)
        found = [*self._listed()]
        self.path = shared / digest_of(found)
        known = _complete(self.path)
        self.fresh = known is None
        self.about = known or self._pack(found)
        os.utime(self.path / ARCHIVE)  # clusters take away what is old
        self.seconds = round(time.monotonic() - began, 3)

    def _listed(self) -> Iterator[_File]:
        """What is installed. On a file server that takes a while."""
        for number, each in enumerate(self.environment.files()):
            if number % SHOWN_EACH == 0:
                self._show("looking at the environment", number, 0)
            yield each

    def _pack(self, found: Sequence[_File]) -> dict[str, Any]:
        shared, digest = self.path.parent, self.path.name
        for left in shared.glob(f"{BESIDE}*"):  # of somebody who was killed
            files.remove(left)
        sizes = [each.status.st_size for each in found if each.link is None]
        total, free = sum(sizes), shutil.disk_usage(shared).free
        if free < total:
            reason = f"the environment takes {total / 1e6:,.0f} MB, and the disk has {free / 1e6:,.0f} MB free"
            raise InputError.of("runs", shared.parent, reason, "free some space, or leave cluster.local_env out")
        beside = shared / f"{BESIDE}{secrets.token_hex(8)}"
        beside.mkdir(mode=0o700)
        try:
            with files.replacing(beside / ARCHIVE, mode=0o600) as file:
                written = _Written(file)
                with tarfile.open(fileobj=written, mode="w|", format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
                    for each in found:
                        self._add(tar, each)
                        self._show("packing the environment", min(written.done, total), total)
            if digest_of(self._listed()) != digest:
                raise self.environment.changed()
            about = {
                "digest": digest,
                "sha256": written.sha256.hexdigest(),
                "size": written.done,
                "bytes": sum(-(-size // BLOCK) * BLOCK for size in sizes) + BLOCK * len(found),
                "python": self.environment.python,
                "prefixes": self.environment.places,
            }
            files.write_json(beside / ABOUT, about)
            if os.path.lexists(self.path):  # incomplete, or cut short: `_complete` takes it for none
                files.rename(self.path, f"{BESIDE}{secrets.token_hex(8)}")
            beside.rename(self.path)
            files.sync_names(shared)
        except BaseException:
            files.sweep(beside)
            raise
        return about

    def _add(self, tar: tarfile.TarFile, each: _File) -> None:
        info = tarfile.TarInfo(each.name)
        # To the second, which is what compiled files know of their sources.
        info.mtime, info.mode = int(each.status.st_mtime), each.status.st_mode & 0o755 | 0o600
        if each.link is not None:
            info.type, info.linkname = tarfile.SYMTYPE, each.link
            tar.addfile(info)
        elif stat.S_ISREG(each.status.st_mode):
            info.size = each.status.st_size
            with contextlib.ExitStack() as stack:
                with self.environment.reading():
                    file = stack.enter_context(open(each.path, "rb"))
                    content = with_own_libraries(file, each.name, self.environment.places)
                whole = file if content is None else io.BytesIO(content)
                tar.addfile(info, _Source(whole, self.environment))


class _Source:
    """A file of the environment, as tarfile reads it."""

    def __init__(self, file: IO[bytes], environment: Environment):
        self._file, self._environment = file, environment

    def read(self, size: int) -> bytes:
        with self._environment.reading():
            found = self._file.read(size)
        if len(found) < size:
            raise self._environment.changed()
        return found


class _Written:
    """A file that is written once: its sha256, and how many bytes there are."""

    def __init__(self, file: IO[bytes]):
        self.sha256, self.done = hashlib.sha256(), 0
        self._file = file

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        self.done += len(content)
        return self._file.write(content)
