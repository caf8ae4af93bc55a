"""When a run that trains is judged, and by what: between two steps, which learn nothing of it."""

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator

import torch
from torch import nn

from methods.engine.job import Job
from methods.engine.trainer import Trainer

# (job, trainer, step, due, told): `due` are names of probes, and the method's for its own figures; `told` are the names
# of the scores that an earlier start has told of this step.
Evaluate = Callable[[Job, Trainer, int, Collection[str], Collection[str]], None]


def is_due(every: float, step: int, per_epoch: int) -> bool:
    """Whether `step` steps end one of the spans of `every` epochs; 0: never. A span is rounded to the nearest step.

    >>> [step for step in range(21) if is_due(0.25, step, 10)]
    [3, 5, 8, 10, 13, 15, 18, 20]
    """
    span = every * per_epoch
    if span <= 1:
        return span > 0 and step > 0
    number = _nearest(step / span)
    return number > 0 and _nearest(number * span) == step


class Evaluations:
    """The trainer's own figures every `method.eval_every` epochs, a probe as often unless it has an `eval_every` of its
    own, and all of them at the end; what a stop or a kill prevented is made up for."""

    def __init__(self, job: Job, trainer: Trainer, evaluate: Evaluate, restored: int):
        """restored: the step at which this start begins."""
        self._job, self._trainer, self._evaluate = job, trainer, evaluate
        usual = job.config.eval_every
        self._every = {job.config.name: usual}
        self._every |= {name: probe.get("eval_every", usual) for name, probe in job.spec.probes.items()}
        # Those that ran as jobs of their own (`by`) left out: they know nothing of the trainer's own figures.
        events = [e for e in job.run.history().all("eval") if not e.get("by")]
        told = [(event["step"], event["protocol"]) for event in events if event["step"] <= restored]
        self._told: list[tuple[int, str]] = job.world.broadcast(told)
        self._done = -1  # the step that this start has judged

    def catch_up(self, step: int) -> None:
        """Evaluate what is due at `step`. Collective; raises Stopped, and Diverged."""
        per_epoch = self._trainer.steps_per_epoch
        self.run(step, [name for name, every in self._every.items() if is_due(every, step, per_epoch)])

    def due(self, step: int) -> bool:
        """Whether anything is due in the midst of an epoch, behind `step` steps."""
        per_epoch = self._trainer.steps_per_epoch
        return step % per_epoch > 0 and any(is_due(every, step, per_epoch) for every in self._every.values())

    def run(self, step: int, due: Collection[str] | None = None) -> None:
        """Evaluate the state at `step`, once; due: all by default. The state stays as it is, and so does whatever the
        next step draws."""
        due = [*self._every] if due is None else due
        if not due or step == self._done:
            return
        told = {protocol for at, protocol in self._told if at == step}
        with self._job.clock("evaluation"), _as_it_was(self._job, self._trainer.networks):
            for network in self._trainer.networks:
                network.eval()
            self._evaluate(self._job, self._trainer, step, due, told)
        self._done = step


@contextlib.contextmanager
def _as_it_was(job: Job, networks: Iterable[nn.Module]) -> Iterator[None]:
    """Modes and generators are behind the block what they were before it."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    cuda = job.world.device.type == "cuda"
    with torch.random.fork_rng([job.world.device] if cuda else []):
        yield
    for module, training in modes:
        module.training = training


def _nearest(number: float) -> int:
    return math.floor(number + 0.5)
