"""A run's ledger: one append-only file a writer and generation, merged on reading.

`Ledger` writes and `History` reads. What an event is called, and what it says, is kept by the tests of old runs.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.run.files import append, names, object_in, read
from launcher.run.shapes import is_event

Event = Mapping[str, Any]
# Asking for a generation comes first; whoever starts it writes its first event and its last, around the ranks'.
MOST = 16 * 2**20  # bytes of one file of a ledger, of which each writer of each start has its own
SHORTEST = 80  # bytes of an event: what each must hold takes more, and there may be millions of other lines
ORDER = {"intent": -1, "submitted": -1, "withdrawn": -1, "start": 0, "end": 2}


class History(tuple[Event, ...]):
    """Every event of every writer, as it was when it was read: by generation, then as each writer wrote them."""

    @classmethod
    def read(cls, run: Path) -> "History":
        """`run`: its folder. A line that is no event is left out: what a killed writer wrote last may be torn.

        Raises NotOurs where a ledger is no plain file, or larger than any; OSError where not all of it can be read.
        """
        rows = []
        for name in names(run / "events"):
            content = read(run / "events" / name, MOST) if name.endswith(".jsonl") else b""
            for line in dict.fromkeys(content.splitlines()):  # one may have been written again
                found = object_in(line) if len(line) > SHORTEST else None
                if is_event(found):
                    rows.append(found)
        # Those of one writer stay as they lie in its file.
        return cls(sorted(rows, key=lambda e: (e["generation"], ORDER.get(e["event"], 1), e["writer"])))

    def all(self, *names: str) -> "History":
        """The events of these names."""
        return History(event for event in self if event["event"] in names)

    def last(self, *names: str) -> Event:
        """The last of them; empty where there is none."""
        return next((event for event in reversed(self) if event["event"] in names), {})

    def first(self, *names: str) -> Event:
        """The first of them; empty where there is none."""
        return next((event for event in self if event["event"] in names), {})

    def of(self, generation: int) -> "History":
        """What was said of one start of the run."""
        return History(event for event in self if event["generation"] == generation)

    def before(self, generation: int) -> "History":
        return History(event for event in self if event["generation"] < generation)

    def after(self, generation: int) -> "History":
        return History(event for event in self if event["generation"] > generation)

    @property
    def wrong_input(self) -> str:
        """The field of its method for which it ended, which no resume changes; "" where it did not. What is wrong with
        data, a folder that a node does not show, may be mended where it is."""
        last = self.last("start", "end", "submitted")
        ended = last.get("event") == "end" and last["cause"] == "input"
        field = last.get("message", "").partition("=")[0]
        return field if ended and field.startswith("method.") else ""

    def first_fix(self, run: str) -> str:
        """What to do about an end that came too early, where nobody runs `run`, as a person types it: what was given
        wrong is frozen, and stays wrong."""
        if self.wrong_input:
            return f"start a new run with another {self.wrong_input}: this one ended for it, and keeps it"
        return f"`sslrun resume {run}` first"

    @property
    def generation(self) -> int:
        """Of its latest start; 0 before the first."""
        return self.last("start").get("generation", 0)

    @property
    def job(self) -> str | None:
        """The Slurm job that the run was last given to; None where it never was, or was since started without one."""
        return self.last("start", "submitted").get("job")

    def submission(self, job: str | None) -> Event:
        """How the run was given to `job`; empty where the ledger does not say so."""
        return next((e for e in reversed(self) if e["event"] == "submitted" and e["job"] == job), {})

    @property
    def open_intent(self) -> Event:
        """The submission of which nobody wrote down how it went: its submitter was killed in between, or is at it right
        now. Empty where there is none."""
        last = self.last("intent", "submitted", "withdrawn", "start")
        return last if last.get("event") == "intent" else {}

    @property
    def ends(self) -> dict[int, Event]:
        """{generation: its end}, of those that could write it down themselves.

        The end of one that was killed is written by the next start: too late to tell how long it waited.
        """
        return {e["generation"]: e for e in self.all("end") if e["writer"] != "afterwards"}

    @property
    def lost_steps(self) -> int:
        """Steps that were done twice."""
        return sum(event.get("lost_steps", 0) for event in self.all("restored"))

    def judged(self) -> list[Event]:
        """The events with scores, in the order in which one of a protocol takes the place of another: `eval`, and
        `scored`, what an evaluation had found before it was complete; that counts until one at its step is complete.
        What the run found of a checkpoint comes before what evaluations as jobs of their own found, by their numbers.
        """

        def place(event: Event) -> tuple:
            by = event.get("by", "")  # evals/knn-2
            number = by.rpartition("-")[2]
            return event["step"], event["event"] == "eval", bool(by), int(number) if number.isdecimal() else 0

        return sorted(self.all("eval", "scored"), key=place)


def goes_on(end: Event) -> bool:
    """Whether another start follows this end by itself: of the job, or in it."""
    return bool(end.get("requeued") or end.get("in_place"))


class Ledger:
    """One writer's pen. Each process appends to a file of its own, so that no line is ever torn by another."""

    def __init__(self, run: Path, generation: int, writer: str):
        """`run`: its folder."""
        self._file = run / "events" / f"{generation:04d}-{writer}.jsonl"
        self.generation = generation
        self._head = {"generation": generation, "writer": writer, "host": socket.gethostname()}
        self._number = 0  # lines
        with contextlib.suppress(OSError):
            self._number = len(read(self._file).splitlines())
        self._owed: list[bytes] = []

    def write(self, event: str, **fields: Any) -> None:
        """Append one event, which a power cut does not take back. A full disk must not kill a run that could still be
        saved: an event that does not fit is printed, and written before the next one."""
        self._number += 1
        row = {"event": event, **self._head, "number": self._number, "time": round(time.time(), 3), **fields}
        self._owed.append(json.dumps(row).encode() + b"\n")
        if trouble := self.settle():
            print(f"ledger: {trouble}: {json.dumps(row)}", flush=True)

    def settle(self) -> str:
        """Write what could not be written before; why it still cannot be, in the system's words, or nothing."""
        try:
            append(self._file, b"".join(self._owed))
        except OSError as error:
            return error.strerror or str(error)
        self._owed.clear()
        return ""
