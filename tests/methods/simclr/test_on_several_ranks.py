"""The network and LARS' momentum are as after the same steps on 1, 2 and 4 ranks: with one image a rank, which is where
each rank's own negatives, own statistics, or own gradients would be others."""

import in_float64
import pytest
import torch

from launcher.compose.training import resolve
from launcher.spec import registry
from methods.simclr.trainer import SimCLR

STEPS = 4


def short(job):
    trainer = SimCLR(job)
    trainer.steps_per_epoch = STEPS
    return trainer


def in_world(world, spec, folder):
    return in_float64.train(world, spec, f"{folder}/{world.size}", trainer=short)


def test_other_ranks_are_the_same_training(ranks, tmp_path):
    """The head ends with batch normalisation over the whole batch, whose images lie on as many ranks."""
    lengths = ("method.epochs=1", "data.images=76", "method.log_every=1", "method.checkpoint_every=1000")
    large = ("method.optimizer=lars", "method.lr=2", "method.weight_decay=0.01", "method.temperature=0.5")
    spec, _ = resolve(["method=simclr", "recipe=tiny", *lengths, "method.global_batch=4", *large])
    layouts = [registry.method("simclr").layout(spec.method, size) for size in (1, 2, 4)]
    assert [(each.per_gpu_batch, each.accumulation) for each in layouts] == [(4, 1), (2, 1), (1, 1)]
    answers = ranks((1, 2, 4), in_world, spec.to_json(), str(tmp_path))
    alone = answers[1][0]
    assert len(alone.losses) == STEPS
    kept = {name for name, value in alone.state.items() if torch.is_tensor(value) and value.is_floating_point()}
    assert any(name.startswith("optimizer/") for name in kept) and "network/projection.4.running_var" in kept
    for size in (2, 4):
        assert answers[size][0].state.keys() == alone.state.keys()
        for answer in answers[size]:
            assert answer.losses == pytest.approx(alone.losses, rel=1e-9)
            for name in kept & answer.state.keys():
                torch.testing.assert_close(answer.state[name], alone.state[name], rtol=1e-7, atol=1e-9, msg=name)
