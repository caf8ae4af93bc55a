"""Where a config asks for it, the last scale of every residual block begins at 0, also in a network that follows."""

import dataclasses
from inspect import signature

import pytest
import torch

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry
from methods import backbones, data
from methods.backbones.spec import BACKBONES
from methods.engine.job import Job

METHODS = ("supervised", "simclr", "byol")


def last_scales(network):
    return [block.bn2.weight for block in network.backbone.trunk.blocks]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("asked", [True, False])
def test_the_last_scale_of_every_block_begins_at_0_where_that_is_asked(tmp_path, method, asked):
    small = ("recipe=tiny", "method.backbone=small_resnet", f"method.zero_init_residual={asked}")
    spec, _ = resolve([f"method={method}", *small])
    world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
    layout = registry.method(method).layout(spec.method, 1)
    train = data.build(spec.data, "train")
    trainer = registry.load_trainer(method)(
        Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), train)
    )
    assert len(trainer.networks) == (2 if method == "byol" else 1)
    for network in trainer.networks:
        assert len(last_scales(network)) > 1
        assert all(bool((scale == 0).all()) == asked for scale in last_scales(network))


@pytest.mark.parametrize("method", METHODS)
def test_resnets_begin_so_in_the_papers_recipe_and_others_are_refused(method):
    made = registry.method(method)
    config = made.recipe("paper").method
    assert config.zero_init_residual
    for other in ("vgg16_bn", "vit_small_16"):
        with pytest.raises(InputError, match=r"^method\.zero_init_residual=True: no residual .*; set it to false$"):
            made.validate(dataclasses.replace(config, backbone=other), None)


def test_the_backbones_that_may_are_those_whose_builder_knows_how():
    may = {name for name, size in BACKBONES.items() if size.last_scales}
    assert may == {n for n in BACKBONES if "zero_init_residual" in signature(backbones.network(n).build).parameters}
