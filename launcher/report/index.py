"""Rows about all runs of a folder, fast: what has ended is read once and remembered in `<runs>/.index.sqlite`.

The index is derived: it may be deleted, corrupted or unwritable at any time, and the answer stays the same. A row is
believed only while its run's files look exactly as they did when it was made, and only when its own checksum holds; so
two processes may write at once, and an older or newer sslrun's rows are never mixed in. A run that works, waits or is
held is always read anew.
"""

import contextlib
import functools
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from launcher.errors import SslrunError
from launcher.run import folder, goodput, state
from launcher.run.folder import RunDir
from launcher.run.ledger import History
from launcher.run.state import ACTIVE
from launcher.slurm import queue
from launcher.spec import runspec

if TYPE_CHECKING:
    from launcher.slurm.commands import Job

NAME = ".index.sqlite"
LOCK_SECONDS = 0.25  # how long another process's write is waited for; without the index it only takes longer
THREADS = 8  # a shared file system answers many at once; one after the other, each file would cost a round trip
TOLD = ("submitted", "start")
FEW = 64  # runs for which threads would only cost

# What each row holds; the values are those of a run of which nothing is known.
EMPTY: dict[str, Any] = {
    "id": "", "path": "", "method": "?", "state": "failed", "job": None, "step": 0, "steps": 0,
    "checkpoint": None, "restarts": {}, "lost_steps": 0, "goodput": None, "interruptions": [], "evals": {},
    "message": "",
    "health": "",  # what is wrong with what it learns
    "stage": None,  # what it is doing: training, clustering, k-NN
    "loss": None,
    "images_per_s": None,
    "seconds_left": None,  # of the run, as it last said itself
    "checkpoint_step": None,
    "checkpoint_time": None,  # seconds since 1970, as all times here
    "started": None,  # its last start
    "nodelist": "",  # where it runs or ran last
    "why_pending": "",
    "expected_start": "",  # ISO 8601, in the cluster's time zone
    "job_left": "",  # of the job's time limit, [days-]hours:minutes:seconds
    "lost_job": None,  # a job that is gone and of which the ledger has no end
}  # fmt: skip

Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass(frozen=True)
class Row:
    """`facts`: the keys of EMPTY. `config`: the run's spec, where it runs now; empty unless it was asked for."""

    facts: dict[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Known:
    """A run that had ended. `facts` and `config` are as stored until somebody wants them."""

    signature: bytes
    facts: bytes
    config: bytes | None

    @functools.cached_property
    def read_facts(self) -> dict[str, Any]:
        return json.loads(self.facts)

    @functools.cached_property
    def read_config(self) -> dict[str, Any]:
        return json.loads(self.config or b"{}")


class Index:
    """`config`: whether rows carry their run's config, which triples what is to be read of the index."""

    def __init__(self, runs: Path, *, config: bool = False):
        self.runs, self._config = runs.resolve(), config
        self._known: dict[str, _Known] | None = None

    def rows(self) -> tuple[list[Row], str]:
        """(a row a run, by id; why the queue could not be asked, or ""). A damaged run is a row that says so."""
        linked = self._names()
        names = list(linked)
        if self._known is None:
            self._known = self._load() if names else {}
        known, rows, readings = self._known, {}, []
        # A link may lead somewhere else tomorrow.
        looks = {name: None for name in names if linked[name]}
        plain = [name for name in names if not linked[name]]
        looks |= zip(plain, _parallel(self._look, plain), strict=True)
        for name, signature in looks.items():
            if signature is not None and name in known and known[name].signature == signature:
                rows[name] = self._row(name, known[name])
        unknown = [name for name in names if name not in rows]
        fresh = {}
        for name, reading in zip(unknown, _parallel(self._read, unknown), strict=True):
            if reading.gone:
                continue
            rows[name] = reading.row
            if reading.final and looks[name] is not None:
                fresh[name] = self._entry(looks[name], reading.row)
            elif reading.job:
                readings.append((name, reading))
        trouble = self._ask_queue(rows, readings)
        if known.keys() - set(names) or fresh:
            gone = known.keys() - set(names)
            known.update(fresh)
            for name in gone:
                del known[name]
            self._save(fresh, gone)
        return [row if self._config else Row(row.facts) for _, row in sorted(rows.items())], trouble

    def _names(self) -> dict[str, bool]:
        """Folders of runs, sorted -> whether it is a link."""
        try:
            with os.scandir(self.runs) as entries:
                found = [(e.name, e.is_symlink()) for e in entries if e.name[0] != "."]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {name: linked for name, linked in sorted(found) if os.path.exists(f"{self.runs}/{name}/spec.json")}

    def _look(self, name: str) -> bytes | None:
        """What a remembered row must agree with; None for a run that may not be remembered."""
        path = f"{self.runs}/{name}"
        try:
            # The lock before the files: whoever lets go of it has written how it ended.
            return None if RunDir(path).held() else _signature(path)
        except OSError:
            return None

    def _read(self, name: str) -> "_Reading":
        return _Reading((self.runs / name).resolve()).read(None)

    def _ask_queue(self, rows: dict[str, Row], readings: "Sequence[tuple[str, _Reading]]") -> str:
        """Look again at what may be in the queue, now that the queue is known."""
        jobs, trouble = queue.of_runs(reading for _, reading in readings)
        for name, reading in readings if jobs is not None else ():
            job = reading.job
            reading.refresh()
            reading.read(jobs)
            if reading.job != job:  # given since: it was not there yet when the queue was asked
                reading.read(None)
            if not reading.gone:
                rows[name] = reading.row
        return trouble

    def _row(self, name: str, known: _Known) -> Row:
        """With the paths as they are here and now: a folder of runs may be moved."""
        path = f"{self.runs}/{name}"
        facts = {**known.read_facts, "path": path}
        if facts["checkpoint"]:
            facts["checkpoint"] = f"{path}/checkpoints/{facts['checkpoint']}"
        return Row(facts, known.read_config if self._config else {})

    def _entry(self, signature: bytes, row: Row) -> _Known:
        checkpoint = row.facts["checkpoint"]
        facts = {**row.facts, "path": "", "checkpoint": checkpoint and Path(checkpoint).name}
        return _Known(signature, json.dumps(facts).encode(), json.dumps(row.config).encode())

    # -- the file --------------------------------------------------------------------------------------------------

    def _load(self) -> dict[str, _Known]:
        config = "config, config_sum" if self._config else "NULL, NULL"

        def load(database: sqlite3.Connection) -> dict[str, _Known]:
            if not _ours(database):
                return {}
            found = {}
            for name, signature, facts, total, settings, settings_total in database.execute(
                f"SELECT name, signature, facts, facts_sum, {config} FROM runs"
            ):
                with contextlib.suppress(TypeError, AttributeError, UnicodeDecodeError):  # a damaged cell has any type
                    sound = total == _sum(name, signature, facts)
                    if self._config:
                        sound = sound and settings_total == _sum(name, signature, settings)
                    if sound:
                        found[name.decode()] = _Known(signature, facts, settings)
            return found

        if not (self.runs / NAME).exists():
            return {}
        return self._with_database(load) or {}

    def _save(self, fresh: Mapping[str, _Known], gone: Iterable[str]) -> None:
        def save(database: sqlite3.Connection) -> None:
            database.execute("BEGIN IMMEDIATE")
            if not _ours(database):
                database.execute("DROP TABLE IF EXISTS runs")
                database.execute(
                    "CREATE TABLE runs (name PRIMARY KEY, signature, facts, facts_sum, config, config_sum)"
                )
                database.execute(f"PRAGMA user_version = {_version()}")
            database.executemany("DELETE FROM runs WHERE name = ?", [(name.encode(),) for name in gone])
            database.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)", map(_cells, fresh.items()))
            database.execute("COMMIT")

        with contextlib.suppress(OSError):
            # It holds what private runs hold.
            os.close(os.open(self.runs / NAME, os.O_RDWR | os.O_CREAT, 0o600))
            self._with_database(save)

    def _with_database(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """None where the index cannot be used. One that is damaged goes, so that the next write makes a new one."""
        for _ in range(2):
            try:
                with contextlib.closing(
                    sqlite3.connect(self.runs / NAME, timeout=LOCK_SECONDS, isolation_level=None)
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
                        (self.runs / f"{NAME}{suffix}").unlink(missing_ok=True)
        return None


class _Reading(RunDir):
    """A run whose ledger and spec are read once, until `refresh` finds that they changed."""

    row: Row
    job: str | None = None  # that it was last given to
    gone = False  # while it was being read
    final = False  # nothing but a new file, or a longer one, can change it

    def __init__(self, path: Path):
        super().__init__(path)
        self._cached: dict[str, Any] = {}
        self._seen: bytes | None = None
        self._believed: str | None = None  # the job that has the run if one asks its ledger alone

    def read(self, jobs: "Mapping[str, Job] | None") -> "_Reading":
        """Fill in `row`, with what the queue knows."""
        try:
            with contextlib.suppress(OSError):
                self._seen = self._seen or _signature(str(self.path))
            facts = self._facts(jobs)
            self.row = Row(facts, self._once("config", self._placed))
            self.job = self.history().job
            if jobs is None:
                self._believed = facts["job"]
            # While a job may still come, the queue has the last word, also on what was cancelled.
            waits = self.history().last(*TOLD).get("event") == "submitted"
            self.final = jobs is None and not waits and facts["job"] is None and facts["state"] not in ACTIVE
        except (SslrunError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.gone = not (self.path / "spec.json").exists()
            said = str(error) if isinstance(error, SslrunError) else f"damaged: {type(error).__name__}: {error}"
            self.row = Row({**EMPTY, "id": self.id, "path": str(self.path), "message": " ".join(said.split())})
        return self

    def refresh(self) -> None:
        """Forget what was read if the files say something else now."""
        with contextlib.suppress(OSError):
            if self._seen == _signature(str(self.path)):
                return
        self._cached.clear()
        self._seen = None

    def history(self) -> History:
        return self._once("history", super().history)

    def spec(self) -> Any:
        return self._once("spec", super().spec)

    def progress(self) -> dict[str, Any]:
        return self._once("progress", super().progress)

    def _placed(self) -> dict[str, Any]:
        """The spec as its file holds it, but where the run runs now."""
        return json.loads(json.dumps(self.spec().to_json()))

    def _once(self, what: str, read: Callable[[], Any]) -> Any:
        if what not in self._cached:
            self._cached[what] = read()
        return self._cached[what]

    def _facts(self, jobs: "Mapping[str, Job] | None") -> dict[str, Any]:
        summary = self.summary(jobs, digest=False)
        now, history, progress = summary["state"], self.history(), self.progress()
        job = (self._mine(jobs) or {}).get(summary["job"])
        pending = job is not None and job.state == "PENDING"
        start = history.last("start")
        nodes = (job and job.nodes) or start.get("nodes") or start.get("host", "")
        facts = {
            **summary,
            "stage": progress.get("stage"),
            "loss": progress.get("loss"),
            "images_per_s": progress.get("images_per_s"),
            "seconds_left": None if now == "done" else progress.get("seconds_left"),
            "started": start.get("time"),
            "nodelist": "" if now in ("pending", "preempted") else nodes,
            "why_pending": job.reason if pending else "",
            "expected_start": job.start if pending else "",
            "job_left": job.left if job and not pending else "",
            "lost_job": self._believed if now in ("failed", "stopped") else None,
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
    with os.scandir(f"{path}/events") as entries:
        ledger = sorted((e.name, (s := e.stat()).st_size, s.st_mtime_ns) for e in entries)
    saved = sorted(os.listdir(f"{path}/checkpoints"))
    whole = []
    for name in ("spec.json", "placement.json", "progress.json"):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(f"{path}/{name}")
            whole += [name, found.st_size, found.st_mtime_ns]
    return repr((ledger, saved, whole)).encode()


def _parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of each item, in their order."""
    if len(items) <= FEW:
        return [function(item) for item in items]
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [items[first : first + FEW] for first in range(0, len(items), FEW)]
        return [result for part in pool.map(lambda part: [function(i) for i in part], parts) for result in part]


def _sum(name: bytes, signature: bytes, text: bytes) -> int:
    return zlib.crc32(b"\0".join((name, signature, text)))


def _cells(item: tuple[str, _Known]) -> tuple[Any, ...]:
    name, known = item[0].encode(), item[1]
    config = known.config or b"{}"
    return (
        name,
        known.signature,
        known.facts,
        _sum(name, known.signature, known.facts),
        config,
        _sum(name, known.signature, config),
    )


def _ours(database: sqlite3.Connection) -> bool:
    return database.execute("PRAGMA user_version").fetchone()[0] == _version()


@functools.cache
def _version() -> int:
    """Of the code that makes rows: those of any other version are not believed."""
    sources = (Path(module.__file__).read_bytes() for module in (goodput, folder, runspec, state))
    return zlib.crc32(b"".join((Path(__file__).read_bytes(), *sources))) & 0x7FFFFFFF or 1
