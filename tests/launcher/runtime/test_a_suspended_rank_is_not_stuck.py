"""A rank's watchdog ends it where it hangs, stopped alone or in a C call that keeps the interpreter, and not where
nothing of it ran. It is gone with its rank, and holds nothing of it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.fault

STALL = 3.0  # seconds; the program below marks all the while
PROGRAM = """
    import ctypes, os, sys, time
    from launcher.run.folder import RunDir
    from launcher.runtime import watchdog
    from launcher.runtime.health import Heart

    watchdog.LAST_WORDS, watchdog.LATER = 0.5, 1.0
    mine = watchdog.Watchdog()
    heart = Heart(RunDir({folder!r}), watchdog=mine).start({stall})
    heart.end_when_stuck()

    def stuck():
        ctypes.PyDLL(None).sleep(3600)  # of C, and without letting any other thread run

    print(mine._child, flush=True)
    for turn in sys.stdin:
        if turn.strip() == "hang":
            stuck()
        if turn.strip() == "close":
            os.close(1)
        if turn.strip() == "work":
            for _ in range(30):
                heart.mark("training")
                time.sleep(0.1)
            print("worked", flush=True)
"""


class Rank:
    """A rank in a process group of its own, which does what it is told to."""

    def __init__(self, folder: Path, stall: float):
        program = textwrap.dedent(PROGRAM).format(folder=str(folder), stall=stall)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        self.watch = int(self.process.stdout.readline())

    def told(self, turn: str) -> None:
        self.process.stdin.write(f"{turn}\n")
        self.process.stdin.flush()


@pytest.fixture
def rank(tmp_path) -> Iterator[Callable[..., Rank]]:
    """`rank(stall=1.0)`: one that is being watched."""
    (tmp_path / "events").mkdir()
    made = []

    def start(stall: float = STALL) -> Rank:
        made.append(Rank(tmp_path, stall))
        return made[-1]

    yield start
    for each in made:
        each.process.kill()
        each.process.communicate()


def said(folder: Path) -> list[dict]:
    return [json.loads(line) for file in (folder / "events").iterdir() for line in file.read_text().splitlines()]


def test_a_group_that_stood_still_goes_on_and_says_for_how_long(rank, tmp_path, until):
    stopped = rank()
    stopped.told("work")
    time.sleep(0.5)
    os.killpg(stopped.process.pid, signal.SIGSTOP)
    time.sleep(4 * STALL)
    os.killpg(stopped.process.pid, signal.SIGCONT)
    assert stopped.process.stdout.readline() == "worked\n"
    (event,) = until(lambda: said(tmp_path))
    assert (event["event"], event["rank"]) == ("paused", 0)
    assert 3 * STALL < event["seconds"] < 6 * STALL
    beat = json.loads((tmp_path / "heartbeats" / "rank0.json").read_text())
    assert beat["still_s"] < 2 * STALL and not beat["stalled"]


def test_one_that_is_stopped_alone_is_ended(rank):
    stopped = rank(1.0)
    stopped.process.send_signal(signal.SIGSTOP)
    assert stopped.process.wait(60) == -signal.SIGKILL


def test_one_whose_c_call_keeps_the_interpreter_writes_its_stacks_and_is_ended(rank):
    hangs = rank(1.0)
    hangs.told("hang")
    assert hangs.process.wait(60) == -signal.SIGKILL
    assert "in stuck" in hangs.process.stderr.read()


def test_a_watchdog_is_gone_with_its_rank_and_holds_nothing_of_it(rank, until):
    killed = rank()
    status = Path(f"/proc/{killed.watch}/status")
    until(lambda: "sslrun-watchdog" in status.read_text())
    until(lambda: {os.readlink(file) for file in Path(f"/proc/{killed.watch}/fd").iterdir()} == {os.devnull})
    killed.told("close")
    assert killed.process.stdout.read() == ""  # who reads what the rank says need not wait for its watchdog
    os.kill(killed.watch, signal.SIGTERM)  # as Slurm does, with all processes of a job
    killed.told("work")
    time.sleep(0.2)
    assert "sslrun-watchdog" in status.read_text()
    killed.process.kill()
    killed.process.wait()
    until(lambda: not status.exists() or "zombie" in status.read_text(), seconds=10)
