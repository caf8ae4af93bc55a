"""cluster=local: the ranks of a run as processes of this machine, watched until they end.

The launcher holds the run's lock and hands it to rank 0, so that it is held as long as either of them lives. Ctrl-C
goes to the launcher alone, which asks the ranks to stop at their next safe point.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from launcher.errors import SslrunError, line_of
from launcher.run import snapshot, stops, waiting
from launcher.run.files import opened
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.spec.runspec import RunSpec
from launcher.start import handover, stages
from launcher.start.ending import Outcome, judge, stuck
from launcher.start.handover import STOPPED_CODE, Start

POLL_SECONDS = 0.1
KILL_AFTER_SECONDS = 10.0  # how long the other ranks of a dead one may live
PR_SET_PDEATHSIG = 1


class Watcher(Protocol):
    """Who shows a person what happens."""

    def __call__(self) -> None:
        """Called every POLL_SECONDS while the ranks work."""

    def stopping(self, *, again: bool) -> None:
        """The ranks were asked to stop, or, `again`, were killed."""


class _Shown:
    """A watcher whose errors end nothing: that a run cannot be shown is no reason to lose what it did."""

    def __init__(self, watch: Watcher):
        self._watch, self._said = watch, ""

    def __call__(self) -> None:
        self._try(self._watch)

    def stopping(self, *, again: bool) -> None:
        self._try(partial(self._watch.stopping, again=again))

    def _try(self, show: Callable[[], None]) -> None:
        try:
            show()
        except Exception as error:
            if self._said != (said := line_of(error)):
                self._said = said
                print(f"what the run does cannot be shown: {said}", file=sys.stderr, flush=True)


def run(run: RunDir, spec: RunSpec, *, cause: str, watch: Watcher) -> Outcome | None:
    """Start the ranks and see them through; None when somebody else is the writer. Calls `watch` all the while."""
    run.refuse_foreign()
    stages.jobs_before(spec, stages.of_run(run), None, made=True)
    code = snapshot.verify(run.code_folder(), run.code()["digest"])
    lock = run.lock()
    if lock is None:
        return None
    try:
        return _run(run, spec, code, lock, cause=cause, watch=watch)
    finally:
        os.close(lock)


def _run(run: RunDir, spec: RunSpec, code: Path, lock: int, *, cause: str, watch: Watcher) -> Outcome:
    """As `run`, whose lock this process holds."""
    generation = waiting.patiently(run.generation) + 1
    ledger = Ledger(run.path, generation, "launcher")
    stages.pin(run, spec, ledger)
    came: list[int] = []
    with (
        handover.secret(run.path, generation, ranks=spec.world_size),
        tempfile.TemporaryDirectory(prefix="sslrun-") as folder,
        stops.heard_by(stops.noted_in(came)),
        contextlib.ExitStack() as open_files,
    ):
        logs = [open_files.enter_context(_log(run, rank)) for rank in range(spec.world_size)]
        ledger.write("start", cause=cause, pid=os.getpid(), world_size=spec.world_size)
        ranks = [
            _start(run, spec, rank, generation, code, Path(folder) / "rendezvous", lock, log)
            for rank, log in enumerate(logs)
        ]
        codes, first = _see_through(ranks, came, _Shown(watch))
        try:
            outcome = _as_asked(run, codes, came) or _judge(run, generation, codes, first)
        except SslrunError as error:
            outcome = Outcome("failed", error.cause, str(error), error.exit_code)
        ledger.write("end", state=outcome.state, cause=outcome.cause, message=outcome.message, exit_codes=codes)
    return outcome


def _threads(ranks: int) -> int:
    """Of one rank: its share of the cores, or fewer where the user's SSLRUN_THREADS says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share, asked = max(1, cores // ranks), os.environ.get("SSLRUN_THREADS", "")
    return min(share, int(asked)) if asked.isdecimal() and int(asked) else share


def _start(
    run: RunDir, spec: RunSpec, rank: int, generation: int, code: Path, rendezvous: Path, lock: int, log: IO[bytes]
) -> subprocess.Popen:
    start = Start(
        rank=rank,
        local_rank=rank,
        world_size=spec.world_size,
        generation=generation,
        rendezvous=rendezvous.as_uri(),
        lock=lock if rank == 0 else None,
        threads=_threads(spec.world_size),
    )
    environment = {
        **os.environ,
        **start.environment(),
        "OMP_WAIT_POLICY": "PASSIVE",  # also where the user's shell says otherwise: the ranks share this machine
        "PYTHONPATH": os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")])),
        "PYTHONUTF8": "1",  # whatever the locale: paths of the spec are
        "PYTHONSAFEPATH": "1",  # a folder named `methods` where the user stands is not ours
    }
    if sys.platform == "linux":  # all ranks are here; the host name may resolve to nothing, and the shell be another's
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    return subprocess.Popen(
        [sys.executable, "-P", "-m", snapshot.module(code, "launcher.start.worker"), str(run.path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C of the terminal reaches the launcher only
        pass_fds=[lock] if rank == 0 else [],
        preexec_fn=_die_with_parent,
    )


def _log(run: RunDir, rank: int) -> IO[bytes]:
    """What a rank says goes to its end. Raises NotOurs where it is a link or a FIFO, OSError."""
    path = run.path / "logs" / f"rank{rank}.log"
    return open(opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), "ab")


def _die_with_parent() -> None:
    """A launcher that was killed leaves no rank behind (Linux; elsewhere the ranks end by themselves)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _see_through(ranks: list[subprocess.Popen], came: list[int], watch: Watcher) -> tuple[list[int], int | None]:
    """Wait for all ranks; when one dies, the others follow within KILL_AFTER_SECONDS.

    came: signals so far, by which one asks the ranks to stop, and a second one kills them.
    Returns the exit codes, and which rank failed first: the others' failures follow from it.
    """
    told, first, first_death = 0, None, 0.0
    while any(rank.poll() is None for rank in ranks):
        if len(came) > told:
            told = len(came)
            watch.stopping(again=told > 1)
            for rank in ranks:
                if rank.poll() is None:
                    rank.send_signal(signal.SIGTERM if told == 1 else signal.SIGKILL)
        if first is None:
            first, first_death = _first_failed(ranks), time.monotonic()
        if first is not None and time.monotonic() - first_death > KILL_AFTER_SECONDS:
            for rank in ranks:
                rank.kill()
        watch()
        time.sleep(POLL_SECONDS)
    watch()  # what they said last
    return [rank.returncode for rank in ranks], _first_failed(ranks) if first is None else first


def _first_failed(ranks: list[subprocess.Popen]) -> int | None:
    """The rank to blame. Peers of a dead rank fail within milliseconds: one that a signal ended comes first."""
    failed = [number for number, rank in enumerate(ranks) if rank.poll() not in (None, 0, STOPPED_CODE)]
    return min(failed, key=lambda number: (ranks[number].returncode >= 0, number), default=None)


def _as_asked(run: RunDir, codes: list[int], came: list[int]) -> Outcome | None:
    """How it ended where a second signal had the ranks killed; None where it did not."""
    if len(came) < 2 or -signal.SIGKILL not in codes:
        return None
    try:
        saved = run.checkpoints()
        last = f"the last save is {saved[-1].name}" if saved else "nothing was saved yet"
    except OSError as error:
        last = f"what was saved cannot be read ({error.strerror})"
    return Outcome("failed", "killed", f"killed as asked; {last}", 4)


def _judge(run: RunDir, generation: int, codes: list[int], first: int | None) -> Outcome:
    code = 0 if not any(codes) else STOPPED_CODE if all(c in (0, STOPPED_CODE) for c in codes) else 4
    otherwise = f"see {run.path / 'logs' / 'rank0.log'}"
    if first is not None:
        log = run.path / "logs" / f"rank{first}.log"
        how = f"killed by {signal.Signals(-codes[first]).name}" if codes[first] < 0 else f"exit code {codes[first]}"
        otherwise = f"rank {first} on {os.uname().nodename}: {how}; see {log}"
    return stuck(run, judge(waiting.patiently(run.history).of(generation), code, first, otherwise))
