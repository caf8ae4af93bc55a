"""Rows about all runs of a folder, fast: what has ended is read once and remembered in the reader's own cache, never in
the folder, where somebody else may have laid a database that does what they want.

The index is derived: it may be deleted, corrupted or unwritable at any time, and the answer stays the same. A row is
believed only while its run's files look exactly as they did when it was made, and only when its own checksum holds; so
two processes may write at once, and an older or newer sslrun's rows are never mixed in. A run that works, waits or is
held is always read anew.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from launcher.errors import SslrunError
from launcher.report import behind, readonce
from launcher.report.readonce import ReadOnce
from launcher.run import files, folder, goodput, ledger, shapes, slow_ranks, state
from launcher.run.files import cache_folder, opened
from launcher.run.folder import RunDir
from launcher.run.state import ACTIVE, Queue
from launcher.slurm import queue
from launcher.spec import fields, runspec, schema, stored

LOCK_SECONDS = 0.25  # how long another process's write is waited for; without the index it only takes longer
THREADS = 8  # a shared file system answers many at once; one after the other, each file would cost a round trip
TOLD = ("submitted", "start")
PART = 64  # runs that a thread takes at once

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

Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass(frozen=True)
class RunRow:
    """`facts`: the keys of EMPTY. `config`: the run's spec, where it runs now; empty unless it was asked for."""

    facts: dict[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Reading:
    """What a run's files, and the queue where it was asked, said at one time. `row`: None where the run went away."""

    run: RunDir
    signature: bytes | None
    row: RunRow | None = None
    job: str | None = None  # that it was last given to
    final: bool = False  # nothing but a new file, or a longer one, can change it


Known = dict[str, tuple[bytes, RunRow]]  # by the run's name: its signature, and the row that it had then


class RunIndex:
    """`config`: whether rows carry their run's config, which triples what is to be read of the index."""

    def __init__(self, runs: Path, *, config: bool = False):
        self.runs, self._config = runs.resolve(), config
        self._file = place(self.runs)
        self._known: Known | None = None

    def rows(self) -> tuple[list[RunRow], str]:
        """(a row a run, by id; why the queue could not be asked, or ""). A damaged run is a row that says so."""
        linked = self._folders()
        if self._known is None:
            self._known = self._load() if linked else {}
        known, fresh = self._known, {}
        plain = [name for name, link in linked.items() if not link]  # a link may lead somewhere else tomorrow
        looks = dict(zip(plain, _parallel(self._look, plain), strict=True))
        rows = {name: known[name][1] for name, look in looks.items() if look and look == known.get(name, [b""])[0]}
        unknown = [name for name in linked if name not in rows]
        read = zip(unknown, _parallel(lambda name: _read((self.runs / name).resolve()), unknown), strict=True)
        readings = {name: reading for name, reading in read if reading.row}
        for name, reading in readings.items():
            rows[name] = reading.row
            if reading.final and looks.get(name):
                fresh[name] = looks[name], reading.row
        unfinished = [name for name, row in rows.items() if row.facts["state"] != "done"]
        found = _parallel(lambda name: behind.evaluations(RunDir(self.runs / name)), unfinished)
        judging = dict(zip(unfinished, found, strict=True))
        jobs, trouble = self._ask_queue(rows, readings, itertools.chain(*found))
        judging = {name: behind.waiting(some, jobs) for name, some in judging.items()}
        pending = {name: reading.run for name, reading in readings.items() if rows[name].facts["state"] == "pending"}
        before = behind.standing([*pending.values(), *itertools.chain(*judging.values())], jobs)
        for name, run in pending.items():
            rows[name].facts["behind"] = before.get(run.path, [])
        for name, some in judging.items():
            rows[name].facts["awaited_by"] = [{"id": each.id, "behind": before.get(each.path, [])} for each in some]
        gone = known.keys() - rows.keys()
        if gone or fresh:
            known.update(fresh)
            for name in gone:
                del known[name]
            self._save(fresh, gone)
        return [row if self._config else RunRow(row.facts) for _, row in sorted(rows.items())], trouble

    def _folders(self) -> dict[str, bool]:
        """The runs that one can see -> whether it is a link. Those of others may be closed; links may lead nowhere."""
        try:
            with os.scandir(self.runs) as entries:
                found = [(entry.name, entry.is_symlink()) for entry in entries if entry.name[0] != "."]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {name: link for name, link in found if os.path.exists(f"{self.runs}/{name}/spec.json")}

    def _look(self, name: str) -> bytes | None:
        """What a remembered row must agree with; None for a run that may not be remembered."""
        path = f"{self.runs}/{name}"
        try:
            # The lock before the files: whoever lets go of it has written how it ended.
            return None if RunDir(path).held() else _signature(path)
        except (OSError, SslrunError):
            return None

    def _ask_queue(
        self, rows: dict[str, RunRow], readings: Mapping[str, _Reading], also: Iterable[RunDir]
    ) -> tuple[behind.Jobs | None, str]:
        """Look again at what may be in the queue, now that the queue is known: (it, why it could not be asked)."""
        given = {name: reading for name, reading in readings.items() if reading.job and not reading.final}
        jobs, trouble = queue.of_runs([*(reading.run for reading in given.values()), *also])
        for name, before in given.items() if jobs is not None else ():
            now = _read(before.run.path, jobs, before)
            if now.job != before.job:  # given since: it was not there yet when the queue was asked
                now = _read(now.run.path)
            rows[name] = now.row or rows[name]
        return jobs, trouble

    # -- the file --------------------------------------------------------------------------------------------------

    def _load(self) -> Known:
        config = "config, config_sum" if self._config else "NULL, NULL"

        def load(database: sqlite3.Connection) -> Known:
            found = {}
            for cells in database.execute(f"SELECT name, signature, facts, facts_sum, {config} FROM runs"):
                with contextlib.suppress(TypeError, AttributeError, ValueError):  # a damaged cell has any type
                    name, signature, facts, facts_sum, settings, settings_sum = cells
                    sound = facts_sum == _sum(name, signature, facts)
                    sound &= not self._config or settings_sum == _sum(name, signature, settings)
                    row = self._placed(os.fsdecode(name), facts, settings or b"{}") if sound else RunRow({})
                    found[os.fsdecode(name)] = signature if sound else b"", row
            return found

        return (self._with_database(load) if os.path.exists(self._file) else None) or {}

    def _placed(self, name: str, facts: bytes, config: bytes) -> RunRow:
        """With the paths as they are here and now: a folder of runs may be moved."""
        found = json.loads(facts)
        found["path"] = path = f"{self.runs}/{name}"
        found["checkpoint"] = found["checkpoint"] and f"{path}/checkpoints/{found['checkpoint']}"
        return RunRow(found, json.loads(config))

    def _save(self, fresh: Known, gone: Iterable[str]) -> None:
        def save(database: sqlite3.Connection) -> None:
            columns = "name PRIMARY KEY, signature, facts, facts_sum, config, config_sum"
            database.execute("BEGIN IMMEDIATE")
            database.execute(f"CREATE TABLE IF NOT EXISTS runs ({columns})")
            database.executemany("DELETE FROM runs WHERE name = ?", [(os.fsencode(name),) for name in gone])
            database.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)", map(_cells, fresh.items()))
            database.execute("COMMIT")

        with contextlib.suppress(OSError, ValueError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(opened(self._file, os.O_RDWR | os.O_CREAT))  # 0600: it holds what private runs hold
            self._with_database(save)

    def _with_database(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """None where the index cannot be used. One that is damaged goes, so that the next write makes a new one."""
        for _ in range(2):
            try:
                with contextlib.closing(
                    sqlite3.connect(self._file, timeout=LOCK_SECONDS, isolation_level=None)
                ) as database:
                    database.text_factory = bytes  # damaged text need not be Unicode
                    database.execute("PRAGMA synchronous = OFF")  # a power cut costs the index, and nothing else
                    return work(database)
            except sqlite3.Error as error:
                name = getattr(error, "sqlite_errorname", "")
                if name != "SQLITE_ERROR" and not name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                    return None  # busy, unwritable, full: somebody else's, or no reason to complain
                with contextlib.suppress(OSError):
                    for suffix in ("-journal", ""):
                        self._file.with_name(f"{self._file.name}{suffix}").unlink(missing_ok=True)
        return None


def place(runs: Path) -> Path:
    """Where the index of a folder of runs is."""
    return cache_folder() / f"runs-{hashlib.sha256(os.fsencode(runs.resolve())).hexdigest()[:16]}.sqlite"


def _read(path: Path, jobs: Queue | None = None, before: _Reading | None = None) -> _Reading:
    """The row of the run at `path`, with what the queue knows. `before`: what was read when nobody had asked the queue;
    it counts where the files have not changed since."""
    signature = None
    with contextlib.suppress(OSError):
        signature = _signature(str(path))
    run = before.run if before and signature and signature == before.signature else ReadOnce(path)
    try:
        facts, history = _facts(run, jobs), run.history()
        if before and facts["state"] in ("failed", "stopped"):  # the queue has lost the job of which the ledger knows
            facts["lost_job"] = before.row.facts["job"]
        row = RunRow(facts, json.loads(json.dumps(run.spec().shown())))
        # While a job may still come, the queue has the last word, also on what was cancelled.
        waits = history.last(*TOLD).get("event") == "submitted"
        final = jobs is None and not waits and facts["job"] is None and facts["state"] not in ACTIVE
        return _Reading(run, signature, row, history.job, final)
    except (SslrunError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not os.path.exists(path / "spec.json"):
            return _Reading(run, signature)
        said = str(error) if isinstance(error, SslrunError) else f"damaged: {type(error).__name__}: {error}"
        said = {"id": run.id, "path": str(path), "message": " ".join(said.split())}
        return _Reading(run, signature, RunRow({**EMPTY, **said}))


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
    the files that are replaced whole. Raises OSError where a folder is missing.
    """
    events = [f"events/{name}" for name in sorted(os.listdir(f"{path}/events"))]
    look: list[Any] = [sorted(os.listdir(f"{path}/checkpoints"))]
    for name in (*events, "spec.json", "placement.json", "progress.json"):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(f"{path}/{name}")
            look += [name, found.st_size, found.st_mtime_ns]
    return repr(look).encode()


def _parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of each item, in their order."""
    parts = [items[first : first + PART] for first in range(0, len(items), PART)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [result for part in pool.map(lambda part: [*map(function, part)], parts) for result in part]


def _cells(item: tuple[str, tuple[bytes, RunRow]]) -> tuple[Any, ...]:
    """A row of the file."""
    name, (signature, row) = os.fsencode(item[0]), item[1]
    saved = row.facts["checkpoint"]
    facts = json.dumps({**row.facts, "path": "", "checkpoint": saved and Path(saved).name}).encode()
    config = json.dumps(row.config).encode()
    return name, signature, facts, _sum(name, signature, facts), config, _sum(name, signature, config)


def _sum(name: bytes, signature: bytes, text: bytes) -> int:
    return zlib.crc32(b"\0".join((name, signature, text)), _version())


@functools.cache
def _version() -> int:
    """Of the code that makes rows: those of any other version are not believed."""
    modules = (fields, files, folder, goodput, ledger, readonce, runspec, schema, shapes, slow_ranks, state, stored)
    return zlib.crc32(b"".join(Path(file).read_bytes() for file in (__file__, *(m.__file__ for m in modules))))
