"""What cannot be read for a moment, because a file server or a ticket is away, is waited for, and never taken for
damaged: only contents that were read can be wrong."""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from launcher.errors import Unreadable
from launcher.run.files import read_json, write_json

SECONDS = 120.0  # how long a start waits for one thing
PAUSE_SECONDS = 2.0
WAITS = "waiting: "  # begins a stage in which nobody works
# With these a file system answers: what was asked for is not there, or is something else.
ANSWERS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}

Read = TypeVar("Read")


def answered(error: OSError) -> bool:
    """Does the error tell what is there? Otherwise (EACCES, EIO, ESTALE, ...) nothing is known, and it may be read a
    moment later."""
    return error.errno in ANSWERS


def refuse_unanswered(path: Path) -> None:
    """Raises OSError where the file cannot be opened; for what is read next by safetensors, to which one that may not
    be opened does not exist."""
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # a FIFO in its place would be waited for


def patiently(read: Callable[[], Read], show: Callable[[str], None] | None = None) -> Read:
    """What `read` returns, tried again for SECONDS while something cannot be read. Waiting is printed, and given to
    `show`.

    Raises Unreadable, one line with the file and the error, when the time is over; what else `read` raises, at once.
    """
    end, said = time.monotonic() + SECONDS, ""
    while True:
        try:
            return read()
        except OSError as error:
            if answered(error):
                raise
            why = unreadable(error)
            if why != said:
                said = why
                print(f"{WAITS}{why}", flush=True)
                if show:
                    show(f"{WAITS}{os.path.basename(error.filename or 'a file')}: {error.strerror or error}")
            if time.monotonic() >= end:
                raise Unreadable(f"{why}; it was tried for {SECONDS:.0f} s, and nothing is changed") from None
        time.sleep(PAUSE_SECONDS)


def unreadable(error: OSError) -> str:
    """The file, the node and the error."""
    return f"{error.filename or 'a file'} cannot be read on {os.uname().nodename} ({error.strerror or error})"


def shown_by(run: Path, generation: int) -> Callable[[str], None]:
    """What shows a stage in `sslrun status`, of the start `generation` of the run in the folder `run`."""

    def show(stage: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            file, before = run / "progress.json", {}
            with contextlib.suppress(FileNotFoundError):
                before = read_json(file)
            before = before if before.get("generation") == generation else {"generation": generation}
            write_json(file, {**before, "stage": stage}, durable=False)

    return show
