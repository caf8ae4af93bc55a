"""What a batch script runs on the first node of a job: one generation of a run, its ranks started with srun.

The twin of local.py. It holds the run's lock and writes the generation's first event and its last; the ranks are
started only once the code is what was submitted and every node sees the run and its Python. The pickle that brings
Slurm here holds the run's path and nothing else.
"""

import contextlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from launcher.errors import ClusterError, InputError, NotStarted, RunFailed, SslrunError, Superseded, Unreadable
from launcher.plan import script
from launcher.run import causes, files, heartbeats, private, snapshot, waiting
from launcher.run.files import opened
from launcher.run.folder import RunDir
from launcher.run.ledger import History, Ledger
from launcher.run.state import of
from launcher.slurm import badnodes, commands, notation
from launcher.spec.runspec import RunSpec
from launcher.start import handover, job, requeue, streams
from launcher.start.ending import Outcome, judge, note_commits, stuck
from launcher.start.handover import Start

PREFLIGHT_SECONDS = 120
LOCK_SECONDS, LOCK_POLL_SECONDS = 180.0, 2.0  # NFS forgets a client after 90 s
# srun: error: n2: task 3: Killed        srun: error: n2: tasks 2-3: Exited with exit code 4
BLAME = re.compile(r"error: (?P<node>\S+): tasks? (?P<rank>\d+)\S*: (?P<how>.+)")
PASS_ON_SECONDS = 1.0
EARLY_SECONDS = 120  # Slurm tells of the time limit up to 60 s early; and what a job does before its script
FIRST_PORT = 10_000  # services of a node have theirs below
EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
NOT_BEGUN = Outcome("stopped", "stopped", "no rank had begun", 0)
SEEN_SECONDS = 60.0  # how long a node may take to see the run: it mounts the folder now, or the file server is away
PREFLIGHT = """\
left=$3
soon() { until test "$@"; do [ "$left" -gt 0 ] || return 1; left=$((left - 1)); sleep 1; done; }
soon -r "$1/spec.json" || { echo "$SLURMD_NODENAME does not see $1"; exit 3; }
soon -w "$1/logs" || { echo "$SLURMD_NODENAME cannot write to $1"; exit 3; }
command -v "$2" >/dev/null || { echo "$SLURMD_NODENAME has no $2"; exit 3; }
"""


def main(path: str) -> None:
    """Run one generation of the run in `path` and exit: 0 when it is done or will go on later, 2 to 4 otherwise."""
    streams.never_fail()  # a log on a full disk loses lines, and not the run
    told = _Told()
    run = RunDir(path)
    try:
        waiting.patiently(lambda: _look(run))
        lock = _lock(run)
        if lock is None:
            raise ClusterError(f"{run.id} is being run by somebody else")
        if of(waiting.patiently(run.history), held=False).name == "done":  # it finished while it was being preempted
            sys.exit(0)
        cause = waiting.patiently(lambda: _how_it_ended_before(run))
        generation = waiting.patiently(run.generation) + 1
        ledger, hopeless = Ledger(run.path, generation, "batch"), None
    except (Unreadable, OSError) as error:  # also where the folder is not there: it may be mounted a moment later
        print(f"sslrun: {_said(error)}", flush=True)
        # There is no ledger to count in.
        if int(os.environ.get("SLURM_RESTART_COUNT", 0)) < causes.of(Unreadable.cause).forgiven:
            with contextlib.suppress(ClusterError):
                job.back_into_the_queue()
        sys.exit(Unreadable.exit_code)
    except SslrunError as error:
        print(f"sslrun: {error}", flush=True)
        sys.exit(error.exit_code)
    print(_mark(generation), flush=True)
    try:
        ledger.write(
            "start",
            cause=cause,
            pid=os.getpid(),
            job=job.own_id(),
            restart_count=int(os.environ.get("SLURM_RESTART_COUNT", 0)),
            nodes=os.environ["SLURM_JOB_NODELIST"],
            world_size=int(os.environ["SLURM_JOB_NUM_NODES"]) * int(os.environ["SLURM_NTASKS_PER_NODE"]),
        )
        hopeless = _hopeless(run)
        outcome = hopeless or _work(run, generation, told)
    except SslrunError as error:
        begun = told.ranks_begun or not told.signal
        outcome = Outcome("failed", error.cause, str(error), error.exit_code) if begun else NOT_BEGUN
    except OSError as error:
        cause = InputError.cause if waiting.answered(error) else Unreadable.cause
        outcome = Outcome("failed", cause, _said(error), RunFailed.exit_code)
    try:
        outcome, again = waiting.patiently(lambda: _concluded(run, ledger, outcome, hopeless, told))
    except (Unreadable, OSError) as error:  # the next start says how this one ended, and counts it
        outcome, again = Outcome("preempted", Unreadable.cause, _said(error), 0), True
    except SslrunError as error:
        outcome, again = Outcome("failed", error.cause, str(error), error.exit_code), False
    if outcome.message:
        print(f"sslrun: {outcome.message}", flush=True)
    _end(ledger, outcome, requeued=again)
    os.close(lock)
    if again:
        _requeue(ledger, outcome)
    sys.exit(0 if outcome.state in ("stopped", "preempted", "cancelled") else outcome.exit_code)


def _concluded(
    run: RunDir, ledger: Ledger, outcome: Outcome, hopeless: Outcome | None, told: "_Told"
) -> tuple[Outcome, bool]:
    """(how this generation is understood to have ended, whether the run starts again). Raises OSError."""
    generation = ledger.generation
    if run.generation() > generation:  # this node stood still for long, and Slurm has started the run elsewhere
        outcome = Outcome("failed", Superseded.cause, "the run has been started again elsewhere", RunFailed.exit_code)
    elif outcome.state != "done" and not hopeless:
        outcome = _why(run, generation, outcome, told)
    note_commits(run, ledger)
    return (hopeless, False) if hopeless else requeue.decide(run.history(), outcome)


class _Told:
    """That the job is to end, and by which signal; this process lives on and sees the ranks through."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self.ranks_begun = False
        self.began = time.monotonic()
        self._event = threading.Event()
        signal.signal(signal.SIGCONT, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._hear)

    def _hear(self, number: int, _frame: object) -> None:
        self.signal = self.signal or signal.Signals(number).name
        self._event.set()

    def pass_on(self, step: subprocess.Popen, run: RunDir, generation: int, ranks: int) -> None:
        """In a thread: Slurm tells the steps that it knows of; ranks that begin to live after that are told here."""
        self._event.wait()
        missing = ranks - heartbeats.alive(run, generation)
        while missing and step.poll() is None:
            time.sleep(PASS_ON_SECONDS)
            missing = ranks - heartbeats.alive(run, generation)
            step.send_signal(signal.SIGUSR2)  # srun passes it on to the ranks that it has started


def _look(run: RunDir) -> None:
    """Raises OSError where what this start stands on cannot be read."""
    run.history()
    with contextlib.suppress(InputError, FileNotFoundError):  # is said below, in the ledger
        run.spec()
    os.close(opened(run.path / "lock", os.O_RDWR | os.O_CREAT))


def _said(error: SslrunError | OSError) -> str:
    """One line. What failed need not have been a read: a program may be missing, or a disk full."""
    if isinstance(error, SslrunError):
        return str(error)
    return str(SslrunError(f"{error.filename or 'a file'}: {error.strerror or error} (on {os.uname().nodename})"))


def _lock(run: RunDir) -> int | None:
    """The run's lock. After a restart the file server may not yet have forgotten a node that was lost with it."""
    patience = LOCK_SECONDS if int(os.environ.get("SLURM_RESTART_COUNT", 0)) else 0.0
    end = time.monotonic() + patience
    while (lock := run.lock()) is None and time.monotonic() < end:
        time.sleep(LOCK_POLL_SECONDS)
    return lock


def _end(ledger: Ledger, outcome: Outcome, *, requeued: bool) -> None:
    ledger.write("end", state=outcome.state, cause=outcome.cause, message=outcome.message, requeued=requeued)


def _mark(generation: int) -> str:
    """Begins a generation's part of the job's log, which holds one part a start."""
    return f"== start {generation}"


def _how_it_ended_before(run: RunDir) -> str:
    """Why this generation begins: what ended the one before. An end that nobody could write down is written now, with
    Slurm's word for it where the job's log has one."""
    last = run.history().last("start", "end")
    if not last:
        return "submitted"
    if last["event"] == "end":
        return last["cause"]
    cause = requeue.died_of(_log_of(run, last), node_down=_blame_lost_nodes(run, last))
    ended = Outcome("preempted", cause, f"ended without a word: {cause}", 0)
    afterwards = Ledger(run.path, last["generation"], "afterwards")
    note_commits(run, afterwards)
    _end(afterwards, ended, requeued=True)
    return cause


def _blame_lost_nodes(run: RunDir, start: dict[str, Any]) -> bool:
    """Is a node that a generation ran on down now? It is left out of later submissions."""
    with contextlib.suppress(ClusterError):
        down = {node.name for node in commands.nodes() if node.state == "DOWN"}
        if lost := sorted(down & set(notation.expand(start.get("nodes", "")))):
            badnodes.mark(run, lost, "went down while it ran this")
            return True
    return False


def _log_of(run: RunDir, start: dict[str, Any]) -> str:
    """What the job's log says of one generation; empty where it cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        log = Path(run.history().submission(start.get("job"))["folder"]) / f"slurm-{start['job']}.log"
        return files.tail(log).rpartition(_mark(start["generation"]))[2].partition("\n== start ")[0]
    return ""


def _hopeless(run: RunDir) -> Outcome | None:
    """How the run ends if it is not to start again; None where it may. Slurm starts a run again also where nobody here
    decided that: its first node died, say. A start that somebody submitted was decided."""
    history = run.history()
    before = history.before(history.generation)
    last = before.last("end")
    if last.get("writer") != "afterwards" or history.of(history.generation).all("submitted"):
        return None
    judged = History(event for event in before if event is not last)
    outcome, again = requeue.decide(judged, Outcome("failed", last["cause"], last["message"], RunFailed.exit_code))
    return None if again else outcome


def _work(run: RunDir, generation: int, told: _Told) -> Outcome:
    """Start the ranks, once the code is what was submitted and every node can run it. Raises SslrunError."""
    run.refuse_foreign()
    spec = run.spec()
    private.refuse_lost(run.path, spec)
    run.keep_private(spec)
    code = snapshot.verify(run.code_folder(), run.code()["digest"])
    _preflight(run, spec)
    return NOT_BEGUN if told.signal else _ranks(run, spec, code, generation, told)


def _preflight(run: RunDir, spec: RunSpec) -> None:
    """Every node sees the run and has the Python that starts a rank, or the job ends here with the node's name.

    Raises NotStarted where some nodes lack it, or do not answer, and ClusterError where all do.
    """
    patience = min(SEEN_SECONDS, _limit(run) / 10)  # a short job has no minute to give
    command = ["srun", f"--nodes={spec.nodes}", f"--ntasks={spec.nodes}", "--ntasks-per-node=1", "--chdir=/"]
    words = ["sh", "-c", PREFLIGHT, "sslrun", str(run.path), _python(spec)[0], str(int(patience))]
    try:
        answer = subprocess.run(
            [*command, *words], capture_output=True, encoding="utf-8", errors="replace", timeout=PREFLIGHT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise NotStarted(f"a node of {os.environ['SLURM_JOB_NODELIST']} does not start a task") from None
    if answer.returncode:
        print(answer.stderr, flush=True)
        said = sorted(line for line in answer.stdout.splitlines() if line.strip())
        if not said:
            last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
            raise NotStarted(f"starting a task on every node failed: {last}")
        if len(said) < spec.nodes:  # what all of them lack is no node's fault
            for node, _, why in (line.partition(" ") for line in said):
                badnodes.mark(run, [node], why)
            raise NotStarted("; ".join(said[:5]))
        raise ClusterError("; ".join(said[:5]))


def _python(spec: RunSpec) -> list[str]:
    return shlex.split(spec.cluster.python) if spec.cluster.python else [sys.executable]


def _ranks(run: RunDir, spec: RunSpec, code: Path, generation: int, told: _Told) -> Outcome:
    """Start the ranks from `code`, see them through, and say how they ended."""
    cpus = script.cpus_per_task(spec)
    start = Start(
        rank=None,
        local_rank=None,
        world_size=spec.world_size,
        generation=generation,
        stopped_code=0,  # --kill-on-bad-exit must not meet a rank that is still committing
        threads=cpus,
    )
    command = [
        "srun", "--kill-on-bad-exit=1", f"--nodes={spec.nodes}", f"--ntasks={spec.world_size}",
        f"--ntasks-per-node={spec.tasks_per_node}", f"--cpus-per-task={cpus}", "--input=none",
        # From there: srun makes something else of some paths with a % in them, however it is written.
        f"--chdir={run.path / 'logs'}", "--output=rank%t.log", "--error=rank%t.log", "--open-mode=append",
        *_python(spec), "-P", "-m", "launcher.start.worker", str(run.path),
    ]  # fmt: skip
    # Ranks of one node meet where no other node can come.
    alone = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    environment = {
        **(alone if spec.nodes == 1 else {"MASTER_ADDR": socket.gethostname()}),
        **os.environ,
        "MASTER_PORT": str(_free_port()),
        # The first entry is the batch script's: RUN/submit/code, a link. The ranks get the folder that was looked at.
        "PYTHONPATH": os.pathsep.join([str(code), *os.environ.get("PYTHONPATH", "").split(os.pathsep)[1:]]),
        **start.environment(),
        **spec.cluster.environment,
    }
    blamed, printed = None, []
    with handover.secret(run.path, generation, ranks=spec.world_size):
        told.ranks_begun = True
        step = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
        threading.Thread(target=told.pass_on, args=(step, run, generation, spec.world_size), daemon=True).start()
        for line in step.stderr:
            print(line, end="", flush=True)
            printed = [*printed[-20:], line.strip()]
            blamed = blamed or BLAME.search(line)
        exit_code = step.wait()
    first = int(blamed["rank"]) if blamed else None
    last = (printed or [f"exit code {exit_code}"])[-1]
    otherwise = f"rank {first} on {blamed['node']}: {blamed['how']}" if blamed else last
    said = waiting.patiently(run.history).of(generation)
    return judge(said, exit_code, first, f"{otherwise}; see `sslrun logs {run.id} --all`")


def _free_port() -> int:
    """On this node, where rank 0 listens on it once it has loaded its libraries. No connection may be given it before
    that, so it lies below the ports that Linux gives to connections."""
    try:
        end = int(Path(EPHEMERAL).read_text().split()[0])
    except (OSError, ValueError):
        end = 32768
    below = range(FIRST_PORT, end)
    for port in random.sample(below, min(len(below), 100)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _why(run: RunDir, generation: int, outcome: Outcome, told: _Told) -> Outcome:
    """How the end is to be understood, from evidence."""
    said = run.history().of(generation)
    stopped = outcome.state == "stopped"
    state = ", no time to save" if said.all("save_skipped") else ", state saved"
    saved = state if stopped and outcome is not NOT_BEGUN else f"; {outcome.message}"
    found = None
    with contextlib.suppress(ClusterError):  # a controller that does not answer is no reason to end without a word
        found = commands.ended(job.own_id())
    start = said.first("start")
    # While the job ends Slurm calls its state COMPLETING, whatever ended it; the log says more.
    slurms = requeue.ended_by_slurm(_log_of(run, start))
    if slurms == "cancelled" or said.all("cancel"):
        return Outcome("cancelled", "cancelled", f"cancelled{saved}", outcome.exit_code)
    if found and found.preempted:
        slurms = "preempted"
    if slurms and (stopped or causes.of(outcome.cause).may_be_slurms):
        if slurms == "node_failure":
            _blame_lost_nodes(run, start)
        return Outcome("preempted", slurms, f"{slurms.replace('_', ' ')}{saved}", 0)
    if not stopped:
        return stuck(run, outcome)
    signals = {e.get("signal") for e in said.all("stopped_at_safe_point")} or {told.signal}
    left = _limit(run) - (time.monotonic() - told.began)
    if "SIGUSR2" in signals and left < run.plan()["signal_delay_s"] + EARLY_SECONDS:
        return Outcome("preempted", "time_limit", f"the time limit came{saved}", 0)
    names = " and ".join(sorted(filter(None, signals)))
    return Outcome("preempted", "asked", f"told to stop by {names}{saved}", 0)


def _limit(run: RunDir) -> float:
    """Seconds that the job may take: from two times of the controller's clock, which this node's need not follow."""
    with contextlib.suppress(KeyError):  # Slurm before 23.02 does not say
        return float(os.environ["SLURM_JOB_END_TIME"]) - float(os.environ["SLURM_JOB_START_TIME"])
    return 60.0 * run.spec().cluster.timeout_min


def _requeue(ledger: Ledger, outcome: Outcome) -> None:
    """Also after a preemption: a job that exits within the grace is over, whatever PreemptMode says."""
    try:
        job.back_into_the_queue()
    except ClusterError as error:
        stopped = Outcome("stopped", outcome.cause, f"{outcome.message}; not requeued: {error}", outcome.exit_code)
        print(f"sslrun: {stopped.message}", flush=True)
        _end(ledger, stopped, requeued=False)
