"""What a process prints, where nobody may be there to take it: a full disk, a closed terminal, a pipe without a reader.

The command line has this while it starts or changes runs, the batch script and the ranks always: work must not end
because of a line that nobody reads.
"""

import contextlib
import io
import signal
import sys


class LossyFile(io.FileIO):
    """What cannot be written is lost, and no more is said of it."""

    def write(self, said) -> int:
        rest = memoryview(said)
        with contextlib.suppress(OSError):
            while rest and (taken := super().write(rest)):
                rest = rest[taken:]
        return len(said)


def never_fail(encoding: str | None = None) -> None:
    """From now on no write to stdout or stderr raises or ends this process. `encoding`: the stream's own by default.
    A character that it has not is written as its escape."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for name in ("stdout", "stderr"):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or in memory: nothing there can fail
            before = getattr(sys, name)
            raw = LossyFile(before.fileno(), "wb", closefd=False)
            before.flush()
            lossy = io.TextIOWrapper(raw, encoding or before.encoding, "backslashreplace", write_through=True)
            setattr(sys, name, lossy)
