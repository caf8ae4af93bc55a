"""`sslrun status --watch` on a real terminal: it shows what changes, and Ctrl-C ends it quietly."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

SSLRUN = Path(sys.executable).with_name("sslrun")
LINES, COLUMNS = 20, 100


class Terminal:
    """A command on a pseudo-terminal of 20 lines of 100 characters."""

    def __init__(self, command, environment):
        self.said = ""
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=_as_a_shell_would,
        )
        os.close(theirs)

    def read(self, until, seconds=600):
        """All that was written up to now, once `until` holds of it."""
        end = time.monotonic() + seconds
        while not until(self.said):
            assert time.monotonic() < end, self.said
            self._read()
        return self.said

    def height(self):
        """Of what was drawn so far, however often, in lines."""
        line = deepest = 0
        for _, up, down in re.findall(r"(\x1b\[(\d*)A)|(\n)", self.said):
            line += 1 if down else -int(up or 1)
            deepest = max(deepest, line)
        return deepest + 1

    def type(self, text):
        os.write(self._mine, text.encode())

    def end(self, seconds=600):
        """The exit code; the rest of what it wrote is in `said`."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.said
            self._read()
        while self._read():
            pass
        os.close(self._mine)
        return self.process.returncode

    def _read(self):
        try:
            ready, _, _ = select.select([self._mine], [], [], 0.1)
            text = os.read(self._mine, 100_000).decode() if ready else ""
        except OSError:  # the other side is closed
            text = ""
        self.said += text
        return bool(text)


def _as_a_shell_would():
    """^C becomes a signal, and one that ends things: whoever starts tests in the background has it ignored."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_it_follows_the_runs_until_ctrl_c(sslrun, ledgers):
    run = ledgers.create("method=rotnet", "recipe=tiny")
    for seed in range(1, 25):
        ledgers.create("method=rotnet", "recipe=tiny", f"seed={seed}")
    kept = {key: value for key, value in sslrun.environment.items() if key not in ("COLUMNS", "LINES", "TERM")}
    terminal = Terminal([SSLRUN, "status", "--watch", f"runs={ledgers.folder}"], {**kept, "TERM": "xterm"})
    try:
        said = terminal.read(lambda said: "25 runs: 25 pending" in plain(said))
        # What does not fit is counted: the newest state is always on the screen.
        assert re.search(r"and \d+ more", plain(said))
        ledgers.start(run)
        ledgers.end(run, "failed", "rank 0 on n1: killed by SIGKILL")
        terminal.read(lambda said: "killed by SIGKILL" in said)
        terminal.read(lambda said: "24 pending, 1 failed" in plain(said))
        assert 5 < terminal.height() <= LINES
        terminal.type("\x03")
        assert terminal.end() == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
    assert "Traceback" not in terminal.said and "Interrupt" not in terminal.said
    assert terminal.said.endswith("\x1b[?25h"), "the cursor is visible again"


def plain(said):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said).replace("\r", "")
