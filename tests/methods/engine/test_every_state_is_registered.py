"""State that changes in training and that no checkpoint holds is noticed in seconds, in the tiny recipe of any method.

The toy is a package of its own, as a user's method is: RotNet, with things in it that nobody registered. Every
registered method is looked at in tests/methods/test_contract.py.
"""

import textwrap
from pathlib import Path

import pytest

from launcher.rundir import RunDir

SPEC = """
    import dataclasses
    from dataclasses import dataclass

    from methods.rotnet import spec as rotnet


    @dataclass
    class ToyConfig(rotnet.RotNetConfig):
        name: str = "toy"
        hides: str = "nothing"


    def tiny():
        recipe = rotnet.tiny()
        return dataclasses.replace(recipe, method=ToyConfig(**{**vars(recipe.method), "name": "toy"}))


    METHOD = dataclasses.replace(
        rotnet.METHOD, name="toy", config=ToyConfig, recipes={"tiny": tiny}, trainer="toymethod.trainer:Toy"
    )
"""

TRAINER = """
    import copy
    import itertools
    import random
    from collections import deque

    import numpy as np
    import torch

    from launcher.runtime.stateful import ModuleState, ValueState
    from methods.ema import follow
    from methods.optim import clip_each, set_weight_decay
    from methods.rotnet.trainer import RotNet
    from methods.schedules import cosine

    calls = itertools.count(1)


    class Bank:
        __slots__ = ("rows",)


    class Toy(RotNet):
        def __init__(self, job):
            super().__init__(job)
            self.queue, self.seen = torch.zeros(4, 3), 0
            self.losses, self.rng, self.bank = {"rotation": deque(maxlen=2)}, np.random.default_rng(0), Bank()
            self.noise, self.dice, self.prototypes = torch.Generator(), random.Random(0), [np.zeros(2)]
            self.bank.rows, self.labels, self.mine = (1,), set(), job.world.rank
            self.backbone.forwards = 0
            self.teacher = copy.deepcopy(self.backbone) if job.world.size == 1 else None
            self.per_epoch_table = {"steps": torch.arange(9)}  # never changes, and needs no owner
            if job.config.hides == "nothing":
                job.registry.add("teacher", ModuleState(self.teacher))
                job.registry.add("memory", ValueState(self._memory, self._recall))
            if job.config.hides == "what differs by rank":
                job.registry.add("mine", ValueState(lambda: {"mine": self.mine}, self._mine))

        def steps(self, epoch, first):
            for number, batches in enumerate(super().steps(epoch, first), first):
                self.step = epoch * self.steps_per_epoch + number  # follows from its arguments, and needs no owner
                yield batches

        def loss(self, batch):
            loss, scalars = super().loss(batch)
            if self.job.config.hides == "a count of the module":
                return loss * next(calls), scalars
            if self.job.config.hides == "what differs by rank":
                self.mine += self.job.world.rank
                return loss, scalars
            self.queue = torch.cat([loss.detach().expand(1, 3), self.queue])[:4]
            self.seen += len(batch.ids)
            if self.job.config.hides != "nothing":
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
            if self.job.config.hides in ("nothing", "everything"):
                follow(self.teacher, self.backbone, 0.9)

        def _memory(self):
            return {"queue": self.queue, "seen": self.seen}

        def _recall(self, state):
            self.queue, self.seen = state["queue"], state["seen"]

        def _mine(self, state):
            self.mine = state["mine"]
"""


@pytest.fixture
def toy(sslrun, tmp_path, monkeypatch):
    """`toy(hides=...)`: launches the method `toy`, which an installed package registers as its entry point."""
    site = tmp_path / "site"
    for name, text in {
        "toymethod/__init__.py": "",
        "toymethod/spec.py": SPEC,
        "toymethod/trainer.py": TRAINER,
        "toymethod-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: toymethod\nVersion: 0.1\n",
        "toymethod-0.1.dist-info/entry_points.txt": "[sslrun.methods]\ntoy = toymethod.spec:METHOD\n",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(textwrap.dedent(text))
    monkeypatch.setitem(sslrun.environment, "PYTHONPATH", str(site))

    def launch(hides: str, *, ranks: int = 1, code: int = 0):
        given = "method=toy", "recipe=tiny", f"method.hides={hides}", f"tasks_per_node={ranks}"
        return sslrun(*given, f"runs={tmp_path / 'runs'}", "--json", code=code)

    return launch


def replayed(run: Path) -> list[dict]:
    return [event for event in RunDir(run).events() if event["event"] == "replayed"]


def test_what_nobody_registered_is_named(toy, one_line):
    line = one_line(toy("everything", code=2), inside=True)
    said = line.partition("=toy: ")[2].partition(" changed by step 4, ")[0].replace(", ...", "").split("; ")
    assert said == [
        "backbone.forwards", "bank.rows", "dice", "labels", "losses['rotation']", "noise", "prototypes[0]", "queue",
        "rng", "seen", "teacher.trunk.classifier.0.bias",
    ]  # fmt: skip
    assert "job.registry.add(...) it in Toy.__init__" in line


def test_what_is_registered_or_made_anew_is_not_complained_of(toy):
    assert replayed(Path(toy("nothing").json["path"]))


def test_a_count_that_no_attribute_holds_shows_in_the_step_that_it_changes(toy, one_line):
    line = one_line(toy("a count of the module", code=2), inside=True)
    assert "resumed at step 3 it takes another step" in line


def test_what_differs_by_rank_cannot_be_registered_as_the_same_on_all(toy, one_line):
    line = one_line(toy("what differs by rank", ranks=2, code=2), inside=True)
    assert "=toy: mine changed by step 4" in line
