"""What no equation says of MoCo-v2's trainer: precision, which weights decay, when keys are mixed, what is watched."""

import contextlib
import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from launcher.runtime.checkpoint import Owners
from launcher.runtime.dist import World
from methods.engine.loop import take_step
from methods.mocov2.spec import tiny
from methods.mocov2.trainer import MoCoV2

IMAGES, RATE = 4, 0.05


class Views(list):
    """Crops that are what the network sees."""

    def to(self, device, non_blocking=False):
        return self


def batch(step):
    generator = torch.Generator().manual_seed(step)
    crops = Views(torch.randn(views * IMAGES, 3, size, size, generator=generator) for views, size in ((2, 16), (1, 8)))
    return SimpleNamespace(images=crops, ids=range(IMAGES))


def trainer_of(**values):
    config = dataclasses.replace(tiny().method, **{"global_batch": IMAGES, "queue": 2 * IMAGES, "epochs": 2, **values})
    world = World(0, 1, torch.device("cpu"))
    job = SimpleNamespace(
        config=config,
        world=world,
        layout=SimpleNamespace(per_gpu_batch=IMAGES, accumulation=1, batch_norm_ranks=1),
        spec=SimpleNamespace(seed=0, init_from=None),
        dataset=range(3 * IMAGES),
        owners=Owners(world),
        seed_for=lambda *what: sum(map(len, map(str, what))),
        distribute=lambda module: module,
        autocast=contextlib.nullcontext,
    )
    trainer = MoCoV2(job)
    trainer.photometrics = lambda crops: crops
    for network in trainer.networks:
        network.train()
    return trainer


def take(trainer, step):
    return take_step(trainer.job, trainer, torch.amp.GradScaler("cpu", enabled=False), [batch(step)], step, RATE)


def test_queries_and_keys_are_fp32_of_length_1_whatever_the_precision():
    trainer = trainer_of()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for network in trainer.networks:
            found = network(batch(0).images)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)), rtol=1e-6, atol=1e-6)


def test_sgd_decays_all_alike_and_adamw_all_but_biases_and_the_like_on_the_schedule_of_dino():
    sgd = trainer_of(final_weight_decay=None, weight_decay=0.25)
    take(sgd, 0)
    (optimizer,) = sgd.optimizers
    assert [(type(optimizer), group["weight_decay"]) for group in optimizer.param_groups] == [(torch.optim.SGD, 0.25)]
    assert len(optimizer.param_groups[0]["params"]) == len(list(sgd.module.parameters()))
    adamw = trainer_of(optimizer="adamw", weight_decay=0.04, final_weight_decay=0.4)
    for step, decay in ((0, 0.04), (3, 0.22), (6, 0.4)):  # half a cosine
        take(adamw, step)
        (optimizer,) = adamw.optimizers
        assert type(optimizer) is torch.optim.AdamW
        assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([decay, 0])
        assert all(p.ndim <= 1 for p in optimizer.param_groups[1]["params"])


@pytest.mark.parametrize(
    ("values", "shuffles"),
    [
        ({"batch_norm_group": 2}, True),
        ({"batch_norm_group": 2, "shuffle": False}, False),
        ({"batch_norm_group": 2, "backbone": "small_vit"}, False),  # images meet in no statistics
        ({"batch_norm_group": 2, "backbone": "small_vit", "head_batch_norm": True}, True),  # but in the head's
        ({"batch_norm_group": IMAGES, "backbone": "small_vit", "head_batch_norm": True}, False),
        ({"batch_norm_group": IMAGES}, False),
        ({}, False),
    ],
)
def test_keys_are_mixed_where_groups_of_a_batch_have_statistics_of_their_own(values, shuffles):
    assert trainer_of(**values).shuffles == shuffles


def test_without_batch_statistics_mixed_keys_are_those_that_were_not():
    trainer = trainer_of(backbone="small_vit")
    crop = batch(0).images[0][:IMAGES]
    plain = trainer._keys(crop, 0)
    trainer.shuffles = True
    torch.testing.assert_close(trainer._keys(crop, 0), plain, rtol=1e-5, atol=1e-6)


def test_queries_that_are_alike_are_said():
    trainer = trainer_of()
    scalars = {name: value.item() for name, value in take(trainer, 0).items()}
    assert trainer.watched.says(scalars) is None and scalars.keys() == {"loss", "found", "positive", "likeness"}
    with torch.no_grad():
        trainer.module.projection[-1].weight.mul_(1e-4)
        trainer.module.projection[-1].bias.fill_(0.3)
    alike = {name: value.item() for name, value in take(trainer, 1).items()}
    assert "features differ in length and sign alone" in trainer.watched.says(alike)


def test_a_loss_of_queries_and_keys_that_are_all_alike_is_that_of_chance():
    trainer = trainer_of()
    with torch.no_grad():
        for network in trainer.networks:
            network.projection[-1].weight.zero_()
            network.projection[-1].bias.fill_(0.3)
        trainer.queue._rows.fill_(8**-0.5)
    found = take(trainer, 0)
    assert found["loss"].item() == pytest.approx(math.log(1 + 2 * IMAGES), rel=1e-5)
    assert (found["likeness"].item(), found["positive"].item()) == pytest.approx((1, 1))
