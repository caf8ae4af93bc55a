"""One run seen from outside: what it has done, from its files; what happens to it, through signals and commands."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.drill import places, simulated
from launcher.drill.places import LOCAL
from launcher.errors import ClusterError, SslrunError
from launcher.run.files import read_json
from launcher.run.folder import RunDir
from launcher.run.ledger import History
from launcher.slurm import commands

POLL_SECONDS = 0.01  # tiny runs do fifty steps a second
LONGEST_POLL = 2.0
GONE_SECONDS = 30.0  # how long a process of a start that is over may be left
REST_SECONDS = 60.0  # after which nothing more comes of a run that is at rest
TAIL = 1 << 14
SAVING = ".saving-[0-9]*"  # among the checkpoints; what is about to be deleted is called .saving-pruned-*
SIMULATED = ".simulated"  # a folder beside the run


class Impossible(Exception):
    """The fault could not be injected, or what must follow did not come. The text says what was waited for."""


@dataclass
class Seen:
    """What came of one fault."""

    generation: int = 0  # in which the last blow came
    generations: tuple[int, int] = (0, 0)  # when it began, and when the run was under way again
    causes: list[str] = field(default_factory=list)
    ended_s: float | None = None  # from the fault until that start of the run was over
    seconds: float | None = None  # from the fault to the first step of the next start
    saving: int = 0  # how often a save was under way when the run was killed
    problems: list[str] = field(default_factory=list)


class DrilledRun:
    """A run in a folder of runs of its own. `words`: the overrides that make it; `patience`: seconds for any wait."""

    def __init__(
        self,
        place: places.Place,
        words: Sequence[str],
        runs: Path,
        environment: dict[str, str],
        *,
        patience: float,
        given_up: threading.Event,
        preempt_with: str | None,
    ):
        self.place, self.words, self.runs, self.environment = place, tuple(words), runs, environment
        self.preempt_with = preempt_with
        self.seen = Seen()
        self.left_behind: list[str] = []  # jobs that the drill itself submitted
        self._found: RunDir | None = None
        self._patience, self._given_up = patience, given_up
        self._moment = 0.0
        self._before: list[int] = []  # processes when the fault came

    # -- starting and waiting --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it for the first time."""
        self.place.start(*self.words, f"runs={self.runs}")
        made = self.until(lambda: next(self.runs.glob("*/spec.json"), None), "its folder")
        self._found = RunDir(made.parent)

    @property
    def run(self) -> RunDir:
        if self._found is None:
            raise Impossible("the run was not made")
        return self._found

    @property
    def made(self) -> bool:
        return self._found is not None

    def sslrun(self, *words: str) -> Any:
        """`sslrun *words runs=...`, waited for: returncode, stdout, stderr."""
        return places.command(*words, f"runs={self.runs}", environment=self.environment)

    def until(
        self, condition: Callable[[], Any], what: str, *, seconds: float | None = None, poll: float = POLL_SECONDS
    ) -> Any:
        """The first true value of `condition()`. Raises Impossible, naming `what`, when it takes longer than `seconds`;
        by default, longer than the drill's patience since the run's latest step."""
        limit, waited, step = seconds or self._patience, 0.0, 0
        while not (value := condition()):
            if self._given_up.is_set():
                raise KeyboardInterrupt
            if waited > REST_SECONDS and self.made and self.place.at_rest(self.run):
                state = self.run.state()
                raise Impossible(f"waited {waited:.0f} s for {what}, and the run is {state.name}: {state.message}")
            if waited > limit:
                before, step = step, self.step() if self.made and seconds is None else 0
                if step == before:
                    raise Impossible(f"waited {limit:.0f} s for {what}, in vain")
                waited = 0.0
            began = time.monotonic()
            time.sleep(poll)
            waited += min(time.monotonic() - began, LONGEST_POLL)  # whoever stops the drill stops its watch, too
        return value

    def check(self, holds: object, otherwise: str) -> None:
        """Note `otherwise` as a problem unless `holds`."""
        if not holds:
            self.seen.problems.append(otherwise)

    # -- what it has done ------------------------------------------------------------------------------------------

    def steps(self) -> list[tuple[int, float]]:
        """(step, loss) of every step that was done, in order, also of those done twice: the run logs every step."""
        with contextlib.suppress(OSError):
            rows = (self.run.path / "metrics.jsonl").read_text().splitlines()
            return [(row["step"], row["loss"]) for row in _readable(rows) if "loss" in row]
        return []

    def step(self) -> int:
        """The last step that was done; 0 before the first."""
        try:
            with (self.run.path / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                rows = file.read().decode(errors="replace").splitlines()
        except OSError:
            return 0
        return next((row["step"] for row in reversed(list(_readable(rows))) if "loss" in row), 0)

    def saved(self) -> int:
        """The step of the newest checkpoint; -1 where there is none."""
        found = self.run.checkpoints()
        return int(found[-1].name.rpartition("_")[2]) if found else -1

    def saving(self) -> bool:
        """Is a save under way?"""
        return any((self.run.path / "checkpoints").glob(SAVING))

    def events(self, *names: str, since: int = 0) -> History:
        """The ledger's events of these names, of generation `since` or later."""
        return self.run.history().after(since - 1).all(*names)

    @property
    def job(self) -> str:
        """Slurm's, of the start that is under way or was the last."""
        return self.events("start")[-1]["job"]

    def stage(self) -> str:
        return self.run.progress().get("stage", "")

    def total(self) -> int:
        """Steps of the whole run."""
        return self.run.plan()["steps"]

    def train(self) -> None:
        """Wait until the start that is under way has saved something of its own, and done a step since."""
        since = [e["step"] for e in self.events("restored", since=self.run.generation())]
        first = since[-1] if since else 0

        def well_under_way() -> bool:
            if self.place.at_rest(self.run):
                raise Impossible(f"the run ended at step {self.step()}, before the fault: {self.run.state().message}")
            return self.saved() > first and self.step() > self.saved()

        self.until(well_under_way, "a checkpoint and a step after it")

    # -- what happens to it ----------------------------------------------------------------------------------------

    def rank(self, number: int) -> dict[str, Any]:
        """Process id and host of a rank (-1: the last) of the start that is under way, as its heartbeat tells them."""
        number = number if number >= 0 else self.run.spec().world_size + number

        def beat() -> dict[str, Any] | None:
            with contextlib.suppress(OSError, ValueError):
                found = read_json(self.run.path / "heartbeats" / f"rank{number}.json")
                return found if found["generation"] == self.run.generation() else None
            return None

        return self.until(beat, f"a sign of life of rank {number}")

    def ranks(self) -> list[dict[str, Any]]:
        return [self.rank(number) for number in range(self.run.spec().world_size)]

    def signal(self, rank: dict[str, Any], name: str) -> None:
        """Send a signal ("KILL") to the process of a rank."""
        self.on(rank, "kill", f"-{name}", str(rank["pid"]))

    def strike(self, name: str, *ranks: dict[str, Any]) -> None:
        """The fault comes now: a signal ("KILL") to each of `ranks`."""
        self.hit()
        for rank in ranks:
            self.signal(rank, name)

    def on(self, rank: dict[str, Any], *command: str) -> str:
        """Run a command where a rank runs."""
        return self.place.on(self.run, rank["host"], *command)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs no rank does a step, so that a small run is still there afterwards. Slurm, too, wakes
        them, when it tells them to go."""
        ranks = self.ranks()
        try:
            for rank in ranks:
                self.signal(rank, "STOP")
            yield
        finally:
            for rank in ranks:
                with contextlib.suppress(ClusterError):  # its job is over
                    self.signal(rank, "CONT")

    def hit(self) -> None:
        """The fault comes now: what is measured, is measured from here. May be called again for a second blow."""
        self.seen.generation = self.run.generation()
        self._before = places.processes(self.run)
        self._moment = time.monotonic()

    def ended(self) -> None:
        """Wait until the start that was hit is over, and look at what is left of it."""
        generation = self.seen.generation
        self.until(lambda: self.place.over(self.run, generation), "the end of the ranks")
        self.seen.ended_s = time.monotonic() - self._moment
        # A later start, which removes it, takes seconds to begin.
        self.seen.saving += self.saving()
        with contextlib.suppress(Impossible):
            self.until(lambda: not self._left(), "their processes", seconds=GONE_SECONDS)
        self.check(not self._left(), f"processes are left: {self._left()}")

    def back(self) -> None:
        """Have it started again where nobody else does, and wait for its first new step, or its end."""
        if not self.place.restarts:
            self.resume()
            return
        self.under_way()

    def resume(self, *words: str) -> None:
        """`sslrun resume`, by hand, and wait for the first new step, or the end."""
        self.place.start("resume", self.run.id, *words, f"runs={self.runs}")
        self.under_way()

    def stop(self) -> None:
        """As a person would, with Ctrl-C or `sslrun cancel`: it saves, and is at rest."""
        self.hit()
        if self.place.name == LOCAL:
            self.on(self.rank(0), "kill", "-INT", str(self.events("start")[-1]["pid"]))
        else:
            answer = self.sslrun("cancel", self.run.id, "--yes")
            self.check(answer.returncode == 0, f"`sslrun cancel` said: {answer.stderr.strip()}")
        self.ended()
        self.rest()

    def rest(self) -> str:
        """Wait until nothing more happens by itself; its state then."""
        self.until(lambda: self.place.at_rest(self.run), "the run to come to rest")
        return self.run.state().name

    def clean(self) -> None:
        with contextlib.suppress(SslrunError, OSError):
            self.place.clean(self._found)
            if self.left_behind:
                commands.cancel(self.left_behind)

    def slow_files(self, seconds: float) -> None:
        """From now on each fsync of a checkpoint takes so much longer (simulated)."""
        simulated.set_slow_files(self.runs / SIMULATED, seconds)

    def files_away(self, path: Path | None) -> None:
        """From now on no rank can read what lies there (simulated); None: all can be read."""
        simulated.set_away(self.runs / SIMULATED, str(path or ""))

    def under_way(self) -> None:
        """Wait until the next start has done its first new step, or has ended."""

        def restored() -> bool:
            if self.events("restored", since=self.seen.generation + 1):
                return True
            if self.place.at_rest(self.run):
                raise Impossible(f"it did not go on: {self.run.state().name}, {self.run.state().message}")
            return False

        self.until(restored, "the run to start again")
        before = len(self.steps())
        self.until(lambda: len(self.steps()) > before or self.place.at_rest(self.run), "the first new step")
        self.seen.seconds = time.monotonic() - self._moment

    def _left(self) -> list[int]:
        """Of the processes when the fault came. The first one of a job that starts again in place is to stay."""
        said = self.run.history().of(self.seen.generation)
        stays = {said.first("start")["pid"]} if said.last("end").get("in_place") else set()
        return sorted((set(self._before) - stays) & set(places.processes(self.run)))


def _readable(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The last line of a killed writer, or the first of a tail, may be torn."""
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]
