"""The run directory: the only truth about a run.

    <runs>/<id>/
        spec.json  plan.json       frozen at submission
        private.json               the values of cluster.environment, for its owner; see private.py
        placement.json             where it runs since somebody moved it, and the plan for that; see `place`
        code -> ../.code/DIGEST    the code that runs; see snapshot.py
        environment                -> ../.environments/DIGEST, with cluster.local_env; see start/packed.py
        submit/                    the batch script, the pickle and Slurm's log; see submit.py
        events/                    the ledger: one append-only file a writer and generation, merged on reading
        pinned/init_from/step_...  the checkpoints that it starts from; see pins.py
        metrics.jsonl              one line every log_every steps
        progress.json              what is being done right now, replaced whole
        checkpoints/step_00000300/ committed by one rename; see runtime/checkpoint.py
        features/step_00000400/    of a clustering that is under way or was stopped; see runtime/store.py
        logs/rank0.log ...         stdout and stderr of each rank
        heartbeats/rank0.json ...  a sign of life of each; see runtime/health.py
        evals/knn-1/               an evaluation as a job of its own: a folder like this one; see evaluation.py
        evals/lock                 held by whoever looks for one or makes one, for an instant
        tensorboard/  clusters.png
        clusters/                  of `sslrun kmeans`, which has no checkpoints; see methods/kmeans/results.py
        first_node_lost            why its job went back into the queue; see plan/steps.py
        secret.1                   while a start lasts: by it its ranks recognise one another; see start/handover.py
        lock                       held (flock) by whoever runs the run

A generation is one start of the run: the first is 1, each resume adds one. Time stamps are for people: what came first
is decided by generations, by jobs, and by the place of a line in its file, because machines' clocks differ.
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from launcher.errors import InputError
from launcher.run import files, manifest, permissions, pins, private, slow_ranks, snapshot
from launcher.run.files import opened, read_json, sync_names, write_json, writing_in
from launcher.run.goodput import goodput, interruptions, spares
from launcher.run.ledger import History, Ledger, goes_on
from launcher.run.manifest import STEP
from launcher.run.shapes import PLACEMENT, PLAN, PROGRESS
from launcher.run.snapshot import Snapshot
from launcher.run.state import Queue, State, of
from launcher.spec import paths, registry, stored
from launcher.spec.planned import Planned
from launcher.spec.runspec import RunSpec

ENVIRONMENTS = ".environments"  # beside the runs: see start/packed.py
LISTED = 6
SILENT_SECONDS = 600.0  # after which a run of somebody else is not taken for one that works


class RunDir:
    """One run's folder. Reading it needs no torch and changes nothing."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    @property
    def id(self) -> str:
        """Its folder's name; RUN/evals/NAME for an evaluation."""
        return str(self.path.relative_to(self.runs))

    @property
    def typed(self) -> str:
        """What names it to a command that is typed in this folder: its id where that looks for it, else its path."""
        return shlex.quote(self.id if self.runs == paths.absolute("runs") else str(self.path))

    @property
    def runs(self) -> Path:
        """The folder of runs that it lies in."""
        return (self.owner or self).path.parent

    @property
    def owner(self) -> "RunDir | None":
        """The run that an evaluation is one of; None for a run in its own right."""
        evaluates = self.path.parent.name == "evals" and (self.path / "eval.json").exists()
        return RunDir(self.path.parents[1]) if evaluates else None

    def create(self, spec: RunSpec, plan: Planned, take: Callable[[], Snapshot]) -> None:
        """Make the folder and freeze in it the spec and the code that `take` takes; one that is there stays as it is.

        Raises InputError where one cannot write, or where not even one checkpoint would fit.
        """
        self.keep_private(spec)
        permissions.refuse_foreign_group(spec.group)
        with writing_in(self.path.parent):
            new = [p for p in (self.path.parent, *self.path.parent.parents) if not p.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for folder in new:
                permissions.share(folder, spec.group)
            free = shutil.disk_usage(self.path.parent).free / 1e9
            if free < plan.disk_gb:
                reason = f"a checkpoint takes {plan.disk_gb:.3f} GB and the disk has {free:.3f} GB free"
                raise InputError.of("runs", self.path.parent, reason, "choose another folder with runs=PATH")
            for name in ("", "events", "checkpoints", "logs"):
                (self.path / name).mkdir(exist_ok=True)
                permissions.refuse_foreign(self.path / name, "choose a folder of your own with runs=PATH")
                permissions.share(self.path / name, spec.group)
            if not (self.path / "spec.json").exists():
                if not self.owner:  # an evaluation judges its run's own
                    pins.lay(self.path, spec)
                self.adopt(take())
                self.freeze(spec, plan)
                for folder in (self.path, *new):
                    sync_names(folder.parent)

    def freeze(self, spec: RunSpec, plan: Planned) -> None:
        """Write down what it is made of."""
        write_json(self.path / "plan.json", plan.to_json())
        write_json(self.path / "spec.json", self._apart(spec).to_json())  # last: a folder with a spec is complete

    def _apart(self, spec: RunSpec) -> RunSpec:
        """As files of the run have it. Code of long ago, which some runs have, looks for all of it there."""
        rooms = self.code_folder() / "launcher" / "run"
        before = rooms.is_dir() and not (rooms / "private.py").is_file()
        return spec if before else private.apart(self.path, spec)

    def keep_private(self, spec: RunSpec) -> None:
        """What this process writes from now on is the user's alone, or readable by the spec's group."""
        os.umask(0o027 if spec.group else 0o077)

    def refuse_foreign(self, fix: str = "choose a folder of your own with runs=PATH") -> None:
        """Raises InputError where it belongs to somebody else: what starts a run does all that its spec says."""
        permissions.refuse_foreign(self.path, fix)

    def spec(self) -> RunSpec:
        """What it is made of, as submitted, and where it runs now. Raises InputError when somebody edited it."""
        try:
            spec, moved = stored.read(read_json(self.path / "spec.json")), self._placement()
            return private.together(self.path, spec.placed(moved) if moved else spec)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.path}/spec.json: {error}; start a new run instead of editing this one") from None

    def plan(self) -> dict[str, Any]:
        """As `create`, or `place`, wrote it down; runs made before may lack keys."""
        moved = self._placement()
        return moved["plan"] if moved else PLAN.read(self.path / "plan.json")

    def place(self, spec: RunSpec, plan: Planned) -> None:
        """Run where `spec` says from the next start on; the ledger says since when, spec.json stays as it is.

        The caller holds the lock and knows that no job has the run.
        """
        before = self.spec()
        write_json(self.path / "placement.json", self._apart(spec).placement(plan.to_json()))
        pen = Ledger(self.path, self.generation() + 1, "submit")
        pen.write("placed", **_where(spec), changes=before.moves(spec))

    def standing(self) -> Callable[[], None]:
        """What puts it back where it stands now: where it runs, and which code. For a start that is refused."""
        placement, code = self._placement(), self.history().last("code")
        target = os.readlink(self.code_folder()) if self.code_folder().is_symlink() else None

        def restore() -> None:
            here, pen = self.spec(), Ledger(self.path, self.generation() + 1, "submit")
            if placement != self._placement():
                if placement:
                    write_json(self.path / "placement.json", placement)
                else:
                    (self.path / "placement.json").unlink()
                there = self.spec()
                pen.write("placed", **_where(there), changes=here.moves(there))
            if code and target and code != self.history().last("code"):
                snapshot.link(self.path, self.path / target)
                pen.write("code", digest=code["digest"], origin=code["origin"])

        return restore

    def _placement(self) -> dict[str, Any] | None:
        with contextlib.suppress(FileNotFoundError):
            return PLACEMENT.read(self.path / "placement.json")
        return None

    # -- the code that it runs -------------------------------------------------------------------------------------

    def adopt(self, code: Snapshot) -> None:
        """Run `code` from the next start on; the ledger says since when."""
        snapshot.link(self.path, code.path)
        Ledger(self.path, self.generation() + 1, "submit").write("code", digest=code.digest, origin=code.origin)

    def code_folder(self) -> Path:
        """What goes before everything else on the ranks' PYTHONPATH."""
        return self.path / "code"

    def code(self) -> dict[str, Any]:
        """The ledger's last word on the code: digest, origin. Raises InputError where it has none."""
        taken = self.history().last("code")
        if not taken:
            fix = "`sslrun resume RUN --code=current` takes the code as it is now"
            raise InputError(f"{self.path}/events: the ledger does not say which code to run; {fix}")
        return taken

    # -- the ledger ----------------------------------------------------------------------------------------------

    def history(self) -> History:
        return History.read(self.path)

    def first_fix(self) -> str:
        return self.history().first_fix(self.typed)

    def generation(self) -> int:
        """Number of times the run was started."""
        return self.history().generation

    def state(self, queue: Queue | None = None) -> State:
        """Where it stands: from the ledger, the lock and, where given, Slurm's queue."""
        held = self.held()  # before the ledger: whoever lets go of the lock has written the end
        history = self.history()
        slurm = False
        if not history.last("start", "submitted"):
            with contextlib.suppress(InputError, OSError):  # whoever asks for the spec itself is told
                slurm = self.spec().cluster.kind == "slurm"
        return of(history, held=held, queue=self._mine(queue), slurm=slurm)

    def _mine(self, queue: Queue | None) -> Queue | None:
        """The queue holds the user's own jobs: of a colleague's run it says nothing."""
        return queue if self.path.stat().st_uid == os.getuid() else None

    # -- the one writer ------------------------------------------------------------------------------------------

    def lock(self) -> int | None:
        """Become the run's writer: a descriptor that holds the lock until it is closed, or None: someone has it."""
        with writing_in(self.path.parent):
            descriptor = opened(self.path / "lock", os.O_RDWR | os.O_CREAT)
            with contextlib.suppress(PermissionError):  # somebody else's, or a file system that has no modes
                os.fchmod(descriptor, 0o600)  # whoever may open it may keep its owner out
        taken = False
        try:
            for _ in range(10):  # `held()` has it for an instant, a killed writer until it is reaped
                if taken := files.lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, self.runs):
                    return descriptor
                time.sleep(0.1)
            return None
        finally:
            if not taken:
                os.close(descriptor)

    def refuse_second_writer(self) -> None:
        """Raises InputError when somebody runs it."""
        if self.held():
            start = self.history().last("start")
            who = f"job {start['job']}" if start.get("job") else f"process {start.get('pid', '?')}"
            reason = f"{who} on {start.get('host', '?')} runs it, and a run has one writer"
            raise InputError.of("RUN", self.id, reason, f"`sslrun cancel {self.typed}` stops it")

    def held(self) -> bool:
        """Does some process hold the lock? Of somebody else's run: has it given a sign of life lately?"""
        try:
            descriptor = opened(f"{self.path}/lock")
        except FileNotFoundError:
            return False
        except PermissionError:
            return self._spoke_lately()
        try:
            return not files.lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, self.runs)
        finally:
            os.close(descriptor)

    def _spoke_lately(self) -> bool:
        """Only the owner may open the lock. So here a clock is read, and only to tell a person."""
        newest = 0.0
        for sign in ("progress.json", *glob("heartbeats/rank*.json", root_dir=self.path)):
            with contextlib.suppress(OSError):
                newest = max(newest, os.lstat(f"{self.path}/{sign}").st_mtime)
        return time.time() - newest < SILENT_SECONDS

    # -- what a person asks --------------------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Committed checkpoints, oldest first. Temporary and quarantined ones have other names. Raises OSError where
        their folder cannot be read: that there are none would have a run begin anew."""
        folder = self.path / "checkpoints"
        return [folder / name for name in files.names(folder) if STEP.fullmatch(name)]

    def progress(self) -> dict[str, Any]:
        """What the run is doing, as rank 0 last said; empty before it spoke."""
        with contextlib.suppress(OSError, ValueError):
            return PROGRESS.read(self.path / "progress.json")
        return {}

    def doing(self, state: str, history: History) -> dict[str, Any]:
        """`progress`, but for a run that works and whose latest start has not spoken yet: of that it is known that it
        is starting. What the start before said last, that it stopped, say, is over."""
        said, last = self.progress(), history.last("submitted", "start", "end")
        # Runs made before do not say which start speaks.
        spoken = said and said.get("generation", last.get("generation")) == last.get("generation")
        begun = last.get("event") != "submitted" and not goes_on(last)
        if state != "running" or (spoken and begun):
            return said
        setup: Sequence[str] = ()
        if not begun and not last.get("in_place"):  # the job's script has not come to the run
            with contextlib.suppress(InputError, OSError):  # whoever asks for the spec itself is told
                setup = self.spec().cluster.setup
        return {"stage": "setting up" if setup else "starting"}

    def spoke(self) -> float:
        """When rank 0 last said what the run is doing, in seconds since the epoch; 0 before it spoke."""
        with contextlib.suppress(OSError):
            return (self.path / "progress.json").stat().st_mtime
        return 0.0

    def summary(self, queue: Queue | None = None, *, digest: bool = True) -> dict[str, Any]:
        """The JSON of `sslrun show`. Raises InputError when the spec was edited."""
        held = self.held()
        spec, history = self.spec(), self.history()
        slurm = spec.cluster.kind == "slurm"
        state = of(history, held=held, queue=self._mine(queue), slurm=slurm)
        progress = self.doing(state.name, history)
        saved = self.checkpoints()
        newest = manifest.read(saved[-1]) if saved else {}
        # What is saved of a training counts. An evaluation says what it judges; what trains nothing has no checkpoints.
        trains = registry.method(spec.method.name).trains
        begun = spec.continue_from.step if spec.continue_from else 0
        step = newest.get("step", begun)
        step = step if digest and trains and not self.owner else max(step, progress.get("step", 0))
        health = {e.get("of"): e["what"] for e in history.all("health")}
        gpus = spec.tasks_per_node if spec.cluster.gpus_per_node else 0
        interrupted = interruptions(history, spec.nodes * gpus)
        ranks, left_out = history.last("start").get("world_size"), history.all("left_out")
        evals: dict[str, Any] = {}
        found = newest.get("digest")
        # The latest step's stand: an evaluation as a job of its own may look at an older one.
        for event in history.judged():
            evals[event["protocol"]] = event["scores"]
            if not trains:
                found = event.get("digest")
        return {
            "id": self.id,
            "path": str(self.path),
            "method": spec.method.name,
            "state": state.name,
            "job": state.job,
            "suspended": state.suspended,
            "step": step,
            "steps": progress.get("steps") or newest.get("steps") or self.plan()["steps"],
            **({"state_digest": found, "where": _where(spec)} if digest else {}),
            "checkpoint": str(saved[-1]) if saved else None,
            **({"continues": _continues(spec)} if spec.continue_from else {}),
            "world_size": ranks,  # of its latest start
            "granted_nodes": ranks and -(-ranks // spec.tasks_per_node),  # those that it took
            "asked_nodes": spec.asked_nodes,
            "restarts": dict(Counter(e["cause"] for e in history.after(1).all("start"))),
            "lost_steps": history.lost_steps,
            "goodput": goodput(history, step - begun),
            "in_place": sum(each["in_place"] for each in interrupted),
            "interruptions": interrupted,
            "left_out": [{"node": e["node"], "why": e["why"], "start": e["generation"]} for e in left_out],
            "spares": spares(history, gpus, self.spoke() if state.name == "running" else 0.0),
            "evals": evals,
            "health": "; ".join(filter(None, health.values())),
            **slow_ranks.summary(history, state.name, slurm=slurm, exclude=spec.cluster.exclude),
            "message": state.message or state.why_pending,
            "cause": history.of(history.generation).last("end").get("cause", ""),  # of its latest start's end
        }


def _where(spec: RunSpec) -> dict[str, Any]:
    """What it asks for; how much of a range of nodes a start was granted, that start says."""
    also = {"least_nodes": spec.least_nodes, "spare_nodes": spec.cluster.spare_nodes}
    given = {name: value for name, value in also.items() if value}
    return {"cluster": spec.cluster.name, "nodes": spec.nodes, **given, "tasks_per_node": spec.tasks_per_node}


def _continues(spec: RunSpec) -> dict[str, Any]:
    return {name: getattr(spec.continue_from, name) for name in ("run", "step", "epochs")}


def find(name: str, runs: Path) -> RunDir:
    """The run that a person means: a path, an id, or the unique beginning of one, before the /evals/ of an evaluation,
    too. Raises InputError otherwise."""
    for path in (paths.absolute(name), runs / name):
        if (path / "spec.json").is_file():
            return RunDir(paths.led_to(path))
    beginning, _, judged = name.partition("/evals/")
    matches = there = [run for run in every(runs, beginning) if run.id.startswith(beginning)]
    if judged and len(matches) == 1:
        there = [RunDir(path.parent) for path in matches[0].path.glob("evals/*/spec.json")]
        matches = [evaluation for evaluation in there if evaluation.path.name == judged]
    if len(matches) == 1:
        return matches[0]
    why, fix = ("several runs begin like this", "they are") if matches else ("there is no such run", "runs there:")
    listed = ", ".join(sorted(run.id for run in matches or there or every(runs))[:LISTED]) or "none"
    raise InputError.of("RUN", name, f"{why} in {runs}", f"{fix} {listed}")


def every(runs: Path, beginning: str = "") -> Iterator[RunDir]:
    """All runs of a folder; without those that are called otherwise, unless a link leads to them."""
    for name in files.names(runs):
        path = f"{runs}/{name}"
        if (name.startswith(beginning) or os.path.islink(path)) and os.path.exists(f"{path}/spec.json"):
            yield RunDir(paths.led_to(runs / name))
