"""RotNet's loss and its gradients are Eqs. 2 and 3 of Gidaris et al. 2018, written out image by image in float64."""

import copy

import numpy as np
import pytest
import torch

from launcher.compose.training import resolve
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry
from methods import data
from methods.engine.job import Job
from methods.rotnet.trainer import RotNet

SMALL = ["method=rotnet", "recipe=tiny", "method.dropout=0", "method.global_batch=8", "method.workers=0"]


@pytest.fixture
def trainer(float64, tmp_path):
    """In training, with the batch of its first step."""
    spec, _ = resolve(SMALL)
    world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
    layout = registry.method("rotnet").layout(spec.method, 1)
    job = Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), data.build(spec.data, "train"))
    made = RotNet(job)
    made.network.train()
    made.batch = next(made.steps(0, 0))[0]
    return made


def written_out(network, images):
    """(loss, share of the angles that are told right): -log of the share that the softmax gives to the angle by which
    an image was turned, mean over four angles of each image."""
    # One image after the other, four angles each: batch statistics are of all of them together, in whatever order.
    turned = [np.rot90(image, quarter, axes=(1, 2)).copy() for image in images.numpy() for quarter in range(4)]
    backbone = network.backbone
    seen = backbone.input.float()(torch.from_numpy(np.stack(turned))).double()  # bytes are scaled in float32
    terms, hits = [], 0
    for number, row in enumerate(network.classifier(torch.relu(backbone.trunk(seen)))):
        angle = number % 4
        terms.append(torch.log(torch.exp(row).sum()) - row[angle])
        hits += int(row.argmax()) == angle
    return sum(terms) / len(terms), hits / len(terms)


def test_loss_accuracy_and_gradients_are_those_of_the_equations(trainer):
    reference = copy.deepcopy(trainer.network).double()
    expected, hits = written_out(reference, trainer.batch.images)
    expected.backward()
    loss, scalars = trainer.loss(trainer.batch, 0)
    loss.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-9, atol=0)
    assert scalars["accuracy"].item() == pytest.approx(hits)
    for (name, found), wanted in zip(trainer.network.named_parameters(), reference.parameters(), strict=True):
        off = (found.grad.double() - wanted.grad).norm()
        assert off <= 1e-9 * wanted.grad.norm() + 1e-12, name
