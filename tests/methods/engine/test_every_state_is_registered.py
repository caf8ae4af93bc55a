"""State that changes in training and that no checkpoint holds is found, as tests/methods/test_contract.py finds it in
every registered method: the toy is RotNet, with things in it that nobody registered."""

import copy
import functools
import itertools
import random
from collections import deque

import in_float64
import numpy as np
import pytest
import torch

from launcher.compose.training import resolve
from launcher.runtime.stateful import ModuleState, ValueState
from methods.parts.ema import follow
from methods.parts.optim import clip_each, set_weight_decay
from methods.parts.schedules import cosine
from methods.rotnet.trainer import RotNet

calls = itertools.count()


class Bank:
    __slots__ = ("rows",)


class Toy(RotNet):
    """`hides`: what of it nobody registers."""

    def __init__(self, job, hides):
        self.hides = hides
        super().__init__(job)
        self.queue, self.seen = torch.zeros(4, 3), 0
        self.losses, self.rng, self.bank = {"rotation": deque(maxlen=2)}, np.random.default_rng(0), Bank()
        self.noise, self.dice, self.prototypes = torch.Generator(), random.Random(0), [np.zeros(2)]
        self.bank.rows, self.labels, self.mine = (1,), set(), job.world.rank
        self.backbone.forwards = 0
        self.teacher = copy.deepcopy(self.backbone) if job.world.size == 1 else None
        self.per_epoch_table = {"steps": torch.arange(9)}  # never changes, and needs no owner
        if self.hides == "nothing":
            job.owners.add("teacher", ModuleState(self.teacher))
            job.owners.add("memory", ValueState(self._memory, self._recall))
        if self.hides == "what differs by rank":
            job.owners.add("mine", ValueState(lambda: {"mine": self.mine}, self._mine))

    def steps(self, epoch, first):
        for number, batches in enumerate(super().steps(epoch, first), first):
            self.step = epoch * self.steps_per_epoch + number  # follows from its arguments, and needs no owner
            yield batches

    def loss(self, batch, step):
        loss, scalars = super().loss(batch, step)
        if self.hides == "a count of the module":
            return loss * next(calls), scalars
        if self.hides == "what differs by rank":
            self.mine += self.job.world.rank
            return loss, scalars
        self.queue = torch.cat([loss.detach().expand(1, 3), self.queue])[:4]
        self.seen += len(batch.ids)
        if self.hides != "nothing":
            self.losses["rotation"].append(loss.item())
            self.rng.random(), torch.rand(1, generator=self.noise), self.dice.random()
            self.bank.rows += (self.seen,)
            self.labels.add(self.seen)
            self.prototypes[0] += 1
            self.backbone.forwards += 1
        self.grid = torch.arange(16)  # made by every step from nothing, and needs no owner
        return loss, scalars

    def before_step(self, step):
        set_weight_decay(self.optimizers[0], cosine(step, 100, 0.04, 0.4))

    def after_backward(self, step):
        clip_each(self.backbone.parameters(), 0.01 + step / 100)

    def after_step(self, step):
        if self.hides in ("nothing", "everything"):
            follow(self.teacher, self.backbone, 0.9)

    def _memory(self):
        return {"queue": self.queue, "seen": self.seen}

    def _recall(self, state):
        self.queue, self.seen = state["queue"], state["seen"]

    def _mine(self, state):
        self.mine = state["mine"]


def stopped_and_gone_on_with(world, spec, folder, hides):
    """(what was not brought back, what differed in the end), of a training that was stopped after its third step."""

    def life(name, **given):
        global calls
        calls = itertools.count(1)  # as in a process of its own
        toy = functools.partial(Toy, hides=hides)
        return in_float64.train(world, spec, f"{folder}/{name}", trainer=toy, watched=True, **given)

    whole = life("whole")
    life("stopped", stop_after=2)
    return in_float64.left_out(whole, life("stopped"))


@pytest.fixture
def lost(ranks, tmp_path):
    """`lost("everything", 2)`: by rank, of two."""
    # One epoch of five steps: two are left after the stop.
    few = "method.epochs=1", "method.global_batch=16", "data.images=80", "method.checkpoint_every=1000"
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "method.log_every=1", *few])
    return lambda hides, size=1: ranks(size, stopped_and_gone_on_with, spec.to_json(), str(tmp_path), hides)


def test_what_nobody_registered_is_named(lost):
    ((found, _),) = lost("everything")
    assert {name.split("[")[0].split(".")[0] for name in found} == {
        "bank", "dice", "labels", "losses", "module", "noise", "prototypes", "queue", "rng", "seen", "teacher",
    }  # fmt: skip
    assert [name for name in found if name.startswith("module")] == ["module.backbone.forwards"]


def test_what_is_registered_or_made_anew_is_not_complained_of(lost):
    assert lost("nothing") == [([], [])]


def test_a_count_that_no_attribute_holds_shows_in_the_steps_that_it_changes(lost):
    ((found, changed),) = lost("a count of the module")
    assert not found and "module.backbone.trunk.classifier.0.bias" in changed


def test_what_differs_by_rank_cannot_be_registered_as_the_same_on_all(lost):
    (first, _), (second, _) = lost("what differs by rank", 2)
    assert (first, second) == ([], ["mine"])
