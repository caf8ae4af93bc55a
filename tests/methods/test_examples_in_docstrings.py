"""What the docstrings of losses and of their parts show is what they do."""

import doctest
import importlib

import pytest
import torch

MODULES = [
    "methods.augment.operators", "methods.augment.patches", "methods.data.splits", "methods.dino.loss",
    "methods.dino.teacher", "methods.engine.collapse", "methods.engine.pseudo_labels", "methods.parts.bank",
    "methods.parts.collectives", "methods.parts.layout", "methods.parts.losses", "methods.parts.memory",
    "methods.parts.memory_layout", "methods.parts.shapes", "methods.parts.sinkhorn", "methods.smog.groups",
    "methods.simclr.loss", "methods.smog.loss", "methods.swav.loss", "methods.swav.queue",
]  # fmt: skip
LOSSES = {"nt_xent", "swapped_prediction", "pseudo_labels", "distillation", "mean_square", "group_contrast", "sinkhorn"}


def examples(name):
    """{public name: its example} of a module; of a class, that of the class."""
    found = doctest.DocTestFinder().find(importlib.import_module(name), extraglobs={"torch": torch})
    return {test.name.removeprefix(f"{name}."): test for test in found if test.examples}


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    shown = examples(name)
    assert shown
    runner = doctest.DocTestRunner()
    for example in shown.values():
        assert runner.run(example).failed == 0, example.name


def test_every_loss_has_an_example():
    assert {name for module in MODULES for name in examples(module)} >= LOSSES
