"""What a trainer need not write: several optimisers are registered under their names, a follower is built, moved and
saved beside the network, the one called "network" is exported, a queue, a bank and columns go with the run."""

from pathlib import Path

import in_float64
import pytest
import torch
from torch.nn.functional import cross_entropy

from launcher.compose.training import resolve
from methods import backbones
from methods.engine.trainer import Trainer
from methods.parts import ema, optim
from methods.parts.bank import SampleBank
from methods.parts.layout import memory_parts
from methods.parts.memory import KeyQueue
from methods.rotnet.spec import ROTATIONS
from methods.rotnet.trainer import RotNet

SAME = 1e-9  # relative, in float64


class Two(RotNet):
    """An optimiser for the backbone, one for the classifier at a tenth of the rate, and a teacher that is exported."""

    saved_as = ("student", "network")

    def __init__(self, job):
        super().__init__(job)
        self.queue = self.remember("queue", KeyQueue(2 * self.config.global_batch, ROTATIONS, seed=3))
        parts = memory_parts(self.config.global_batch)
        self.bank = self.remember("bank", SampleBank(len(job.dataset), (ROTATIONS,), parts=parts))

    def steps(self, epoch, first):
        return self.job.batches_in_turn(self.view(), epoch, first, self.steps_per_epoch, columns=("label",))

    def loss(self, batch, step):
        images, labels = self.images(batch), batch.columns["label"] % ROTATIONS
        scores = self.network(images)
        with torch.no_grad():
            keys = self.follower(images)
        loss = cross_entropy(scores @ self.queue.keys().T, labels) + (scores * self.bank.rows(batch.ids)).mean()
        self.queue.put(keys)
        self.bank.put(batch.ids, keys)
        return loss + cross_entropy(scores, labels), {}

    def build_follower(self, network):
        teacher = self.network_type(backbones.build(self.config.backbone), self.outline.heads)
        ema.begin(teacher, network)
        return teacher

    def optimizer(self, network):
        slow = [{"params": list(network.classifier.parameters()), "lr_scale": 0.1}]
        return {
            "optimizer": optim.make(self.config, network.backbone.parameters()),
            "head_optimizer": torch.optim.SGD(slow, lr=1.0, momentum=0.5),
        }

    def after_step(self, step):
        ema.follow(self.follower, self.module, 0.5)


def trained(world, spec, folder):
    """(state of a training that nobody stopped; on two ranks of one that was, too; whether the teacher is exported)."""
    folder, built = Path(folder) / f"{world.size}", []

    def life(name, stop_after=0):
        return in_float64.train(world, spec, folder / name, stop_after=stop_after, trainer=make).state

    def make(job):
        built.append(Two(job))
        return built[-1]

    whole, resumed = life("whole"), None
    if world.size == 2:
        life("stopped", stop_after=3)
        resumed = life("stopped")
    return whole, resumed, built[-1].backbone is built[-1].follower.backbone


@pytest.fixture(scope="module")
def made(ranks, tmp_path_factory):
    few = "method.epochs=2", "method.global_batch=16", "data.images=76", "method.checkpoint_every=1000"
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "method.log_every=1", "method.dropout=0", *few])
    return ranks((1, 2, 4), trained, spec.to_json(), str(tmp_path_factory.mktemp("two")))


def test_each_optimiser_and_each_network_is_saved_under_its_name(made):
    whole, _, exported = made[1][0]
    owners = {key.split("/")[0] for key in whole}
    assert owners >= {"network", "student", "optimizer", "head_optimizer", "queue", "bank_000"} and exported
    assert {key.split("/")[1] for key in whole if key.startswith("head_optimizer/")} == {
        "classifier.weight:momentum_buffer", "classifier.bias:momentum_buffer",
    }  # fmt: skip
    assert all(key.split("/")[1].startswith("backbone.") for key in whole if key.startswith("optimizer/"))


def test_resumed_they_are_the_same_bytes(made):
    whole, resumed, _ = made[2][0]
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        same = torch.equal(value, resumed[key]) if isinstance(value, torch.Tensor) else value == resumed[key]
        assert same, key


@pytest.mark.parametrize("size", [2, 4])
def test_on_several_ranks_they_are_what_one_makes(made, size):
    one = made[1][0][0]
    several = {key: value for state, *_ in made[size] for key, value in state.items()}  # each rank has its share
    assert one.keys() == several.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            torch.testing.assert_close(several[key], value, rtol=SAME, atol=SAME)


def test_a_trainer_without_a_loss_says_so():
    with pytest.raises(NotImplementedError, match=r"Trainer.loss"):
        Trainer.loss(object.__new__(Trainer), None, 0)
