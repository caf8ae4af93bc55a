"""A rank's sign of life, and what it was doing when it did nothing for too long.

    <run>/heartbeats/rank3.json    replaced every few seconds by a thread; launcher/run/heartbeats.py reads them

A thread that beats says that the process lives, marks by the main thread say that it gets somewhere. When marks stay
away for `stall_s`, the stacks of all threads go to the rank's log and the ledger gets a `stalled` event; once training
has begun, the rank's watchdog (watchdog.py) then ends it, and with it the others: a hung collective costs minutes, not
the night. What counts is time in which the rank could have run, by the count of its watchdog: a suspended job is not
stuck. No other rank's clock is ever read.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.opening import Opening
from launcher.runtime.watchdog import CLOCK, FATAL, MARKED, STALL, TOLD, Watchdog, cells

SHORTEST_BEAT, LONGEST_BEAT = 2.0, 15.0  # seconds
BEATS_A_SECOND = 50  # of all ranks together: the folder is on a file system that others use, too
LAST_WORDS_SECONDS = 2.0  # how long a rank that ends waits for what its heart has still to say
PAUSE = 5.0  # seconds that a beat may come late before its process counts as one that was stopped


class Heart:
    """Counts what the main thread has done; beats and watches from `start` on."""

    def __init__(
        self, run: RunDir, *, generation: int = 1, rank: int = 0, size: int = 1, watchdog: Watchdog | None = None
    ):
        """Without a `watchdog` nothing is called a stall."""
        self.step: int | None = None
        self.opening = Opening()
        self._run, self._generation, self._rank = run, generation, rank
        self._file = run.path / "heartbeats" / f"rank{rank}.json"
        # As Slurm calls the node: that is the name to leave out of the next submission.
        self._host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.stage, self._points, self._marks, self._beats, self._stalled = "starting", 0, 0, 0, False
        self._every = min(LONGEST_BEAT, max(SHORTEST_BEAT, size / BEATS_A_SECOND))
        self._stall_s, self._watched = 0.0, watchdog is not None and watchdog.lives
        self._cells = watchdog.cells if watchdog else cells()
        self._began, self._joined = time.monotonic(), False
        self._over, self._wake = False, threading.Event()
        self._thread: threading.Thread | None = None
        self._when_watched: Callable[[], None] = lambda: None

    def start(self, stall_s: float) -> "Heart":
        """Beat from now on; call it a stall when nothing is marked for `stall_s` seconds (0: never)."""
        self._stall_s = stall_s
        if stall_s:
            self._every = min(self._every, stall_s / 2)
        self._cells[MARKED] = self._cells[CLOCK]
        self._cells[STALL] = stall_s
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(exist_ok=True)
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """No beat and no end by the watchdog any more."""
        self._cells[STALL] = 0.0
        self.last_words()

    def last_words(self) -> None:
        """No beat any more; what was noticed and not yet said is in the ledger, unless that takes too long."""
        self._over = True
        self._wake.set()
        if self._thread:
            self._thread.join(LAST_WORDS_SECONDS)

    def joined(self, watched: Callable[[], None] = lambda: None) -> None:
        """All ranks are here, at the same moment: from now on beats can be compared, whatever the nodes' clocks say.
        `watched` is called when from then on a rank that gets nowhere ends."""
        self._when_watched = watched
        self._began, self._joined = time.monotonic(), True
        self.point("starting")
        self._wake.set()  # whoever is stopped a moment later was here

    def alive_s(self) -> float:
        """Seconds since all ranks met: to compare with another rank's. 0 before that: what fails then keeps all."""
        return round(time.monotonic() - self._began, 3) if self._joined else 0.0

    def end_when_stuck(self) -> None:
        """From now on a rank that gets nowhere ends; before, walking a folder of 10^8 images may take what it takes."""
        self.mark()
        self._cells[FATAL] = 1.0
        if self._watched and self._stall_s:
            self._when_watched()

    def point(self, stage: str | None = None) -> None:
        """The main thread passed a point that all ranks pass together, equally often."""
        self._points, self._marks = self._points + 1, 0
        self.mark(stage)

    def mark(self, stage: str | None = None) -> None:
        """The main thread got somewhere; `stage` is what it does now, None for no news. Half a microsecond."""
        self.stage = stage or self.stage
        self._marks += 1
        self._cells[MARKED] = self._cells[CLOCK]

    def _beat(self) -> None:
        stopped: float | None = None  # the mark since which this very process stood still: it waits for nobody
        while True:
            now, marked = time.monotonic(), self._cells[MARKED]
            still = self._cells[CLOCK] - marked
            waits = bool(self._stall_s) and still > self._stall_s and stopped != marked
            before, self._stalled = self._stalled, waits
            if self._stalled and not before:
                self._tell(still)
            self._beats += 1
            # A full disk is no reason to end a run here: the next save says so.
            with contextlib.suppress(OSError):
                write_json(self._file, self._row(now, still), durable=False)
            if self._stalled:
                self._cells[TOLD] = marked  # the watchdog need wait no longer
            slept, ran = time.monotonic(), self._cells[CLOCK]
            self._wake.wait(self._every)
            self._wake.clear()
            slept, ran = time.monotonic() - slept, self._cells[CLOCK] - ran
            if self._watched and slept > self._every + PAUSE:
                if ran > self._every + PAUSE:
                    stopped = self._cells[MARKED]
                if slept - ran > PAUSE:  # its watchdog did not run, either
                    self._paused(slept - ran)
            if self._over:
                return

    def _row(self, now: float, still: float) -> dict[str, Any]:
        return {
            "rank": self._rank,
            "host": self._host,
            "pid": os.getpid(),
            "generation": self._generation,
            "stage": self.stage,
            "step": self.step,
            "points": self._points,
            "marks": self._marks,
            "still_s": round(still, 1),
            "stalled": self._stalled,
            "beat": self._beats,
            "every_s": self._every,
            "joined": self._joined,
            "alive_s": round(now - self._began, 1),
        }

    def _paused(self, seconds: float) -> None:
        """Nothing of this rank ran for so long. What ends the ranks now may come of that: see start/ending.py."""
        ledger = Ledger(self._run.path, self._generation, f"health{self._rank}")
        since = {"step": self.step, "alive_s": self.alive_s()}
        ledger.write("paused", rank=self._rank, node=self._host, seconds=round(seconds, 1), **since)

    def _tell(self, still: float) -> None:
        """The stacks, and one event, by a writer of its own: the main thread may be in the middle of a line."""
        faulthandler.dump_traceback(file=sys.stderr)
        where = {"stage": self.stage, "step": self.step}
        ledger = Ledger(self._run.path, self._generation, f"health{self._rank}")
        ledger.write("stalled", rank=self._rank, node=self._host, seconds=round(still, 1), **where)
        print(f"rank {self._rank} on {self._host}: no progress for {still:.0f} s, in {self.stage}", flush=True)
