"""A rank's sign of life, and what it was doing when it did nothing for too long.

    <run>/heartbeats/rank3.json    replaced every few seconds by a thread; launcher/run/heartbeats.py reads them

A thread that beats says that the process lives, marks by the main thread say that it gets somewhere. When marks stay
away for `stall_s`, the stacks of all threads go to the rank's log and the ledger gets a `stalled` event; once training
has begun, faulthandler's watchdog, which needs no interpreter and so works while a C call keeps it, then ends the rank,
and with it the others: a hung collective costs minutes, not the night. No other process's clock is ever read.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from typing import Any

from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger

SHORTEST_BEAT, LONGEST_BEAT = 2.0, 15.0  # seconds
BEATS_A_SECOND = 50  # of all ranks together: the folder is on a file system that others use, too
LAST_WORDS = 10.0  # seconds from the stacks to the end, so that every rank gets to write its own
PAUSE = 5.0  # seconds that a beat may come late before its process counts as one that was stopped
LONGEST_REARM = 10.0  # seconds; setting the watchdog anew takes a thread, too dear for every step


class Heart:
    """Counts what the main thread has done; beats and watches from `start` on."""

    def __init__(self, run: RunDir, *, generation: int = 1, rank: int = 0, size: int = 1):
        self.step: int | None = None
        self._run, self._generation, self._rank = run, generation, rank
        self._file = run.path / "heartbeats" / f"rank{rank}.json"
        # As Slurm calls the node: that is the name to leave out of the next submission.
        self._host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.stage, self._points, self._marks, self._beats, self._stalled = "starting", 0, 0, 0, False
        self._every = min(LONGEST_BEAT, max(SHORTEST_BEAT, size / BEATS_A_SECOND))
        self._stall_s = self._rearm = 0.0
        self._marked = self._armed = self._began = time.monotonic()
        self._joined = self._fatal = False
        self._over, self._wake = False, threading.Event()

    def start(self, stall_s: float) -> "Heart":
        """Beat from now on; call it a stall when nothing is marked for `stall_s` seconds (0: never)."""
        self._stall_s, self._rearm = stall_s, min(LONGEST_REARM, stall_s / 4)
        if stall_s:
            self._every = min(self._every, stall_s / 2)
        self._marked = time.monotonic()
        self._arm(self._marked)
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(exist_ok=True)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        return self

    def stop(self) -> None:
        """No beat and no watchdog any more."""
        self._over = True
        self._wake.set()
        if self._stall_s:
            faulthandler.cancel_dump_traceback_later()

    def joined(self) -> None:
        """All ranks are here, at the same moment: from now on beats can be compared, whatever the nodes' clocks say."""
        self._began, self._joined = time.monotonic(), True
        self.point("starting")
        self._wake.set()  # whoever is stopped a moment later was here

    def alive_s(self) -> float:
        """Seconds since all ranks met: to compare with another rank's. 0 before that: what fails then keeps all."""
        return round(time.monotonic() - self._began, 3) if self._joined else 0.0

    def end_when_stuck(self) -> None:
        """From now on a rank that gets nowhere ends; before, walking a folder of 10^8 images may take what it takes."""
        self._fatal = True
        self.mark()
        self._arm(self._marked)

    def point(self, stage: str | None = None) -> None:
        """The main thread passed a point that all ranks pass together, equally often."""
        self._points, self._marks = self._points + 1, 0
        self.mark(stage)

    def mark(self, stage: str | None = None) -> None:
        """The main thread got somewhere; `stage` is what it does now, None for no news. Half a microsecond."""
        now = time.monotonic()
        self.stage = stage or self.stage
        self._marks += 1
        self._marked = now
        if self._stall_s and now - self._armed > self._rearm:
            self._arm(now)

    def _arm(self, now: float) -> None:
        self._armed = now
        if self._stall_s:
            # So much later than at each mark that it never comes too early for one that did not set it.
            later = self._stall_s + self._rearm + (LAST_WORDS if self._fatal else 0)
            faulthandler.dump_traceback_later(later, file=sys.stderr, exit=self._fatal)

    def _beat(self) -> None:
        stopped: float | None = None  # the mark since which this very process stood still: it waits for nobody
        while True:
            now = time.monotonic()
            still = now - self._marked
            waits = bool(self._stall_s) and still > self._stall_s and stopped != self._marked
            before, self._stalled = self._stalled, waits
            if self._stalled and not before:
                self._tell(still)
            self._beats += 1
            # A full disk is no reason to end a run here: the next save says so.
            with contextlib.suppress(OSError):
                write_json(self._file, self._row(now, still), durable=False)
            slept = time.monotonic()
            self._wake.wait(self._every)
            self._wake.clear()
            if self._over:
                return
            if time.monotonic() - slept > self._every + PAUSE:
                stopped = self._marked

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

    def _tell(self, still: float) -> None:
        """The stacks, and one event, by a writer of its own: the main thread may be in the middle of a line."""
        faulthandler.dump_traceback(file=sys.stderr)
        where = {"stage": self.stage, "step": self.step}
        ledger = Ledger(self._run.path, self._generation, f"health{self._rank}")
        ledger.write("stalled", rank=self._rank, node=self._host, seconds=round(still, 1), **where)
        print(f"rank {self._rank} on {self._host}: no progress for {still:.0f} s, in {self.stage}", flush=True)
