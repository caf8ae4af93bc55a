"""A run's ledger: one append-only file a writer and generation, merged on reading."""

import json
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def judged(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The events with scores, in the order in which one of a protocol takes the place of another: `eval`, and `scored`
    with what an evaluation had found before it was complete, which stands where none is complete at its step."""
    found = (event for event in events if event["event"] in ("eval", "scored"))
    return sorted(found, key=lambda event: (event["step"], event["event"] == "eval", event["time"]))


class Ledger:
    """One writer's pen. Each process appends to a file of its own, so that no line is ever torn by another."""

    def __init__(self, run: Path, generation: int, writer: str):
        """`run`: its folder."""
        self._file = run / "events" / f"{generation:04d}-{writer}.jsonl"
        self.generation = generation
        self._head = {"generation": generation, "writer": writer, "host": socket.gethostname()}
        self._number = len(self._file.read_bytes().splitlines()) if self._file.exists() else 0
        self._owed = b""

    def write(self, event: str, **fields: Any) -> None:
        """Append one event. A full disk must not kill a run that could still be saved: an event that does not fit is
        printed, and written before the next one."""
        self._number += 1
        row = {"event": event, **self._head, "number": self._number, "time": round(time.time(), 3), **fields}
        self._owed += json.dumps(row).encode() + b"\n"
        try:
            with self._file.open("ab", buffering=0) as file:
                while self._owed:
                    self._owed = self._owed[file.write(self._owed) :]
        except OSError as error:
            print(f"ledger: {error.strerror}: {json.dumps(row)}", flush=True)
