"""Saves that go on behind the training, of which a few may fail."""

from collections.abc import Mapping
from typing import Any

from launcher.errors import InputError
from launcher.runtime.checkpoint import Checkpointer, SaveFailed
from methods.engine.job import DIVERGED, Job
from methods.engine.loss_watch import LossWatch

SAVES_THAT_MAY_FAIL = 3  # in a row, before a run that cannot save stops


def planned_interval(plan: Mapping[str, Any], world_size: int) -> int:
    """Steps between two saves, as the plan has them for so many ranks: of a range of nodes it has several."""
    here = (each for each in plan.get("layouts", ()) if each["world_size"] == world_size)
    return next(here, plan)["checkpoint_every"]


class Saves:
    """Periodic saves go on behind the training; a failed one is said and leaves the last one standing, several in a
    row end the run. What became of one is known when the next is due."""

    def __init__(self, job: Job, checkpoints: Checkpointer, watch: LossWatch, steps: int, *, restored: int = 0):
        self._job, self._checkpoints, self._watch, self._steps = job, checkpoints, watch, steps
        self._failed = 0
        self._step = restored or -1  # of the latest save: it may be under way
        self.every = job.config.checkpoint_every or planned_interval(job.run.plan(), job.world.size)

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
        # Of the grace of a preemption, since any rank was told; None where there is none, or nobody said how long.
        grace, told = self._job.spec.cluster.grace_s, max(self._job.world.gather(self._job.stop.seconds))
        left = grace - told if grace and told else None
        needed = max(self._job.world.gather(self._checkpoints.seconds or self._job.run.plan()["save_seconds"]))
        if self._step == step or left is None or needed <= left:
            self.last(step, haste=True)
            return
        with self._job.clock("checkpointing"):
            self._settle()
        if self._job.world.is_main:
            self._job.ledger.write("save_skipped", step=step, seconds=round(needed, 1), left=round(left, 1))
            print(f"no time to save step {step}: {needed:.0f} s, and {left:.0f} s are left", flush=True)

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
                    f"free some space and `sslrun resume {job.run.typed}`; {last.name if last else 'nothing'} stands",
                ) from None
            return
        if path is not None:
            self._failed = 0
            job.keeping.committed(step)
            if job.world.is_main:
                seconds = round(self._checkpoints.seconds or 0.0, 3)
                job.ledger.write("checkpoint", step=step, path=path.name, seconds=seconds)
