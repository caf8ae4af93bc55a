"""A packed environment on a node's own disk: unpacked once, found again by the next job, removed when room is short.

    FOLDER/sslrun-<uid>-env/DIGEST/env/bin/python    the interpreter of the ranks
    FOLDER/sslrun-<uid>-env/DIGEST/base/...          what a virtual environment stands on
    FOLDER/sslrun-<uid>-env/DIGEST/inventory         all that was unpacked, with sizes and times

A task on each node runs this file with `python -I -S` before the ranks start: it knows the standard library alone, and
where all is there, it is the copy's own Python that finds so and asks the shared one nothing. Each rank holds a shared
lock of DIGEST while it lives. Others write in FOLDER, too: what lies there has to be the user's, and closed to others.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

VARIABLE = "SSLRUN_LOCAL_ENV"  # tells a rank the folder that it holds
REFUSED = 3  # exit code
RECENT_SECONDS = 900.0  # for which an environment that was looked at stays: its ranks begin a moment later
NEWS_SECONDS, POLL_SECONDS = 5.0, 0.5
CHUNK = 1 << 20
ARCHIVE = "environment.tar"
INVENTORY, COMPLETE = "inventory", b"complete"  # the file, and how it ends
# Kinds of file systems that nodes share.
NETWORK = {
    "afs", "beegfs", "beegfs_nodev", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "gpfs", "lustre",
    "nfs", "nfs4", "panfs", "pvfs2", "smb3", "wekafs",
}  # fmt: skip

Say = Callable[..., None]


class Refused(Exception):
    """Half a sentence behind the node's name: why this node cannot have it."""


class Unread(Refused):
    """The archive could not be read, which is the shared disk's fault, or the node's way there."""


class Spoiled(Refused):
    """The archive is not what was packed, as far as this node can see."""


def home(folder: Path | str) -> Path:
    """Of the user's environments on a node."""
    return Path(folder, f"sslrun-{os.getuid()}-env")


def lay(order: Mapping[str, Any], say: Say) -> bool:
    """Have the environment of `order` at home(folder)/digest; False where it was there already. `say` gets news.

    order: folder, archive, sha256, digest, bytes (when unpacked), prefixes ({where something was: its name in the
    archive}). Raises Refused, or OSError.
    """
    own, target = _own_home(Path(order["folder"])), home(order["folder"]) / order["digest"]
    with _alone(own, say) as lock:
        for left in own.glob(".*"):  # of those that were killed
            _remove(left)
        there = target.is_dir() and _is_whole(target)
        if not there:
            if os.path.lexists(target):
                damaged = own / f".damaged-{secrets.token_hex(4)}"
                os.rename(target, damaged)
                _remove(damaged)
            _make_room(own, order["bytes"])
            _unpack(order, target, lambda done: (os.utime(lock), say("unpacking", done=done)))
        os.utime(target / INVENTORY)
    return not there


def hold() -> None:
    """Keep the environment that this process was started from, until the process and its forks have ended."""
    if folder := os.environ.get(VARIABLE):
        with contextlib.suppress(OSError):  # one that is gone cannot be kept
            fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_SH)


def kind_of(folder: Path) -> str:
    """The kind of file system that a folder is on, by /proc/mounts; empty where that does not say."""
    best, kind, path = "", "", os.path.realpath(folder)
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(errors="surrogateescape").splitlines():
            _, place, found, *_ = line.split(" ")
            place = place.replace("\\040", " ")
            if len(place) >= len(best) and (path + "/").startswith(place.rstrip("/") + "/"):
                best, kind = place, found
    return kind


def _own_home(folder: Path) -> Path:
    try:
        found = folder.stat()
    except OSError as error:
        raise Refused(f"has no folder {folder} ({error.strerror})") from None
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"has no folder {folder}, but a file")
    if (kind := kind_of(folder)) in NETWORK:
        raise Refused(f"has {folder} on {kind}, which nodes share")
    # Who may rename what is in it may put another folder in the place of one that was looked at.
    if found.st_uid not in (0, os.geteuid()):
        raise Refused(f"has {folder} from user {found.st_uid}, who could change what lies in it")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise Refused(f"lets others rename what lies in {folder}: it wants `chmod +t`")
    own = home(folder)
    try:
        own.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        raise Refused(f"has no plain folder {own}") from None
    except OSError as error:
        raise Refused(f"cannot make a folder in {folder} ({error.strerror})") from None
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"has no plain folder {own}")
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(f"has {own} from user {found.st_uid}, or open for others to write")
    return own


@contextlib.contextmanager
def _alone(own: Path, say: Say) -> Iterator[int]:
    """One at a time unpacks on a node. Whoever waits has news as long as that one has."""
    lock = os.open(own / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        seen = None
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if (now := os.fstat(lock).st_mtime_ns) != seen:
                    seen = now
                    say("waiting")
            time.sleep(POLL_SECONDS)
        yield lock
    finally:
        os.close(lock)


# -- what lies there ---------------------------------------------------------------------------------------------------


def entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(name from `root` on, what lstat says of it) of all below it that is no folder, in order. Raises OSError."""

    def walk(folder: str, before: str) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(folder) as found:
            for each in sorted(found, key=lambda each: each.name):
                name = before + each.name
                if each.is_dir(follow_symlinks=False):
                    yield from walk(each.path, f"{name}/")
                else:
                    yield name, each.stat(follow_symlinks=False)

    return walk(str(root), "")


def _write_inventory(root: Path) -> None:
    """What Python compiles anew there may change, so that is left out."""
    with open(root / INVENTORY, "xb") as file:
        for name, found in entries(root):
            if name != INVENTORY and "__pycache__/" not in name:
                file.write(_line(name, found))
        file.write(COMPLETE)


def _is_whole(root: Path) -> bool:
    """Is all there that was unpacked? Programs that clean disks take what nobody has read for days."""
    try:
        *lines, last = (root / INVENTORY).read_bytes().split(b"\0")
        return last == COMPLETE and {*lines} <= {_line(name, found)[:-1] for name, found in entries(root)}
    except OSError:
        return False


def _line(name: str, found: os.stat_result) -> bytes:
    return b"%d %d %s\0" % (found.st_size, found.st_mtime_ns, os.fsencode(name))


def _make_room(own: Path, needed: int) -> None:
    """Remove what nobody runs from, what was longest unused first, until so many bytes are free. Raises Refused."""
    others = sorted((each for each in own.iterdir() if each.is_dir()), key=_used)
    while (free := shutil.disk_usage(own).free) < needed:
        if not others:
            raise Refused(f"has {free / 1e6:,.0f} MB free in {own.parent}, and {needed / 1e6:,.0f} MB are needed")
        if abs(time.time() - _used(others[0])) > RECENT_SECONDS:
            _remove(others[0])
        del others[0]


def _used(environment: Path) -> float:
    with contextlib.suppress(OSError):
        return (environment / INVENTORY).lstat().st_mtime
    return 0.0


def _remove(path: Path) -> None:
    """Out of sight at once; what somebody runs from stays."""
    with contextlib.suppress(OSError):
        held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden = path.with_name(f".gone-{secrets.token_hex(4)}")
            path.rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)
        finally:
            os.close(held)


# -- unpacking ---------------------------------------------------------------------------------------------------------


class _Read:
    """A file that is read once, from its beginning on: its sha256, and news of it."""

    def __init__(self, file: IO[bytes], path: str, news: Callable[[int], Any]):
        self.sha256, self.done = hashlib.sha256(), 0
        self._file, self._path, self._news, self._said = file, path, news, time.monotonic()

    def read(self, size: int) -> bytes:
        try:
            found = self._file.read(size)
        except OSError as error:
            raise Unread(f"cannot read {self._path} ({error.strerror or error})") from None
        self.sha256.update(found)
        self.done += len(found)
        if time.monotonic() - self._said > NEWS_SECONDS:
            self._said = time.monotonic()
            self._news(self.done)
        return found


def _unpack(order: Mapping[str, Any], target: Path, news: Callable[[int], Any]) -> None:
    """Beside, and under its name once the whole archive was what it had to be."""
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open(_opened(order["archive"]), "rb") as file:
            read = _Read(file, order["archive"], news)
            beside.mkdir(mode=0o700)
            with tarfile.open(fileobj=read, mode="r|", bufsize=CHUNK) as archive:  # type: ignore[call-overload]
                if hasattr(tarfile, "fully_trusted_filter"):  # the user's own, as a virtual environment is
                    archive.extraction_filter = tarfile.fully_trusted_filter
                for member in archive:
                    archive.extract(member, beside, set_attrs=True, numeric_owner=False)
            while read.read(CHUNK):
                pass
        if read.sha256.hexdigest() != order["sha256"]:
            raise Spoiled(f"reads something else in {order['archive']} than was packed")
        _relocate(beside, target, order["prefixes"])
        _write_inventory(beside)
        beside.rename(target)
    except tarfile.TarError as error:
        raise Spoiled(f"cannot read {order['archive']} ({error})") from None
    except OSError as error:
        raise Refused(f"cannot unpack {error.filename or order['archive']} ({error.strerror or error})") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _opened(archive: str) -> int:
    try:
        descriptor = os.open(archive, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(descriptor)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Spoiled(f"finds {archive} to be a link") from None
        raise Unread(f"cannot read {archive} ({error.strerror or error})") from None
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(descriptor)
        raise Spoiled(f"finds {archive} to be another user's, or open for others to write")
    return descriptor


def _relocate(root: Path, target: Path, prefixes: Mapping[str, str]) -> None:
    """Text that says where Python is: of a virtual environment, of what is installed editable in it, of its scripts."""
    config = root / "env" / "pyvenv.cfg"
    places = {old: f"{target}/{new}" for old, new in prefixes.items()}
    if config.is_file() and "base" in prefixes.values():
        lines = config.read_text().splitlines()
        kept = [line for line in lines if line.partition("=")[0].strip() not in ("home", "executable", "command")]
        config.write_text("\n".join([f"home = {target}/base/bin", *kept]) + "\n")
    packages = [*root.glob("*/lib*/python*/site-packages/*.pth")]
    packages += root.glob("*/lib*/python*/site-packages/__editable__*.py")
    scripts = [path for path in root.glob("env/bin/*") if not path.is_symlink() and path.is_file()]
    for path in {*packages, *scripts}:
        content = path.read_bytes()
        if path in packages or content.startswith(b"#!"):
            found = path.stat()
            moved = content
            for old, new in places.items():
                moved = moved.replace(os.fsencode(old) + b"/", os.fsencode(new) + b"/")
            if moved != content:
                path.unlink()  # it may be one file under several names
                path.write_bytes(moved)
                path.chmod(stat.S_IMODE(found.st_mode))


def main() -> int:
    """The one argument is the order, as JSON. Each line that it prints is an object with `node` and `is`."""
    order, began = json.loads(sys.argv[1]), time.monotonic()

    def say(what: str, **more: Any) -> None:
        print(json.dumps({"node": os.environ.get("SLURMD_NODENAME", ""), "is": what, **more}), flush=True)

    os.umask(0o077)
    try:
        fresh = lay(order, say)
    except Refused as error:
        say("refused", why=str(error), unread=isinstance(error, Unread), spoiled=isinstance(error, Spoiled))
        return REFUSED
    except OSError as error:
        say("refused", why=f"cannot use {error.filename or order['folder']} ({error.strerror or error})")
        return REFUSED
    say("there", fresh=fresh, seconds=round(time.monotonic() - began, 3))
    return 0


if __name__ == "__main__":
    sys.exit(main())
