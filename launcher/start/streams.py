"""What a process prints, where nobody may be there to take it: a full disk, a closed terminal, a pipe without a reader.

The command line has this while it starts or changes runs, the batch script and the ranks always: work must not end
because of a line that nobody reads.
"""

import contextlib
import errno
import io
import os
import signal
import sys


class LossyFile(io.FileIO):
    """What cannot be written is lost. `trouble`: why, in the system's words; empty while nothing is, and where the
    reader of a pipe has gone, who wants no more. `raises`: the writer is told, too."""

    trouble = ""
    raises = False

    def write(self, said) -> int:
        rest = memoryview(said)
        try:
            while rest and (taken := super().write(rest)):
                rest = rest[taken:]
            if rest:  # a pipe that does not wait for its reader
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.trouble = error.strerror
            if self.raises:
                raise
        return len(said)


def lost_answer() -> str:
    """Why something that was said on stdout since `never_fail` is lost; empty where nothing is."""
    return getattr(getattr(sys.stdout, "buffer", None), "trouble", "")


def never_fail(encoding: str | None = None, *, reading: bool = False) -> None:
    """From now on no write to stdout or stderr raises or ends this process. `encoding`: the stream's own by default.
    A character that it has not is written as its escape. `reading`: nothing is lost where the process ends with its
    stdout."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL if reading else signal.SIG_IGN)  # `sslrun status | head` ends quietly
    for name in ("stdout", "stderr"):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or in memory: nothing there can fail
            before = getattr(sys, name)
            raw = LossyFile(before.fileno(), "wb", closefd=False)
            raw.raises = reading and name == "stdout"
            before.flush()
            lossy = io.TextIOWrapper(raw, encoding or before.encoding, "backslashreplace", write_through=True)
            setattr(sys, name, lossy)
