"""Data-loader workers: what their processes need of the machine, and what is said where it fails them."""

import contextlib
import json
import multiprocessing.process
import multiprocessing.queues
import multiprocessing.util
import os
import resource
import shutil
import signal
import tempfile
import traceback
from typing import Any

import torch
from torch.utils.data import get_worker_info

from launcher.errors import InputError, RunFailed, line_of

# Slurm sends these to every process of a job. Workers leave them to the main process, whose last step may need them.
LEFT_TO_MAIN = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
LONGEST_SOCKET = 107  # bytes of a Unix socket's path: 108 with the zero behind it (unix(7))
OF_ITS_OWN = len("/pymp-12345678/listener-12345678")  # what multiprocessing adds to the folder of temporary files
SHORT = ("/tmp", "/var/tmp", "/dev/shm")
SHARED = "/dev/shm"


class LastWords:
    """A pipe, made before the workers are, by which one that must end says why: torch sees no more than that it did."""

    def __init__(self) -> None:
        self._heard, self._said = os.pipe()
        for end in (self._heard, self._said):
            os.set_blocking(end, False)

    def say(self, error: Exception) -> None:
        kind = type(error).__name__ if isinstance(error, InputError | RunFailed) else ""
        line = str(error) if kind else line_of(error)
        with contextlib.suppress(OSError):  # it is full: others have said enough
            os.write(self._said, json.dumps([kind, line]).encode()[:4000] + b"\n")

    def heard(self) -> Exception | None:
        """What the first worker had to say, as an exception."""
        with contextlib.suppress(OSError, ValueError):
            kind, line = json.loads(os.read(self._heard, 4096).split(b"\n")[0])
            return {"InputError": InputError, "RunFailed": RunFailed}.get(kind, RuntimeError)(line)
        return None

    def close(self) -> None:
        os.close(self._heard)
        os.close(self._said)


def socket_folder() -> str | None:
    """Where workers are to make the sockets by which they hand over batches; None where temporary files are.

    Raises InputError where that folder's path is too long for a socket, and no other can be written to.
    """
    folder = tempfile.gettempdir()
    longest = LONGEST_SOCKET - OF_ITS_OWN
    if len(os.fsencode(folder)) <= longest:
        return None
    for short in SHORT:
        if os.path.isdir(short) and os.access(short, os.W_OK | os.X_OK):
            return short
    reason = f"{len(os.fsencode(folder))} bytes are too long for the sockets of data-loader workers"
    fix = f"give one of at most {longest}, or method.workers=0, since {SHORT[0]} cannot be written to"
    raise InputError.of("TMPDIR", folder, reason, fix)


def begin(words: LastWords, sockets: str | None) -> None:
    """In a worker, before its first batch. sockets: of `socket_folder`."""
    for number in LEFT_TO_MAIN:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)  # a worker is one core; threads of its own would fight its siblings for theirs
    if sockets is not None:
        before, tempfile.tempdir = tempfile.tempdir, sockets
        multiprocessing.process.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
        multiprocessing.util.get_temp_dir()  # it keeps what it finds first, and clears it away in the end
        tempfile.tempdir = before

    def give_up(error: Exception, _: Any) -> None:
        """A batch that cannot be sent would be left out without a word, and waited for without an end."""
        traceback.print_exc()
        words.say(_named(error))
        os._exit(0)  # of a failure torch's handler would tell whatever the main process is at, and not who waits here

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(give_up)


def shared(like: torch.Tensor, numbers: int) -> torch.Tensor:
    """In a worker: so many numbers of the type of `like` in shared memory, flat. Raises InputError or RunFailed where
    there is no room for them."""
    try:
        return like.new(like._typed_storage()._new_shared(numbers))
    except RuntimeError as error:
        raise _named(error, numbers * like.element_size()) from None


def explained(error: Exception, words: LastWords) -> Exception:
    """What the main process is to raise for `error`, which it met when it waited for a batch."""
    if isinstance(error, InputError | RunFailed):
        text = error.args[0]
        if "Traceback" in text:  # raised in a worker, whose traceback torch puts before it
            return type(error)(line_of(Exception(text)).partition(": ")[2])
        return error
    if (said := words.heard()) is not None:
        return said
    text = str(error)
    if "Bus error" in text:  # memory that was promised and is not there
        return RunFailed(_room("a data-loader worker died of a bus error"))
    return _named(error)


def _named(error: Exception, needed: int = 0) -> Exception:
    """`error`, or what is the matter with shared memory. needed: bytes of a batch, where they are known."""
    text = str(error)
    if "Too many open files" in text or "ancdata" in text:  # descriptors that cannot be received
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        reason = f"too many open files for batches from workers, {limit} at most on {os.uname().nodename}"
        return RunFailed(f"{reason}; raise it with `ulimit -n`, or give fewer method.workers")
    if "shared memory" not in text or "No space left" not in text:
        return error
    info = get_worker_info()
    workers = info.num_workers if info else 1
    ranks = int(os.environ.get("SLURM_NTASKS_PER_NODE") or os.environ.get("WORLD_SIZE") or 1)
    # Each worker is two batches ahead.
    too_small = shutil.disk_usage(SHARED).total < 2 * workers * ranks * needed
    said = _room(f"no room for batches of {needed / 1e6:,.1f} MB from {workers} workers" if needed else text)
    return InputError(f"method.workers={workers}: {said}") if too_small else RunFailed(said)


def _room(what: str) -> str:
    usage = shutil.disk_usage(SHARED)
    sizes = f"{SHARED} on {os.uname().nodename} has {usage.total / 1e6:,.1f} MB, {usage.free / 1e6:,.1f} of them free"
    return f"{what}: {sizes}; give it more (of a container, --shm-size), or fewer method.workers; 0 need none"
