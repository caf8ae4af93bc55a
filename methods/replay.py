"""What a trainer holds beside the state that it registered: found by a second trainer, which takes the same step.

In runs of the tiny recipe on CPU. After a save a second trainer is made and gets the registered state, as a resumed run
would; both take the next step. Whatever then differs between the two would have been lost by a preemption. Runs of
other recipes never come here.
"""

import contextlib
import copy
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from launcher.errors import InputError
from launcher.runtime.attributes import attributes
from launcher.runtime.checkpoint import Registry
from launcher.runtime.stateful import ValueState
from launcher.runtime.store import Store
from methods.job import Job
from methods.schedules import learning_rate

if TYPE_CHECKING:
    from methods.engine import Trainer

RECIPE = "tiny"
NAMED = 12  # attributes that the complaint names

Step = Callable[..., Any]  # the engine's: (job, trainer, scaler, batches, step, rate)


class Replay:
    """Beside the saves of one life. Every method is collective, and does nothing where there is nothing to do."""

    def __init__(self, job: Job, trainer: "Trainer", scaler: torch.amp.GradScaler, take_step: Step):
        self._job, self._trainer, self._scaler, self._take_step = job, trainer, scaler, take_step
        self._active = job.spec.recipe == RECIPE and job.world.device.type == "cpu"  # on GPUs bytes are not promised
        self._saves = 0
        self._resumed: dict[str, str] | None = None  # the second trainer after its step
        self._unequal: set[str] = set()  # what differed before it

    def begin(self, step: int, steps: int) -> None:
        """After the save at `step`: have a second trainer take the next step. Raises Stopped as `begin_epoch` does."""
        self._saves += 1
        if not self._active or self._saves & (self._saves - 1):  # 1, 2, 4, 8, ...: soon, then ever more rarely
            return
        # The global stream of random numbers stays as it was for the trainer that goes on.
        with self._job.clock("replay"), torch.random.fork_rng(devices=[]):
            job, trainer, scaler = self._second()
            self._unequal = _unequal(_held(self._job, self._trainer), _held(job, trainer))
            per_epoch, config = trainer.steps_per_epoch, job.config
            epoch = step // per_epoch
            trainer.begin_epoch(epoch)
            for network in trainer.networks:
                network.train()
            with contextlib.closing(trainer.steps(epoch, step % per_epoch)) as stream:
                batches, rate = next(stream), learning_rate(config, step, steps, per_epoch)
                self._take_step(job, trainer, scaler, batches, step, rate)
            self._resumed = _held(job, trainer)

    def compare(self, step: int) -> None:
        """After the step that `begin` was ahead of, now `step`. Raises InputError, on all ranks alike."""
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            return
        held = _held(self._job, self._trainer)
        unequal = _unequal(held, resumed)
        # What differed from the start is the cause; weights, which follow from it, are not.
        cause = {*unequal} & self._unequal
        found = self._job.world.gather((sorted(cause), sorted(unequal)))
        causes = list(dict.fromkeys(name for names, _ in found for name in names))
        effects = list(dict.fromkeys(name for _, names in found for name in names))
        kind = type(self._trainer).__name__
        if causes:
            reason = f"{_listed(causes)} changed by step {step}, and no registered state brings it back after a stop"
            self._refuse(reason, f"job.registry.add(...) it in {kind}.__init__")
        if effects:
            reason = f"resumed at step {step - 1} it takes another step: {_listed(effects)} would not be the same"
            self._refuse(reason, f"let what {kind} draws follow from job.seed_for(...), and hold no state elsewhere")
        if self._job.world.is_main:
            self._job.ledger.write("replayed", step=step, attributes=len(held))

    def _refuse(self, reason: str, fix: str) -> NoReturn:
        raise InputError.of("method", self._job.config.name, reason, fix)

    def _second(self) -> tuple[Job, "Trainer", torch.amp.GradScaler]:
        """A trainer as a resumed run makes it, and what it trains with."""
        scaler = torch.amp.GradScaler(self._job.world.device.type, enabled=self._scaler.is_enabled())
        job = copy.copy(self._job)
        job.registry = Registry(job.world)
        job.registry.add("scaler", ValueState(scaler.state_dict, scaler.load_state_dict))
        job.spec = dataclasses.replace(job.spec, init_from=None)  # as once a run has saved
        job.save = lambda: None  # the run's own saves, and work that it keeps for itself, are not the second one's
        job.keeping = lambda *_, **__: contextlib.nullcontext(Store(None, every_s=0.0))
        trainer = type(self._trainer)(job)
        written = self._written()
        for file, entries in job.registry.shards().items():
            for name, entry in entries.items():
                entry.owner.load_state(written.get((file, name), {}))
        return job, trainer, scaler

    def _written(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """(file, owner) -> its state, as a checkpoint has it: each from the one rank that writes it."""
        mine = {
            (file, name): {key: _stored(value) for key, value in entry.owner.state().items()}
            for file, entries in self._job.registry.shards().items()
            for name, entry in entries.items()
            if entry.writes
        }
        return {key: state for part in self._job.world.gather(mine) for key, state in part.items()}


def _stored(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else json.loads(json.dumps(value))


def _held(job: Job, trainer: "Trainer") -> dict[str, str]:
    return attributes(trainer, without=(job, *vars(job).values()))


def _unequal(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


def _listed(names: list[str]) -> str:
    """The names, those of one attribute of the trainer as one."""
    roots: dict[str, list[str]] = {}
    for name in names:
        roots.setdefault(re.split(r"[.\[]", name)[0], []).append(name)
    said = [f"{found[0]}{', ...' if len(found) > 1 else ''}" for found in roots.values()]
    return "; ".join(said[:NAMED]) + (f"; and {len(said) - NAMED} more" if len(said) > NAMED else "")
