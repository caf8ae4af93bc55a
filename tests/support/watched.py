"""A run that is at work, seen from outside, and how to wait for what it does."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


class Watched:
    """A run seen from outside, through its files and /proc."""

    def __init__(self, runs: Path):
        self.runs = runs

    @property
    def path(self) -> Path:
        """The only run of the folder, once it is there."""
        return until(lambda: next(iter(self.runs.glob("*/spec.json")), None)).parent

    def step(self) -> int:
        try:
            return json.loads((self.path / "progress.json").read_text())["step"]
        except FileNotFoundError:
            return 0

    def rows(self) -> list[dict]:
        """The metrics of all lives. With method.log_every=1 they tell each step, where `step` looks thrice a second."""
        file = next(iter(self.runs.glob("*/metrics.jsonl")), None)
        lines = file.read_text().splitlines(keepends=True) if file else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def reach(self, step: int, launcher: subprocess.Popen) -> None:
        """Wait until the run has done `step` steps; fails when its launcher ends before."""

        def reached() -> bool:
            assert launcher.poll() is None, f"it ended before step {step}: {launcher.communicate()}"
            return any(self.runs.glob("*/spec.json")) and self.step() >= step

        until(reached, poll=0.01)

    def processes(self) -> list[int]:
        """Ranks and their children: every process with the run's path in its command line."""
        return [pid for pid, words in _commands() if str(self.path) in words]

    def ranks(self, generation: int, *, size: int = 2, saved: bool = True) -> dict[int, tuple[str, int]]:
        """{rank: (its node, its process)} of a start on Slurm, once that has saved something, or all were heard of."""
        from launcher.run import heartbeats
        from launcher.run.folder import RunDir

        def heard() -> dict[int, tuple[str, int]] | None:
            found = heartbeats.processes(RunDir(self.path), generation)
            begun = not saved or any(event["generation"] == generation for event in self.events("checkpoint"))
            return found if len(found) == size and begun else None

        return until(heard, poll=0.01)

    def gone(self, seconds: float = 300) -> bool:
        """Waits until they have ended. One that dies loses its command line before it lets go of the run's lock."""
        from launcher.run.folder import RunDir

        return bool(until(lambda: not self.processes() and not RunDir(self.path).held(), seconds=seconds))

    def events(self, name: str) -> list[dict]:
        return [event for event in events_of(self.path) if event["event"] == name]


def events_of(run: Path) -> list[dict]:
    """All that the ledger of the run in the folder `run` says, each line of which has to be one that is read."""
    from launcher.run.shapes import is_event

    lines = [line for file in sorted((run / "events").iterdir()) for line in file.read_text().splitlines()]
    events = [json.loads(line) for line in lines]
    assert not [event for event in events if not is_event(event)]
    return events


def _commands():
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "launcher.start.worker" in words:
                yield int(entry.name), words


def until(condition: Callable, *, seconds: float = 600, poll: float = 0.05):
    """The first true value of `condition()`; fails when it takes too long.

    A look at what others do takes time from them: one that starts a process (`sslrun show`) is taken more rarely.
    """
    end = time.monotonic() + seconds
    while True:
        begin = time.monotonic()
        if value := condition():
            return value
        now = time.monotonic()
        assert now < end, f"waited {seconds} s in vain"
        time.sleep(max(poll, min(1.0, 3 * (now - begin))))
