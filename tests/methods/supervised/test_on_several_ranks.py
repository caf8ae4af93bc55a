"""A step that mixes, and the accuracy of the classifier, are the same on 1, 2 and 4 ranks."""

from pathlib import Path

import in_float64
import pytest
import torch

from launcher.compose.training import resolve
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry, stored
from methods import data
from methods.engine.job import Job

MIXED = ("method.global_batch=8", "method.batch_norm_group=0")
ONE_A_RANK = ("method.global_batch=4", "method.mixup=0", "method.cutmix=0")


def of_a_step(world, planned, folder):
    """(loss of this rank, gradients, figures)."""
    spec, run = stored.read(planned), RunDir(Path(folder) / f"{world.size}")
    layout = registry.method("supervised").layout(spec.method, world.size)
    with in_float64.Float64():
        train, test = (data.build(spec.data, split) for split in ("train", "test"))
        ledger = Ledger(run.path, 1, f"rank{world.rank}")
        job = Job(run, spec, world, layout, ledger, StopFlag(), train, labelled=(train, test))
        trainer = registry.load_trainer("supervised")(job)
        trainer.network.train()
        loss, _ = trainer.loss(next(trainer.steps(1, 1))[0], 11)
        loss.backward()
        gradients = {name: p.grad for name, p in trainer.module.named_parameters()}
        trainer.network.eval()
        return loss.detach(), gradients, trainer.figures(0)


@pytest.mark.parametrize("overrides", [MIXED, ONE_A_RANK], ids=["mixed", "one image a rank"])
def test_a_step_and_the_accuracy_are_those_of_one_rank(ranks, tmp_path, overrides):
    spec, _ = resolve(["method=supervised", "recipe=tiny", "method.dropout=0", "data.images=304", *overrides])
    found = ranks((1, 2, 4), of_a_step, spec.to_json(), str(tmp_path))
    ((loss, gradients, figures),) = found[1]
    assert 0 <= figures["classifier"]["top1"] <= 100
    for size in (2, 4):
        means = torch.stack([answer[0] for answer in found[size]]).mean()
        torch.testing.assert_close(means, loss, rtol=1e-9, atol=0)
        for answer in found[size]:
            assert answer[2] == figures
            for name, wanted in gradients.items():
                torch.testing.assert_close(answer[1][name], wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))
