"""The ways to read and write a file where others write, too: a folder of runs, a scratch, a node's disk.

What is written is new: made exclusively, under a name that nobody can guess, through no link, and put in its place
whole, by one rename. It is the user's alone, or readable by the group if its folder is that group's. What is read is
data: a plain file of a bounded size; a link, a FIFO or a device in its place is refused before a byte is read.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from launcher.errors import InputError

NESTED = (dict, list)
DEEPEST = 32  # JSON objects and lists within one another; ours have six
LARGEST = 64 * 2**20  # bytes that are read of a file; the ledger of a start has some thousands


class NotOurs(InputError, ValueError):
    """What lies where a file of ours should is none: nothing of sslrun writes such a thing."""


def opened(path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """A descriptor of the plain file at `path`, which has to be closed; `mode` is that of a file that O_CREAT makes.

    Raises NotOurs where it is a link, a folder, a FIFO or a device, and OSError where it cannot be opened.
    """
    try:
        # A FIFO would be waited for; what is opened is looked at, and not its name once more.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR):
            raise NotOurs(f"{path}: it is not a plain file; put back what was there") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotOurs(f"{path}: it is not a plain file; put back what was there")
    return descriptor


def read(path: Path | str, most: int = LARGEST) -> bytes:
    """What the plain file at `path` holds. Raises NotOurs as `opened`, and for more than `most` bytes; OSError."""
    with open(opened(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            return file.read(size)  # as it was when it was opened: it may grow meanwhile
    raise NotOurs(f"{path}: it has {size:,} bytes, more than the {most:,} of such a file; put back what was there")


def tail(path: Path | str, most: int = 2**20) -> str:
    """The last `most` bytes of a log, which may be of any length. Raises NotOurs as `opened`; OSError."""
    with open(opened(path), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return file.read(most).decode(errors="replace")


def read_json(path: Path | str) -> dict[str, Any]:
    """The object in a file. Raises NotOurs as `read`, and where it holds anything else; OSError."""
    found = object_in(read(path))
    if found is None:
        raise NotOurs(f"{path}: it holds no JSON object; put back what was there")
    return found


def object_in(text: bytes | str) -> dict[str, Any] | None:
    """The JSON object that `text` is; None for anything else, and for one that is nested without end."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and not _deeper(found, DEEPEST) else None


def _deeper(value: dict | list, depth: int) -> bool:
    """Whether it is nested deeper: whoever walks through it would come to the end of Python's stack."""
    parts = value.values() if isinstance(value, dict) else value
    return not depth or any(_deeper(part, depth - 1) for part in parts if isinstance(part, NESTED))


def names(folder: Path | str) -> list[str]:
    """Of all that lies in `folder`, in order; none where there is no such folder. Raises OSError where that cannot be
    told: `Path.glob` finds nothing then, as if nothing were there."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def own_folder(path: Path | str, mode: int = 0o700) -> None:
    """Make the folder `path`, for what is trusted when it is found there again. One that is there has to be the user's,
    and others may write into it only if `mode` lets them. Raises NotOurs where it is not so, OSError where it cannot be
    made."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise NotOurs(f"{path}: it is not a plain folder; take it away")
    refuse_not_ours(path, found, mode)


def refuse_not_ours(path: Path | str, found: os.stat_result, mode: int = 0o600) -> None:
    """Raises NotOurs where what was `found` at `path` is another user's, or open for others to write beyond `mode`."""
    if found.st_uid != os.geteuid():
        raise NotOurs(f"{path}: it belongs to user {found.st_uid}, not to you; give another folder, or take it away")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) & ~mode:
        fix = f"take it away, or `chmod go-w {shlex.quote(str(path))}` if you trust what is there"
        raise NotOurs(f"{path}: others can write there; {fix}")


@contextlib.contextmanager
def writing_in(runs: Path | str, fix: str = "choose another folder with runs=PATH") -> Iterator[None]:
    """Inside, an OSError is the user's to mend, who gave this folder of runs: it becomes an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError.of("runs", runs, f"cannot write there ({error.strerror})", fix) from None


def lock(descriptor: int, how: int, runs: Path | str) -> bool:
    """flock(2) of a file in a folder of runs; False where somebody else has it. Raises InputError where the file system
    knows no locks: that nobody can have it is not that somebody has."""
    try:
        fcntl.flock(descriptor, how)
    except (BlockingIOError, PermissionError):  # the latter where a file server keeps the locks: fcntl(2), EACCES
        return False
    except OSError as error:
        reason = f"no file can be locked there ({error.strerror})"
        fix = "choose another folder with runs=PATH; Lustre has locks where it is mounted with -o flock"
        raise InputError.of("runs", runs, reason, fix) from None
    return True


@contextlib.contextmanager
def replacing(
    path: Path, *, durable: bool = True, mode: int | None = None, by_umask: bool = False
) -> Iterator[IO[bytes]]:
    """Write into the file that is given; once all is written it takes the place of `path`, whole. A link there goes.

    durable: also after a power cut. mode: of the file; None: its folder's group reads it where it reads the folder.
    by_umask: instead, who may read it is as for any file that the user makes: of what a person asked for.
    """
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    beside = f".{path.name}.{secrets.token_hex(8)}"
    try:
        mode = mode_in(descriptor) if mode is None else mode
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        new = os.open(beside, flags, 0o666 if by_umask else 0o600, dir_fd=descriptor)
        try:
            with open(new, "wb") as file:
                if not by_umask and mode != 0o600:
                    os.fchmod(new, mode)
                yield file
                if durable:
                    file.flush()
                    os.fsync(new)
            os.replace(beside, path.name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=descriptor)
            raise
        if durable:
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, *, durable: bool = True, by_umask: bool = False) -> None:
    """Replace `path` by `value`, as `replacing`."""
    with replacing(path, durable=durable, by_umask=by_umask) as file:
        file.write(json.dumps(value, indent=1).encode())


def sync_names(folder: Path) -> None:
    """That names in a folder survive a power cut is a bonus: not every file system offers it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[int]:
    """A descriptor of `folder`, for what is done in it by name (`dir_fd=`), whatever takes its place meanwhile.

    Raises NotOurs where it is a link, or no folder; OSError where it cannot be opened. One of what is done in it
    carries the whole path.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _linked(folder) from None
        raise
    try:
        yield descriptor
    except OSError as error:
        error.filename = error.filename and str(folder / error.filename)
        raise
    finally:
        os.close(descriptor)


def rename(path: Path, name: str) -> Path:
    """Give what lies at `path` another name in its folder. Raises NotOurs where that is a link, OSError."""
    with inside(path.parent) as folder:
        os.rename(path.name, name, src_dir_fd=folder, dst_dir_fd=folder)
    return path.with_name(name)


def remove(folder: Path, *, under: str = "", ignore_errors: bool = False) -> None:
    """Delete `folder` and all that it holds, and nothing that a link leads to.

    under: the name that it gets first, where half of it must not be taken for a whole one. ignore_errors: delete what
    can be. Raises NotOurs where it, or the folder that it lies in, is a link; OSError.
    """
    try:
        with inside(folder.parent) as parent:
            if stat.S_ISLNK(os.stat(folder.name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise _linked(folder)
            if under:
                os.rename(folder.name, under, src_dir_fd=parent, dst_dir_fd=parent)
            shutil.rmtree(under or folder.name, ignore_errors, dir_fd=parent)
    except OSError:
        if not ignore_errors:
            raise


def sweep(folder: Path, *, under: str = "") -> None:
    """As `remove`, while more important things are at work: what cannot go stays, and of a link that is printed."""
    try:
        remove(folder, under=under, ignore_errors=True)
    except NotOurs as error:
        print(error, flush=True)


def _linked(folder: Path) -> NotOurs:
    return NotOurs(f"{folder}: it is a link, and what it leads to stays; put a folder in its place")


def append(path: Path, lines: bytes, *, durable: bool = True) -> None:
    """Add whole lines to a plain file, which is made where there is none. Where the last writer was killed, or the disk
    was full, in the middle of a line, they begin with a newline, or the first of them would be lost with it.

    durable: also after a power cut. Raises NotOurs as `opened`, OSError where not all of it could be written.
    """
    with open(opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666), "a+b", buffering=0) as file:
        new = not file.tell()
        if not new:
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read(1) == b"\n" else b"\n" + lines
        while lines:
            lines = lines[file.write(lines) :]
        if durable:
            os.fsync(file.fileno())
    if durable and new:
        sync_names(path.parent)


def mode_in(folder: Path | int) -> int:
    """Of a file in this folder: its owner's alone, or readable by the group of a folder that nobody else reads."""
    there = os.stat(folder).st_mode
    return 0o640 if there & stat.S_IRGRP and not there & stat.S_IRWXO else 0o600


def cache_folder() -> Path:
    """Where files go that cannot lie beside what they are about: `$XDG_CACHE_HOME/sslrun` or `~/.cache/sslrun`. Where
    neither is known, as in a container whose user nobody made, it is a folder that cannot be: ~ stays as it is then."""
    given = os.environ.get("XDG_CACHE_HOME", "")  # one that is relative is to be ignored: XDG Base Directory, 0.8
    found = given if os.path.isabs(given) else os.path.expanduser("~/.cache")
    return Path(found if os.path.isabs(found) else os.devnull, "sslrun")
