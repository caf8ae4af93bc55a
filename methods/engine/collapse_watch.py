"""A collapse of the outputs is said once it has lasted, and again when it is over."""

from collections.abc import Mapping

from launcher.errors import Diverged
from launcher.runtime.checkpoint import Checkpointer
from launcher.runtime.stateful import ValueState
from methods.engine.collapse import Watched
from methods.engine.job import Job

READINGS, LONGEST = 3, 1000  # of a collapse before it is one: at least so many, over an epoch or so many steps


class CollapseWatch:
    """Says when the scalars of several steps in a row tell of a collapse, and when they no longer do. Training goes on,
    unless the spec says stop: a network that has only begun may look like one that collapsed. How long it has lasted is
    registered here, before anything is restored: however often a run is stopped, it is said at the same step."""

    def __init__(self, job: Job, checkpoints: Checkpointer, watched: Watched | None, steps_per_epoch: int):
        self._job, self._checkpoints, self._watched = job, checkpoints, watched
        self._span = min(steps_per_epoch, LONGEST)
        self._since: int | None = None
        self._readings = 0
        self._said = bool(last_word(job, "outputs"))
        job.owners.add("health", ValueState(self._reached, self._go_on))

    def note(self, step: int, means: dict[str, float]) -> None:
        """Look at the scalars of `step`, the same on all ranks. Raises Diverged, on all of them, where the spec says
        stop."""
        found = self._watched.says(means) if self._watched else None
        if found is None:
            self._since, self._readings = None, 0
            if self._said:
                self._say(step, "")
            return
        self._since = step if self._since is None else self._since
        self._readings += 1
        if self._readings < READINGS or step - self._since < self._span:
            return
        found = f"outputs collapsed since step {self._since}: {found}"
        if not self._said:
            self._say(step, found)
        if self._job.config.on_collapse == "stop":
            last = self._checkpoints.last()
            raise Diverged(
                f"{found}; the last checkpoint is {last.name if last else 'none'}. Going on would not bring it back: "
                "change the recipe, as a new run"
            )

    def _reached(self) -> dict[str, int | None]:
        return {"since": self._since, "readings": self._readings}

    def _go_on(self, saved: Mapping[str, int | None]) -> None:
        self._since, self._readings = saved.get("since"), saved.get("readings", 0)  # older checkpoints have neither

    def _say(self, step: int, what: str) -> None:
        self._said = bool(what)
        say_health(self._job, step, "outputs", what)


def last_word(job: Job, of: str) -> str:
    """What the run last said of its health, by its outputs or by its features; empty where it is well."""
    said = [event["what"] for event in job.run.history().all("health") if event.get("of") == of]
    return said[-1] if said else ""


def say_health(job: Job, step: int, of: str, what: str) -> None:
    """In the ledger, the log and on the screen: what is wrong, or, with an empty `what`, that it no longer is."""
    if job.world.is_main:
        job.ledger.write("health", step=step, of=of, what=what)
        job.notices.append(what or f"{of} no longer collapsed at step {step}")
        print(job.notices[-1], flush=True)
        job.reporter.progress(force=True, notices=job.notices)
