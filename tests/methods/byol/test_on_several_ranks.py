"""The online network, the target and their batch statistics are as after the same steps on 1, 2 and 4 ranks: with one
image a rank, and where one rank's passes are another world's ranks."""

import in_float64
import pytest
import torch

from launcher.compose.training import resolve
from launcher.spec import registry
from methods.byol.trainer import BYOL

STEPS = 4


def short(job):
    trainer = BYOL(job)
    trainer.steps_per_epoch = STEPS
    return trainer


def in_world(world, spec, folder):
    return in_float64.train(world, spec, f"{folder}/{world.size}", trainer=short)


@pytest.mark.parametrize(
    ("overrides", "passes"),
    [
        # Statistics over the whole batch, whose images lie on as many ranks.
        pytest.param(("method.global_batch=4",), (1, 1, 1), id="one image a rank"),
        # 1 rank takes four passes of 4 images, each of 2 ranks two, each of 4 ranks one.
        pytest.param(("method.global_batch=16", "method.batch_norm_group=4"), (4, 2, 1), id="accumulation"),
    ],
)
def test_other_ranks_and_passes_are_the_same_training(ranks, tmp_path, overrides, passes):
    lengths = ("method.epochs=1", "data.images=76", "method.log_every=1", "method.checkpoint_every=1000")
    spec, _ = resolve(["method=byol", "recipe=tiny", *lengths, "method.target_momentum=0.5", *overrides])
    assert tuple(registry.method("byol").layout(spec.method, size).accumulation for size in (1, 2, 4)) == passes
    answers = ranks((1, 2, 4), in_world, spec.to_json(), str(tmp_path))
    alone = answers[1][0]
    assert len(alone.losses) == STEPS
    assert any(name.startswith("target/backbone") for name in alone.state)
    for size in (2, 4):
        assert answers[size][0].state.keys() == alone.state.keys()
        for answer in answers[size]:
            assert answer.losses == pytest.approx(alone.losses, rel=1e-9)
            for name, value in alone.state.items():
                if isinstance(value, torch.Tensor) and value.is_floating_point() and name in answer.state:
                    torch.testing.assert_close(answer.state[name], value, rtol=1e-7, atol=1e-9, msg=name)
