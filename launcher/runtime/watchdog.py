"""A rank's watchdog: its child, which counts for how long the rank got nowhere, has its stacks written, and ends it.

It counts ticks of its own, of which one that comes late counts once: time in which the rank's processes did not run at
all, in a suspended job or in a virtual machine that was paused, is no time in which it got nowhere. A rank that alone
is stopped, or that keeps the interpreter in a C call, is ended: its watchdog runs on. The two share a few numbers in
memory and nothing else; the child holds no file of the rank, and dies with it.
"""

import contextlib
import ctypes
import faulthandler
import mmap
import os
import signal
import sys
import time
from typing import NoReturn

NAME = b"sslrun-watchdog"  # of the process, in ps and top
STACKS = getattr(signal, "SIGRTMAX", signal.SIGUSR1) - 3  # asks a rank for its stacks; nothing else uses it
TICK = 1.0  # seconds
LONGEST_SPARE = 10.0  # seconds beyond the stall, so that the rank's own thread says it first
LAST_WORDS = 10.0  # seconds from the stacks to the end, so that every rank gets to write its own
LATER = 30.0  # seconds more for a rank that said nothing itself: those that wait for it are to say so before it is gone
LEFT_TO_THE_RANK = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGUSR1)
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15

# What the two share, in seconds by the child's count, which is the clock of all of them. The child writes the first.
CLOCK, MARKED, TOLD, STALL, FATAL = range(5)


def cells() -> memoryview:
    """The numbers that a rank and its watchdog share. Without a watchdog the clock stands still, and nothing stalls."""
    shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
    shared[TOLD] = -1.0
    return shared


class Watchdog:
    """The child, seen from its rank. Begun before there are threads and large libraries, it stays small."""

    def __init__(self) -> None:
        self.cells = cells()
        # Not before: it would be the default action, which is the end.
        faulthandler.register(STACKS, file=sys.stderr, all_threads=True)
        self._rank, self._child = os.getpid(), 0
        try:
            self._child = os.fork()
        except OSError as error:
            print(f"this rank has no watchdog that would end it where it hangs: {error}", flush=True)
            return
        if not self._child:
            _watch(self.cells, self._rank)

    @property
    def lives(self) -> bool:
        """Whether it could be made; without it nothing ends a rank that hangs."""
        return self._child != 0

    def end(self) -> None:
        """Leave no watchdog behind. A rank that is killed needs not do it."""
        if self._child and os.getpid() == self._rank:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
            self._child = 0


def _watch(cells: memoryview, rank: int) -> NoReturn:
    """The child's whole life."""
    try:
        _become_small(rank)
        asked = -1.0  # the mark since which the rank was asked for its stacks
        while os.getppid() == rank:
            stall = cells[STALL]
            tick = min(TICK, stall / 8) if stall else TICK
            time.sleep(tick)
            cells[CLOCK] += tick
            marked = cells[MARKED]
            late = cells[CLOCK] - marked - stall - spare(stall)
            if not stall or late < 0:
                continue
            if asked != marked:
                asked = marked
                os.kill(rank, STACKS)
            if cells[FATAL] and late >= LAST_WORDS + (0 if cells[TOLD] == marked else LATER):
                os.kill(rank, signal.SIGKILL)
    finally:
        os._exit(0)


def spare(stall_s: float) -> float:
    """Seconds after `stall_s` without a mark at which the stacks are written."""
    return min(LONGEST_SPARE, stall_s / 4)


def _become_small(rank: int) -> None:
    """Leave what is the rank's to the rank: its signals, its files, its name; and die with it, at once on Linux and at
    the next tick elsewhere."""
    for number in LEFT_TO_THE_RANK:  # Slurm signals every process of a job
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_NAME, NAME)
    if os.getppid() != rank:
        os._exit(0)
    # The run's lock and the rank's log must not outlive the rank, nor a pipe that somebody reads to its end.
    try:
        held = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        held = list(range(256))
    for descriptor in held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    with contextlib.suppress(OSError):
        for _ in range(3):  # standard input, output and error, the lowest numbers that are free
            os.open(os.devnull, os.O_RDWR)
