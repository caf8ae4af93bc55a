"""What keeps a run from harm: saves that may fail, a loss that may not be a number, outputs that all become alike."""

from collections import deque
from collections.abc import Mapping
from typing import NoReturn

import torch
from torch import nn

from launcher.errors import Diverged, InputError
from launcher.runtime.checkpoint import Checkpointer, SaveFailed
from launcher.runtime.stateful import ValueState
from methods.engine.collapse import Watched
from methods.engine.job import DIVERGED, GO, Job

READINGS, LONGEST = 3, 1000  # of a collapse before it is one: at least so many, over an epoch or so many steps
SAVES_THAT_MAY_FAIL = 3  # in a row, before a run that cannot save stops


class Saves:
    """Periodic saves go on behind the training; a failed one is said and leaves the last one standing, several in a
    row end the run. What became of one is known when the next is due."""

    def __init__(self, job: Job, checkpoints: Checkpointer, watch: "LossWatch", steps: int, *, restored: int = 0):
        self._job, self._checkpoints, self._watch, self._steps = job, checkpoints, watch, steps
        self._failed = 0
        self._step = restored or -1  # of the latest save: it may be under way
        self.every = job.config.checkpoint_every or job.run.plan()["checkpoint_every"]

    def save(self, step: int) -> None:
        """Begin to save and go on. Raises InputError after several failures, and as `LossWatch.decide` does where the
        loss diverged or somebody was told to stop, also while the save before was waited for."""
        self._watch.decide(self._vote())
        with self._job.clock("checkpointing"):
            self._settle()
        self._watch.decide(self._vote())
        with self._job.clock("checkpointing"):
            self._begin(step)

    def before_work(self, step: int) -> None:
        """Save before something long happens at `step`, unless its state is saved already: behind it, as `save`."""
        if self._step != step:
            self.save(step)

    def last(self, step: int, *, haste: bool = False) -> None:
        """Save now, in `haste` before a kill, and wait for it. A save under way of an older step is given up. Raises
        InputError on failure."""
        if self._vote() == DIVERGED:
            self._watch.raise_diverged()
        with self._job.clock("checkpointing"):
            if self._step == step:  # nothing happened since
                self._settle(final=True)
                return
            self._settle(drop=True)
            self._begin(step, haste=haste)
            self._settle(final=True)

    def stop(self, step: int) -> None:
        """As `last`, in haste. Where it is known that a save does not fit into the time left, none is begun; one under
        way, of an older step, is seen through: it needs less."""
        left = self._seconds_left()
        needed = max(self._job.world.gather(self._checkpoints.seconds or self._job.run.plan()["save_seconds"]))
        if self._step == step or left is None or needed <= left:
            self.last(step, haste=True)
            return
        with self._job.clock("checkpointing"):
            self._settle()
        if self._job.world.is_main:
            self._job.ledger.write("save_skipped", step=step, seconds=round(needed, 1), left=round(left, 1))
            print(f"no time to save step {step}: {needed:.0f} s, and {left:.0f} s are left", flush=True)

    def _seconds_left(self) -> float | None:
        """Of the grace of a preemption, since any rank was told; None where there is none, or nobody said how long."""
        grace, told = self._job.spec.cluster.grace_s, max(self._job.world.gather(self._job.stop.seconds))
        return grace - told if grace and told else None

    def _vote(self) -> int:
        return self._job.vote.now(max(self._job.verdict(), self._watch.verdict(wait=True)))

    def _begin(self, step: int, *, haste: bool = False) -> None:
        self._step = step
        self._checkpoints.begin(step, self._steps, haste=haste)

    def _settle(self, *, drop: bool = False, final: bool = False) -> None:
        job, step = self._job, self._step
        try:
            path = self._checkpoints.settle(drop=drop)
        except SaveFailed as error:
            if job.world.is_main:
                job.ledger.write("save_failed", step=step, reason=str(error))
                print(f"checkpoint at step {step} failed: {error}", flush=True)
            if drop:  # the next one is tried at once
                return
            self._failed += 1
            if final or self._failed >= SAVES_THAT_MAY_FAIL:
                last = self._checkpoints.last()
                raise InputError.of(
                    "runs",
                    job.run.path,
                    f"the checkpoint at step {step} could not be written ({error})",
                    f"free some space and `sslrun resume {job.run.id}`; {last.name if last else 'nothing'} stands",
                ) from None
            return
        if path is not None:
            self._failed = 0
            job.committed(step)
            if job.world.is_main:
                seconds = round(self._checkpoints.seconds or 0.0, 3)
                job.ledger.write("checkpoint", step=step, path=path.name, seconds=seconds)


class LossWatch:
    """Sees a loss that is not a number without making the GPU wait: each is read when the next step has been queued."""

    def __init__(self, job: Job, checkpoints: Checkpointer, networks: list[nn.Module]):
        self._job, self._checkpoints, self._networks = job, checkpoints, networks
        self._waiting: deque[tuple[int, dict[str, torch.Tensor], list[torch.Tensor]]] = deque()
        self._values: dict[str, float] = {}
        self._read_step, self._read_ids = 0, []
        self._bad: tuple[int, list[int]] | None = None
        self._lag = 1 if job.world.device.type == "cuda" else 0

    @property
    def latest(self) -> float | None:
        return self._values.get("loss")

    def note(self, step: int, scalars: dict[str, torch.Tensor], ids: list[torch.Tensor]) -> None:
        names = list(scalars)
        stacked = torch.stack([scalars[name].float() for name in names]).to("cpu", non_blocking=True)
        ready = None
        if self._lag:
            ready = torch.cuda.Event()
            ready.record()
        self._waiting.append((step, {"names": names, "values": stacked, "ready": ready}, ids))
        while len(self._waiting) > self._lag:
            self._read()

    def averaged(self) -> tuple[int, dict[str, float]]:
        """Collective: the newest step whose scalars were read, and their means over the ranks. Waits where a life has
        read none yet."""
        if not self._values:
            self._read()
        names = sorted(self._values)
        values = torch.tensor([self._values[name] for name in names], dtype=torch.float64)
        if self._job.world.size > 1:
            torch.distributed.all_reduce(values, group=self._job.world.control)
        return self._read_step, dict(zip(names, (values / self._job.world.size).tolist(), strict=True))

    def decide(self, outcome: int) -> None:
        """Act on a vote: raises Diverged, Stopped or InputError, on all ranks alike."""
        if outcome == DIVERGED:
            self.raise_diverged()
        self._job.decide(outcome)

    def verdict(self, *, wait: bool = False) -> int:
        """This rank's vote. `wait`: after reading every loss, and looking at the weights, which the last step may have
        spoilt although its loss was a number."""
        while wait and self._waiting:
            self._read()
        if wait and self._bad is None and not all(_finite(network) for network in self._networks):
            self._bad = (self._read_step, self._read_ids)
        return DIVERGED if self._bad else GO

    def raise_diverged(self) -> NoReturn:
        """Collective: name the earliest step that any rank saw go wrong, and its samples."""
        world = self._job.world
        seen = [(*bad, rank) for rank, bad in enumerate(world.gather(self._bad)) if bad]
        step, ids, rank = min(seen)
        last = self._checkpoints.last()
        raise Diverged(
            f"the loss is not a number at step {step} on rank {rank}, samples {', '.join(map(str, ids[:16]))}"
            f"{', ...' if len(ids) > 16 else ''}; the last good checkpoint is {last.name if last else 'none'}. "
            "Going on would meet the same step again: lower method.lr or change the data, as a new run"
        )

    def _read(self) -> None:
        step, scalars, ids = self._waiting.popleft()
        if scalars["ready"] is not None:
            scalars["ready"].synchronize()
        values = scalars["values"]
        self._read_step, self._read_ids = step, [int(i) for part in ids for i in part]
        self._values = dict(zip(scalars["names"], values.tolist(), strict=True))
        if self._bad is None and not bool(torch.isfinite(values).all()):
            self._bad = (step, self._read_ids)


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
        job.registry.add("health", ValueState(self._reached, self._go_on))

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


def _finite(network: nn.Module) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters())
