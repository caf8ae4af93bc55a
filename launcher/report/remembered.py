"""The file of an index: of each run what was made of its files, and the signature that these had then.

It lies in the reader's own cache, never in the folder of runs, where somebody else may have laid a database that does
what they want; one that others may write to is as if it were not there. Several processes may write at once. A part of
a row is believed only where its own checksum holds, over the version of the code that made it, too: what is damaged, or
made by another version, is as if it were not there.
"""

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from launcher.run.files import opened, refuse_not_ours

LOCK_SECONDS = 0.25  # how long another process's write is waited for; without the index it only takes longer
PARTS = ("facts", "config", "work")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Remembered:
    """`queue`: what Slurm's queue has to say for it to hold, ["7", its words] of a job; None where it has no say.
    `parts`: those of PARTS that were asked for, in their order."""

    signature: bytes
    queue: Any
    parts: Sequence[Mapping[str, Any]]


class IndexFile:
    """`version`: of the code that makes what is remembered."""

    def __init__(self, file: Path, version: Callable[[], int]):
        self._file, self._version = file, version

    def load(self, parts: Sequence[str], only: Collection[str] | None = None) -> dict[str, Remembered]:
        """By the runs' names, `only` of these; those whose `parts` are all sound."""
        columns = ", ".join(f"{part}, {part}_sum" for part in parts)

        def load(database: sqlite3.Connection) -> dict[str, Remembered]:
            version, rows, texts = self._version(), [], []
            for name, signature, queue, *cells in database.execute(
                f"SELECT name, signature, queue, {columns} FROM runs"
            ):
                with contextlib.suppress(TypeError, ValueError):  # a damaged cell has any type
                    run = os.fsdecode(name)
                    if only is not None and run not in only:
                        continue
                    said = [queue, *cells[::2]]
                    sums = [_sum(version, name, signature, queue, part) for part in cells[::2]]
                    if sums == cells[1::2]:
                        rows.append((run, signature))
                        texts += said
            # All at once: of a row each that takes twice as long, and every row has keys of its own.
            found = json.loads(b"[%b]" % b",".join(texts)) if texts else []
            wide = len(parts) + 1
            return {
                run: Remembered(signature, found[wide * n], found[wide * n + 1 : wide * (n + 1)])
                for n, (run, signature) in enumerate(rows)
            }

        with contextlib.suppress(OSError, ValueError, TypeError):
            self._refuse_not_ours(os.O_RDONLY)
            return self._with_database(load) or {}
        return {}

    def save(self, fresh: Mapping[str, Remembered], gone: Iterable[str]) -> None:
        """`fresh`: with all PARTS. What cannot be written is done without."""

        def cells(item: tuple[str, Remembered]) -> tuple[Any, ...]:
            name, row = os.fsencode(item[0]), item[1]
            queue, *texts = (json.dumps(part).encode() for part in (row.queue, *row.parts))
            sums = (_sum(version, name, row.signature, queue, text) for text in texts)
            return name, row.signature, queue, *(cell for pair in zip(texts, sums, strict=True) for cell in pair)

        def save(database: sqlite3.Connection) -> None:
            database.execute("BEGIN IMMEDIATE")
            database.execute(f"CREATE TABLE IF NOT EXISTS runs (name PRIMARY KEY, signature, queue, {columns})")
            database.executemany("DELETE FROM runs WHERE name = ?", [(os.fsencode(name),) for name in gone])
            database.executemany(f"INSERT OR REPLACE INTO runs VALUES ({marks})", map(cells, fresh.items()))
            database.execute("COMMIT")

        columns = ", ".join(f"{part}, {part}_sum" for part in PARTS)
        marks, version = ", ".join("?" * (3 + 2 * len(PARTS))), self._version()
        with contextlib.suppress(OSError, ValueError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._refuse_not_ours(os.O_RDWR | os.O_CREAT)  # 0600: it holds what private runs hold
            self._with_database(save)

    def _refuse_not_ours(self, flags: int) -> None:
        """Raises NotOurs, and OSError where it cannot be opened."""
        descriptor = opened(self._file, flags)
        try:
            refuse_not_ours(self._file, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _with_database(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """None where the file cannot be used. One that is damaged goes, so that the next write makes a new one."""
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


def _sum(version: int, *texts: bytes) -> int:
    return zlib.crc32(b"\0".join(texts), version)
