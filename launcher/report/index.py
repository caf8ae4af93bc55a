"""Rows about all runs of a folder, fast: what does not work is read once and remembered (remembered.py).

The index is derived: it may be deleted, corrupted or unwritable at any time, and the answer stays the same. A row is
believed only while its run's files look exactly as they did when it was made and, where a job may have the run, only
while Slurm's queue says of that job what it said then. A run that works, or waits for another, is always read anew.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.errors import SslrunError
from launcher.report import behind, readonce, remembered
from launcher.report.readonce import ReadOnce
from launcher.report.remembered import PARTS, IndexFile, Remembered
from launcher.run import files, folder, goodput, ledger, manifest, shapes, slow_ranks, state
from launcher.run.at_once import Show, at_once, shown
from launcher.run.files import cache_folder
from launcher.run.folder import RunDir
from launcher.run.state import ACTIVE, Queue
from launcher.slurm import commands, queue
from launcher.spec import fields, runspec, schema, stored
from launcher.spec.runspec import FromRun, RunSpec

TOLD = ("submitted", "start")
PART = 64  # runs that a thread takes at once
PORTION = 2048  # runs after which what was read of them is remembered: whoever interrupts a first look keeps that

# What each row holds; the values are those of a run of which nothing is known.
EMPTY: dict[str, Any] = {
    "id": "", "path": "", "method": "?", "state": "failed", "job": None, "step": 0, "steps": 0,
    "checkpoint": None, "restarts": {}, "lost_steps": 0, "goodput": None, "interruptions": [], "evals": {},
    "world_size": None,  # ranks of its latest start
    "suspended": None,  # since when its job is; as expected_start
    "granted_nodes": None,  # of that start: of a range it may be fewer than the largest count
    "asked_nodes": "",  # 4, or 4-8
    "in_place": 0,  # restarts in the same job
    "left_out": [],  # nodes: node, why, the start that left it out
    "spares": None,  # what nodes in reserve brought and cost
    "message": "",
    "cause": "",  # for which its latest start ended: one of run/causes.py
    "health": "",  # what is wrong with what it learns
    "slow_ranks": [],  # that the others wait for in each step
    "leave_out": "",  # the override of `resume` that leaves their nodes out
    "stage": None,  # what it is doing: training, clustering, k-NN
    "loss": None,
    "images_per_s": None,
    "seconds_left": None,  # of the run, as it last said itself
    "foreseen": None,  # seconds to its end, p10, p50 and p90, with what may befall it; see ahead.py
    "checkpoint_step": None,
    "checkpoint_time": None,  # seconds since 1970, as all times here
    "started": None,  # its last start
    "nodelist": "",  # where it runs or ran last
    "why_pending": "",
    "expected_start": "",  # ISO 8601, in the cluster's time zone
    "job_left": "",  # of the job's time limit, [days-]hours:minutes:seconds
    "lost_job": None,  # a job that is gone and of which the ledger has no end
    "behind": [],  # runs whose end it needs: run, path, state, step
    "awaited_by": [],  # its evaluations that need its end: id, and behind, as of a run
}  # fmt: skip

GONE = repr(None)  # what the queue says of a job that it does not have
SCORES = ("protocol", "step", "scores", "by", "data")  # of the events that judged a run


@dataclass(frozen=True)
class RunRow:
    """`facts`: the keys of EMPTY. `config`: the run's spec, where it runs now. `work`: `seconds` and `gpu_seconds`, of
    all its starts, `judged`, the SCORES of what judged its step, its spec's `eval_after`, and whether others ever
    `awaited` its end. Both are empty unless they were asked for. `damaged`: it could not be read; its message says why.
    """

    facts: dict[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    work: Mapping[str, Any] = field(default_factory=dict)
    damaged: bool = False


@dataclass(frozen=True)
class _Reading:
    """What a run's files, and the queue where it was asked, said at one time. `row`: None where the run went away."""

    run: RunDir
    signature: bytes | None
    row: RunRow | None = None
    job: str | None = None  # that it was last given to
    final: bool = False  # nothing but a new file, or a longer one, can change it
    behind: bool = False  # the end of others


class RunIndex:
    """`config`, `work`: whether rows carry these, each of which doubles what is to be read of the index. `only`: names
    of the runs that are asked for, where not all are."""

    def __init__(self, runs: Path, *, config: bool = False, work: bool = False, only: Collection[str] | None = None):
        self.runs, self._only = runs.resolve(), only
        self._parts = [name for name, asked in zip(PARTS, (True, config, work), strict=True) if asked]
        self._memory = IndexFile(place(self.runs), _version)
        self._known: dict[str, Remembered] | None = None

    def rows(self, show: Show | None = None) -> tuple[list[RunRow], str]:
        """(a row a run, by id; why the queue could not be asked, or ""). A damaged run is a row that says so."""
        found, trouble = self.by_name(show)
        return [row for _, row in sorted(found.items())], trouble

    def by_name(self, show: Show | None = None) -> tuple[dict[str, RunRow], str]:
        """The same by what the runs are called in this folder."""
        linked = self._folders()
        if self._known is None:
            self._known = self._memory.load(self._parts, self._only) if linked else {}
        known = self._known
        plain = [name for name, link in linked.items() if not link]  # a link may lead somewhere else tomorrow
        seen = shown(at_once(self._look, plain, PART), "looking at runs", len(plain), show)
        looks = dict(zip(plain, seen, strict=True))
        same = [name for name, look in looks.items() if look and name in known and known[name].signature == look]
        rows = {name: self._row(name, known[name]) for name in same}
        unknown = [name for name in linked if name not in rows and os.path.exists(f"{self.runs}/{name}/spec.json")]
        readings = self._read(unknown, looks, rows, show)
        unfinished = [name for name, row in rows.items() if row.facts["state"] != "done"]
        found = [*at_once(lambda name: behind.evaluations(RunDir(self.runs / name)), unfinished, PART)]
        judging = dict(zip(unfinished, found, strict=True))
        jobs, trouble = self._ask_queue(rows, readings, looks, itertools.chain(*found))
        judging = {name: behind.waiting(some, jobs) for name, some in judging.items() if some}
        pending = {name: reading.run for name, reading in readings.items() if rows[name].facts["state"] == "pending"}
        before = behind.standing([*pending.values(), *itertools.chain(*judging.values())], jobs)
        for name, run in pending.items():
            rows[name].facts["behind"] = before.get(run.path, [])
        for name in unfinished:
            some = judging.get(name, ())
            rows[name].facts["awaited_by"] = [{"id": each.id, "behind": before.get(each.path, [])} for each in some]
        self._remember({}, known.keys() - rows.keys())
        return {name: self._asked_for(row) for name, row in rows.items()}, trouble

    def _folders(self) -> dict[str, bool]:
        """What may be a run and can be seen -> whether it is a link. Those of others may be closed."""
        try:
            with os.scandir(self.runs) as entries:
                found = {entry.name: entry.is_symlink() for entry in entries if entry.name[0] != "."}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return found if self._only is None else {name: found[name] for name in self._only if name in found}

    def _look(self, name: str) -> bytes | None:
        """What a remembered row must agree with; None for what may not be remembered, or is no run."""
        path = f"{self.runs}/{name}"
        try:
            # The lock before the files: whoever lets go of it has written how it ended.
            return None if RunDir(path).held() else _signature(path)
        except (OSError, SslrunError):
            return None

    def _read(
        self, names: Sequence[str], looks: Mapping[str, bytes | None], rows: dict[str, RunRow], show: Show | None
    ) -> dict[str, _Reading]:
        """Read what nobody remembers into `rows`, and remember what has ended; returns the readings of all else."""
        left, fresh = {}, {}
        found = at_once(lambda name: read((self.runs / name).resolve()), names, PART)
        for name, reading in zip(names, shown(found, "reading runs", len(names), show), strict=True):
            if not reading.row:
                continue
            rows[name] = self._asked_for(reading.row)
            if reading.final and looks.get(name):
                fresh[name] = _remembered(looks[name], None, reading.row)
            else:
                left[name] = reading
            if len(fresh) == PORTION:
                self._remember(fresh)
                fresh = {}
        self._remember(fresh)
        return left

    def _ask_queue(
        self,
        rows: dict[str, RunRow],
        readings: dict[str, _Reading],
        looks: Mapping[str, bytes | None],
        also: Iterable[RunDir],
    ) -> tuple[behind.Jobs | None, str]:
        """Look again at what may be in the queue, now that the queue is known: (it, why it could not be asked)."""
        given = {name: reading for name, reading in readings.items() if reading.job and not reading.final}
        told = {name: self._known[name].queue for name in rows.keys() - readings.keys() if name in self._known}
        told = {name: said for name, said in told.items() if said}
        for name, (job, _) in told.items():
            row = RunRow({**rows[name].facts, "job": job})
            given[name] = _Reading(ReadOnce(self.runs / name), looks[name], row, job)
        # Of a job that was cancelled and is gone nobody asks.
        over = {name for name, (job, said) in told.items() if rows[name].facts["state"] == "cancelled" and said == GONE}
        jobs, trouble = queue.of_runs([*(given[name].run for name in given if name not in over), *also])
        fresh = {}
        for name, before in given.items():
            if told.get(name) == _said(jobs or {}, before.job) and (jobs is not None or name in over):
                continue
            if jobs is None and name not in told:  # it was read without the queue
                continue
            now = read(before.run.path, jobs, before)
            if now.job != before.job:  # given since: it was not there yet when the queue was asked
                now = read(now.run.path)
            elif jobs is not None and now.row and looks.get(name) and not (now.behind or now.row.damaged):
                fresh[name] = _remembered(looks[name], _said(jobs, now.job), now.row)
            rows[name], readings[name] = now.row or rows[name], now
        self._remember(fresh)
        return jobs, trouble

    # -- what is remembered ----------------------------------------------------------------------------------------

    def _remember(self, fresh: Mapping[str, Remembered], gone: Collection[str] = ()) -> None:
        if fresh or gone:
            self._memory.save(fresh, gone)
        for name, row in fresh.items():
            wanted = (part for name, part in zip(PARTS, row.parts, strict=True) if name in self._parts)
            self._known[name] = Remembered(row.signature, row.queue, [*wanted])
        for name in gone:
            del self._known[name]

    def _row(self, name: str, known: Remembered) -> RunRow:
        """With the paths as they are here and now: a folder of runs may be moved."""
        parts = dict(zip(self._parts, known.parts, strict=True))
        path = f"{self.runs}/{name}"
        saved = parts["facts"].get("checkpoint")
        facts = {**EMPTY, **parts["facts"], "path": path, "checkpoint": saved and f"{path}/checkpoints/{saved}"}
        return RunRow(facts, parts.get("config", {}), parts.get("work", {}))

    def _asked_for(self, row: RunRow) -> RunRow:
        kept = {name: getattr(row, name) for name in self._parts}
        return RunRow(**kept, damaged=row.damaged)


def place(runs: Path) -> Path:
    """Where the index of a folder of runs is."""
    return cache_folder() / f"runs-{hashlib.sha256(os.fsencode(runs.resolve())).hexdigest()[:16]}.sqlite"


def read(path: Path, jobs: Queue | None = None, before: _Reading | None = None) -> _Reading:
    """The row of the run at `path`, with what the queue knows. `before`: what was read when nobody had asked the queue;
    it counts where the files have not changed since."""
    signature = None
    with contextlib.suppress(OSError):
        signature = _signature(str(path))
    run = before.run if before and signature and signature == before.signature else ReadOnce(path)
    try:
        facts, history, spec = _facts(run, jobs), run.history(), run.spec()
        if before and facts["state"] in ("failed", "stopped"):  # the queue has lost the job of which the ledger knows
            facts["lost_job"] = before.row.facts["job"]
        row = RunRow(facts, json.loads(json.dumps(spec.shown())), _work(run, facts, spec))
        # While a job may still come, the queue has the last word, also on what was cancelled.
        waits = history.last(*TOLD).get("event") == "submitted"
        awaits = any(isinstance(source, FromRun) for source in spec.sources.values())
        # Of those that are neither at work nor in a queue: whoever starts one here says so in its files.
        rests = facts["state"] not in ACTIVE or (facts["state"] == "pending" and not awaits)
        final = jobs is None and not waits and facts["job"] is None and rests
        return _Reading(run, signature, row, history.job, final, awaits)
    except (SslrunError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not os.path.exists(path / "spec.json"):
            return _Reading(run, signature)
        said = str(error) if isinstance(error, SslrunError) else f"damaged: {type(error).__name__}: {error}"
        said = {"id": run.id, "path": str(path), "message": " ".join(said.split())}
        return _Reading(run, signature, RunRow({**EMPTY, **said}, damaged=True))


def _work(run: RunDir, facts: Mapping[str, Any], spec: RunSpec) -> dict[str, Any]:
    heard = run.spoke() if facts["state"] == "running" else 0.0
    gpus = spec.world_size if spec.cluster.gpus_per_node else 0
    history = run.history()
    judged = [e for e in history.judged() if e["step"] == facts["step"]]  # one of an earlier step is not its number
    return {
        "seconds": goodput.worked_seconds(history, heard),
        "gpu_seconds": goodput.worked_gpu_seconds(history, gpus, heard),
        "awaited": bool(history.all("awaited")),
        "eval_after": [*spec.eval_after],
        "judged": [{name: event[name] for name in SCORES if name in event} for event in judged],
    }


def _said(jobs: Queue, job: str | None) -> list[str | None]:
    """What a row that Slurm's queue was asked for depends on."""
    return [job, repr(jobs.get(job))]


def _remembered(signature: bytes, queue: Any, row: RunRow) -> Remembered:
    """Of the facts those that not all runs have: they are most of what is to be read."""
    saved = row.facts["checkpoint"]
    facts = {**row.facts, "path": "", "checkpoint": saved and Path(saved).name, "behind": [], "awaited_by": []}
    facts = {name: value for name, value in facts.items() if name not in EMPTY or value != EMPTY[name]}
    return Remembered(signature, queue, (facts, row.config, row.work))


def _facts(run: RunDir, jobs: Queue | None) -> dict[str, Any]:
    summary = run.summary(jobs, digest=False)
    now, history = summary["state"], run.history()
    progress = run.doing(now, history)
    job = (jobs or {}).get(summary["job"])
    pending = job is not None and job.state == "PENDING"
    start = history.last("start")
    nodes = (job and job.nodes) or start.get("nodes") or start.get("host", "")
    facts = {
        **summary,
        "stage": progress.get("stage") if now == "running" else None,
        "loss": progress.get("loss"),
        "images_per_s": progress.get("images_per_s"),
        "seconds_left": None if now == "done" else progress.get("seconds_left"),
        "started": start.get("time"),
        "nodelist": "" if now in ("pending", "preempted") else nodes,
        "why_pending": job.reason if pending else "",
        "expected_start": job.start if pending else "",
        "job_left": job.left if job and not pending else "",
    }
    if summary["checkpoint"]:
        saved = Path(summary["checkpoint"])
        said = [e["time"] for e in history.all("checkpoint") if e["path"] == saved.name]
        facts["checkpoint_step"] = int(saved.name.removeprefix("step_"))
        facts["checkpoint_time"] = said[-1] if said else saved.stat().st_mtime
    return {**EMPTY, **facts}


def _signature(path: str) -> bytes:
    """Everything that a row is made of: the ledger's files with their sizes and times, which checkpoints there are, and
    the files that are replaced whole. Raises OSError where a folder, or the spec, is missing.
    """
    look = [*sorted(os.listdir(f"{path}/checkpoints"))]
    for name in (*(f"events/{name}" for name in sorted(os.listdir(f"{path}/events"))), "spec.json"):
        found = os.stat(f"{path}/{name}")
        look.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    for name in ("placement.json", "progress.json"):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(f"{path}/{name}")
            look.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    return os.fsencode("/".join(look))


@functools.cache
def _version() -> int:
    """Of the code that makes rows: those of any other version are not believed."""
    modules = (commands, fields, files, folder, goodput, ledger, manifest, readonce, remembered)
    modules += (runspec, schema, shapes, slow_ranks, state, stored)
    return zlib.crc32(b"".join(Path(file).read_bytes() for file in (__file__, *(m.__file__ for m in modules))))
