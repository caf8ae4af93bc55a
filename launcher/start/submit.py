"""Runs -> jobs in Slurm's queue, each exactly once.

Before sbatch is called, an `intent` with a token goes into the ledger of every run, and the token goes with the job as
its comment; afterwards the job's id. Whoever finds an intent without a job asks the queue for its token: the job is
there (and is taken over), or there is none. Submitters of one folder take turns, and sbatch keeps the turn while it
lives, so nobody looks before the answer is known.
"""

import bisect
import contextlib
import errno
import fcntl
import os
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.errors import ClusterError, InputError
from launcher.plan import script
from launcher.run import files, private, snapshot
from launcher.run.files import opened, writing_in
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.permissions import make_private
from launcher.run.state import ACTIVE, State
from launcher.slurm import badnodes, client, commands, limits, queue
from launcher.spec.planned import Planned
from launcher.spec.runspec import RunSpec
from launcher.start import chain, packed

NOT_NOW = "node configuration is not available"


@dataclass(frozen=True)
class Submitted:
    """`joined`: the run was in the queue already. `note`: what to tell a person about where it will run, or wait.
    `full`: why Slurm takes no more jobs for now; then the run has none, and is submitted when somebody asks again."""

    job: str | None
    joined: bool
    note: str = ""
    full: str = ""


def check(spec: RunSpec, plan: Planned) -> None:
    """Refuse what the queue would never start. Raises InputError with the field, or ClusterError with Slurm's words."""
    limits.check(spec)
    if spec.cluster.local_env:
        packed.of_ranks(spec, Path(spec.runs))
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script.of(spec, plan.signal_delay_s))
        file.flush()
        for again in (True, False):
            try:
                commands.test_only(Path(file.name), _exclude(spec)[0], environment=client.environment())
                return
            except ClusterError as error:
                if limits.full(error):  # it will be taken once other jobs have ended
                    return
                # Slurm's test asks whether the job could start on the nodes of this minute; a job may wait for others.
                not_now = NOT_NOW in str(error)
                if not_now and limits.away(spec):
                    return
                # They may have come back between the two questions: a node that is resumed is away for half a second.
                if not (not_now and again):
                    raise limits.explained(error, spec) from None


def amend(run: RunDir, spec: RunSpec, plan: Planned) -> bool:
    """Let a run that never began, and that no job has, take from `spec` what is not its science; True when it did.

    Else a run that Slurm refused would keep what it was refused for. Raises InputError or ClusterError as `check` does.
    """
    run.keep_private(spec)
    with _turn(run.path.parent):
        history = run.history()
        asked = history.job or history.open_intent
        if run.generation() or run.held() or (asked and settle(run, commands.jobs()).job):
            return False
        if spec.cluster.kind == "slurm":
            refuse_unknown(run, spec)
            check(spec, plan)
        run.freeze(replace(spec, group=run.spec().group), plan)
        (run.path / "placement.json").unlink(missing_ok=True)
    return True


def refuse_unknown(run: RunDir, spec: RunSpec) -> None:
    """Raises InputError where the code that the run was made with knows no ranges of nodes, no spare ones, no copies of
    the environment, or no options of srun."""
    rooms = run.code_folder() / "launcher"
    nodes = {"nodes": spec.least_nodes and spec.asked_nodes, "cluster.spare_nodes": spec.cluster.spare_nodes}
    listed = {key: f"[{','.join(map(str, v))}]" if isinstance(v, tuple) else v for key, v in spec.cluster.srun.items()}
    since = {
        "plan/worlds.py": nodes,
        "start/unpacking.py": {"cluster.local_env": spec.cluster.local_env},
        "plan/containers.py": {f"cluster.srun.{key}": value for key, value in listed.items()},
    }
    for file, asked in since.items():
        given = next(((name, value) for name, value in asked.items() if value), None)
        if given and rooms.is_dir() and not (rooms / file).is_file():
            words = shlex.join(f"{name}={value}" for name, value in asked.items() if value)
            fix = f"`sslrun resume {run.typed} --code=current {words}`"
            raise InputError.of(*given, f"the code that {run.id} was made with does not know it", fix)


def move(run: RunDir, spec: RunSpec, plan: Planned) -> None:
    """Let the run go on where `spec` says from its next start on.

    Raises InputError where a process or a job has it: that one has its nodes already. ClusterError where a job may have
    it and Slurm does not answer.
    """
    with _turn(run.path.parent):
        asked = run.history().open_intent or run.state().job
        job = settle(run, commands.jobs()).job if asked else None
        if job:
            fix = f"`sslrun cancel {run.typed}` first"
            raise InputError.of("RUN", run.id, f"job {job} has it, on nodes of its own", fix)
        lock = run.lock()
        if lock is None:
            run.refuse_second_writer()
            raise InputError.of("RUN", run.id, "somebody has just started it", f"`sslrun cancel {run.typed}` stops it")
        try:
            run.place(spec, plan)
        finally:
            os.close(lock)


def submit(runs: Sequence[RunDir], *, name: str = "", show: packed.Show | None = None) -> dict[str, Submitted]:
    """Put every run that is neither queued, running nor done into the queue; several that are alike as one array. One
    that needs the end of other runs waits behind their jobs, and those that need its end wait behind its own.

    name: of the array's jobs. show: as packed.into has it. Returns what became of each run, by its id. Where no more
    jobs may be in the queue, as many are submitted as it takes.

    Raises ClusterError when Slurm refuses for another reason or does not answer, InputError when the code is not what
    was taken, the disk is full, or nobody runs what a run waits for; runs submitted before that keep their jobs.
    """
    outcome: dict[str, Submitted] = {}
    folder = runs[0].path.parent
    with writing_in(folder, "free some space, or choose another folder with runs=PATH"), _turn(folder) as lock:
        jobs = commands.jobs()
        waiting = []
        for run in runs:
            run.refuse_foreign()
            private.refuse_lost(run.path, run.spec())
            state = settle(run, jobs)
            if state.name in (*ACTIVE, "done") and (state.job or state.name != "pending"):
                outcome[run.id] = Submitted(state.job, joined=True)
            else:
                waiting.append(run)
        before = chain.before(waiting, jobs)
        queue.blame(waiting)
        notes = packed.into([run for run in waiting if run.spec().cluster.local_env], show)
        for alike in _alike(waiting, before):
            snapshot.verify(alike[0].code_folder(), alike[0].code()["digest"])
            jobs_before = before.get(alike[0].id, [])
            if jobs_before:
                chain.announce(alike)
            outcome |= _submit_alike(alike, name, jobs_before, lock)
        late = chain.outdated([run for run in waiting if run.id in outcome], before)
        _follow([run for run in runs if run.id in outcome], late, outcome)
    told = {id: "\n".join(filter(None, (given.note, notes.get(id)))) for id, given in outcome.items()}
    return {id: replace(given, note=told[id]) for id, given in outcome.items()}


def _follow(runs: Sequence[RunDir], late: Sequence[RunDir], outcome: dict[str, Submitted]) -> None:
    """See to it that what waits for these runs waits for the jobs that they have now, and say so in `outcome`; and that
    those `late`, and those that joined, wait for the right ones. Whoever submitted them may not have lived to do so."""
    followers = {run.id: chain.followers(run) for run in runs}
    joined = [run for run in runs if outcome[run.id].joined]
    try:
        moved = chain.follow([*late, *joined, *(each for some in followers.values() for each in some)])
    except ClusterError as error:  # the runs are in the queue all the same
        said = f"what waits for {runs[0].id} does not follow it yet ({error}); type the same again"
        outcome[runs[0].id] = replace(outcome[runs[0].id], note=said)
        return
    for run in runs:
        follows = [f"{each.id} (job {moved[each.path]})" for each in followers[run.id] if each.path in moved]
        if follows:
            note = "\n".join(filter(None, (outcome[run.id].note, f"behind it: {chain.listed(follows)}")))
            outcome[run.id] = replace(outcome[run.id], note=note)


def settle(run: RunDir, jobs: Mapping[str, commands.SlurmJob]) -> State:
    """Where the run stands, after an intent that its submitter did not live to complete has been looked up."""
    intent = run.history().open_intent
    if intent:
        ledger = Ledger(run.path, intent["generation"], "submit")
        found = _find(intent, jobs)
        if found:
            ledger.write("submitted", job=found, token=intent["token"], folder=intent["folder"])
        else:
            ledger.write("withdrawn", token=intent["token"], why="no job has its token")
    return run.state(jobs)


def _find(intent: Mapping[str, Any], jobs: Mapping[str, commands.SlurmJob]) -> str | None:
    ids = [job for job, found in jobs.items() if found.comment == _comment(intent["token"])]
    if intent["index"] is not None:
        ids = [job for job in ids if job.endswith(f"_{intent['index']}")]
    return ids[0] if ids else None


def _comment(token: str) -> str:
    return f"sslrun:{token}"


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[int]:
    """One submitter a folder of runs at a time; yields the descriptor that sbatch inherits."""
    descriptor = opened(folder / ".submit.lock", os.O_RDWR | os.O_CREAT)
    try:
        files.lock(descriptor, fcntl.LOCK_EX, folder)
        yield descriptor
    finally:
        os.close(descriptor)


def _alike(runs: Sequence[RunDir], before: Mapping[str, Sequence[str]]) -> list[list[RunDir]]:
    """Runs that one array can hold: the same nodes, queue and code, behind the same jobs."""
    groups: dict[Any, list[RunDir]] = {}
    for run in runs:
        key = repr(({**_parameters(run, Path()), "job_name": None}, run.code()["digest"], before.get(run.id)))
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _parameters(run: RunDir, folder: Path) -> dict[str, Any]:
    """What submitit is told for the run's job."""
    return script.parameters(run.spec(), folder=folder, signal_delay_s=run.plan()["signal_delay_s"])


def _submit_alike(runs: Sequence[RunDir], name: str, before: Sequence[str], lock: int) -> dict[str, Submitted]:
    """One job, or one array, or several where Slurm takes no array that long, that wait for the jobs `before`."""
    largest = max(1, int(commands.config().get("MaxArraySize", 1))) if len(runs) > 1 else 1
    one_by_one = ""
    left_out, note = _exclude(runs[0].spec())
    note = "\n".join(filter(None, (note, limits.waits(runs[0].spec()))))
    outcome: dict[str, Submitted] = {}
    for first in range(0, len(runs), largest):
        part = runs[first : first + largest]
        depends = script.dependency(before, also=one_by_one)
        jobs, full = _submit_part(part, name, [*left_out, *depends], lock)
        outcome |= {run.id: Submitted(job, joined=False, note=note) for run, job in zip(part, jobs, strict=False)}
        if full:
            left = [run.id for run in runs if run.id not in outcome]
            return outcome | dict.fromkeys(left, Submitted(None, joined=False, full=full))
        if runs[0].spec().cluster.array_parallelism < len(runs):
            # Several arrays together must not run more points at once than one would: each waits for the one before.
            one_by_one = f"afterany:{jobs[0].partition('_')[0]}"
    return outcome


def _submit_part(runs: Sequence[RunDir], name: str, options: Sequence[str], lock: int) -> tuple[list[str], str]:
    """(the jobs of as many of the first runs as the queue takes, why it takes no more or "")."""
    from launcher.start.executor import Executor, Named  # submitit takes a tenth of a second

    token, spec = uuid.uuid4().hex, runs[0].spec()
    folder = runs[0].path / "submit" if len(runs) == 1 else runs[0].path.parent / ".arrays" / token
    make_private(folder)
    snapshot.link(folder, runs[0].code_folder())
    parameters = _parameters(runs[0], folder)
    if runs[0].owner:  # an evaluation: its spec is its run's
        parameters["job_name"] = script.job_name(runs[0].id)
    if len(runs) > 1:
        log = parameters["additional_parameters"]["output"].replace("%j", "%A_%a")
        parameters |= {"job_name": script.job_name(name or spec.method.name)}
        parameters["additional_parameters"] |= {"output": log}
    pens = [Ledger(run.path, run.generation() + 1, "submit") for run in runs]
    for index, pen in enumerate(pens):
        pen.write("intent", token=token, index=index if len(runs) > 1 else None, folder=str(folder))
    for run in runs:
        if run.history().open_intent.get("token") != token:  # a job that nobody could find again
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    given = [f"--comment={_comment(token)}", *options]
    executor = Executor(folder, parameters, options=given, lock=lock, python=script.python_of(spec.cluster))
    main = Named(f"{snapshot.module(runs[0].code_folder(), 'launcher.start.batch')}:main")
    try:
        if len(runs) == 1:
            jobs = [executor.submit(main, str(runs[0].path)).job_id]
        else:
            jobs = [job.job_id for job in executor.map_array(main, [str(run.path) for run in runs])]
    except ClusterError as error:
        gone = False
        with contextlib.suppress(ClusterError):  # it may be there all the same; who cannot ask leaves the intent open
            gone = not any(job.comment == _comment(token) for job in commands.jobs().values())
            if gone:
                for pen in pens:
                    pen.write("withdrawn", token=token, why=str(error))
        full = limits.full(error) if gone else ""
        if not full:
            raise limits.explained(error, spec) from None
        fitting = _fitting(folder / "script.sh", options, len(runs))
        if len(runs) > 1:
            shutil.rmtree(folder)
        return (_submit_part(runs[:fitting], name, options, lock)[0] if fitting else []), full
    for pen, job in zip(pens, jobs, strict=True):
        pen.write("submitted", job=job, token=token, folder=str(folder))
    return jobs, ""


def _fitting(file: Path, options: Sequence[str], refused: int) -> int:
    """The most tasks of an array, fewer than `refused`, that Slurm would take now.

    The limits are those of an account, of all above it, of a QOS and of a partition's, and count other people's jobs,
    too: only Slurm can tell.
    """

    def too_many(tasks: int) -> bool:
        try:
            commands.test_only(file, [*options, f"--array=0-{tasks - 1}"], environment=client.environment())
        except ClusterError as error:  # for another reason: nodes are away, say
            return bool(limits.full(error))
        return False

    return bisect.bisect_left(range(1, refused), True, key=too_many)


def _exclude(spec: RunSpec) -> tuple[list[str], str]:
    """(options that leave out nodes which failed lately, what to tell a person about them)."""
    nodes, note = badnodes.excluded(spec)
    return [f"--exclude={','.join(nodes)}"] if nodes else [], note
