"""A rank that was begun before its start (start/standby.py has why): it imports what it will need, and waits for word.

The imports are a thread's, which takes the CPU only where nobody else wants it: the priority of a thread ends with it,
and what a process has once given away it does not get back. NumPy comes first, by the main thread: the threads of its
BLAS keep the priority at which they are made.
"""

import contextlib
import json
import os
import select
import signal
import threading
import traceback
from collections.abc import Callable

from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.heartbeats import READY
from launcher.runtime.preempt import StopFlag
from launcher.start.handover import STANDBY

LEAST = 19  # nice
POLL_SECONDS = 1.0  # of a signal that came; word of the start is heard at once
LONGEST = 1 << 16  # bytes of that word


def asked() -> bool:
    """Whether this process was begun ahead. Its children are not told so."""
    return os.environ.pop(STANDBY, "") == "1"


def wait(run: RunDir, generation: int, rank: int, load: Callable[[], object], stop: StopFlag) -> int | None:
    """`load` what is needed, say so, and wait until the start begins: None, and what it has to say is in the
    environment. Else the code with which this process is to end: 0 where nobody needs it, 1 where it cannot load.

    Told to stop before, it ends by that signal, as an interpreter does that has not come so far."""
    import numpy  # noqa: F401

    loaded = threading.Thread(target=_load, args=(load, failed := []), daemon=True)
    loaded.start()
    while loaded.is_alive() and not stop:
        loaded.join(POLL_SECONDS)
    if failed:
        return 1
    file = run.path / "heartbeats" / READY.format(rank)
    with contextlib.suppress(OSError):  # then nobody knows, and the start begins as any other
        write_json(file, {"generation": generation, "pid": os.getpid()}, durable=False)
    word = _word(stop)
    with contextlib.suppress(OSError):
        file.unlink()
    if not word:
        if stop:
            signal.signal(stop.signal, signal.SIG_DFL)
            os.kill(os.getpid(), stop.signal)
        return 0
    for name, value in json.loads(word).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    with contextlib.suppress(OSError):  # as the stdin of any rank
        os.dup2(nothing := os.open(os.devnull, os.O_RDONLY), 0)
        os.close(nothing)
    return None


def _load(load: Callable[[], object], failed: list[str]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST)  # on Linux: of this thread
    try:
        load()
    except Exception:
        failed.append(f"what the next start needs cannot be imported:\n{traceback.format_exc()}")
        print(failed[0], flush=True)


def _word(stop: StopFlag) -> bytes:
    """A line of stdin; empty at its end, and where this process is told to stop and no word is there."""
    heard, waiting = b"", select.poll()
    waiting.register(0, select.POLLIN)
    while not heard.endswith(b"\n"):
        told = bool(stop)  # asked before: who is told, and has word, is a rank that is told
        if waiting.poll(0 if told else 1000 * POLL_SECONDS):
            more = os.read(0, LONGEST)
            if not more:
                return b""
            heard += more
        elif told:
            return b""
    return heard
