"""What the loop gives to each step: its learning rate, its images, gradients that are a mean; stopped or not."""

import contextlib
import itertools
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from launcher.compose.training import resolve
from launcher.errors import Diverged
from launcher.plan import plan as planning
from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.runtime.stateful import ModuleState, OptimizerState
from methods.augment.views import TrainView
from methods.engine import loop
from methods.engine.job import Job
from methods.engine.trainer import Trainer
from methods.parts.schedules import learning_rate
from methods.rotnet.spec import METHOD

IMAGES, BATCH, EPOCHS, SIDE = 44, 8, 3, 6
PER_EPOCH = IMAGES // BATCH
SPEC = (
    "method=rotnet", "recipe=demo", f"method.epochs={EPOCHS}", f"method.global_batch={BATCH}", "method.workers=0",
    "method.warmup_epochs=1", "method.schedule=cosine", "method.checkpoint_every=1000", "method.eval_every=0",
)  # fmt: skip


class Noise:
    """Small images, without labels."""

    channels, classes, labels = 1, None, None

    def __len__(self):
        return IMAGES

    def name_of(self, index):
        return f"{index}.png"

    def image(self, index):
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (SIDE, SIDE), np.uint8))


class Toy(Trainer):
    """A linear layer, and a note of what every step was given."""

    steps_per_epoch = PER_EPOCH

    def __init__(self, job, stop_after=None):
        self.job, self._stop_after = job, stop_after
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 3))
        self.networks = [self.backbone]
        self.optimizers = [torch.optim.SGD(self.backbone.parameters(), lr=99.0, momentum=0.9)]
        self.given = []  # (number of the step, its rate, ids, sum of the pixels) of each pass
        self.evaluated = []  # steps done by then
        job.owners.add("network", ModuleState(self.backbone))
        names = dict(self.backbone.named_parameters())
        job.owners.add("optimizer", OptimizerState(self.optimizers[0], names))

    def steps(self, epoch, first):
        view = TrainView(self.job.spec.seed, SIDE, (0.3, 1.0))
        return self.job.batches_in_turn(view, epoch, first, self.steps_per_epoch)

    def loss(self, batch, step):
        rate, pixels = self.optimizers[0].param_groups[0]["lr"], batch.images.sum().item()
        self.given.append((step, rate, batch.ids.tolist(), pixels))
        if step + 1 == self._stop_after:
            self.job.stop.signal = signal.SIGTERM
        return self.backbone(batch.images.float() / 255).square().mean(), {}


@pytest.fixture
def train(tmp_path):
    """`train("method.lr=1", stop_after=5)`: the trainer of one life of the run in that folder, at its end."""

    def evaluate(job, trainer, step, due, told):
        if "toy" in told:
            return
        trainer.evaluated.append(step)
        job.ledger.write("eval", protocol="toy", step=step, scores={})

    def life(*overrides, stop_after=None, folder="run"):
        spec, recipe = resolve([*SPEC, *overrides, f"runs={tmp_path}"])
        run = RunDir(tmp_path / folder)
        if not run.path.exists():
            code = Snapshot(Path("code"), "digest", "")
            run.create(spec, planning.make(spec, recipe), lambda: code)
        ledger = Ledger(run.path, run.generation() + 1, "rank0")
        ledger.write("start", cause="submitted", world_size=1)
        world = World(0, 1, torch.device("cpu"))
        trainer = Toy(Job(run, spec, world, METHOD.layout(spec.method, 1), ledger, StopFlag(), Noise()), stop_after)
        trainer.stopped = False
        try:
            loop.train(trainer.job, trainer, evaluate)
        except Stopped:
            trainer.stopped = True
        return trainer

    return life


def weights_of(trainer):
    return torch.cat([p.flatten() for p in trainer.backbone.parameters()])


def weights(trainer):
    return weights_of(trainer).detach()


def test_every_step_has_the_rate_of_its_number(train):
    trainer = train()
    config, steps = trainer.job.config, PER_EPOCH * EPOCHS
    expected = [learning_rate(config, step, steps, PER_EPOCH) for step in range(steps)]
    assert [step for step, *_ in trainer.given] == list(range(steps))
    assert [rate for _, rate, *_ in trainer.given] == expected
    assert len(set(expected)) == steps


def test_an_epoch_has_every_image_once_and_the_next_one_another_order_and_other_crops(train):
    given = train().given
    epochs = [given[epoch * PER_EPOCH : (epoch + 1) * PER_EPOCH] for epoch in range(EPOCHS)]
    orders = [[image for _, _, ids, _ in steps for image in ids] for steps in epochs]
    assert all(len(set(order)) == PER_EPOCH * BATCH for order in orders)
    assert all(one != other for one, other in itertools.combinations(orders, 2))
    assert len({pixels for *_, pixels in given}) == len(given)


@pytest.mark.parametrize("stop_after", [1, PER_EPOCH - 1, PER_EPOCH, PER_EPOCH + 2])
def test_a_run_that_goes_on_gets_what_was_left_of_one_that_nobody_stopped(train, stop_after):
    whole = train(folder="whole")
    first = train(stop_after=stop_after)
    assert first.stopped and len(first.given) < len(whole.given)
    second = train()
    assert first.given + second.given == whole.given
    assert torch.equal(weights(second), weights(whole))


@pytest.mark.parametrize("beyond", [0, 2])
def test_what_a_kill_cost_is_what_was_done_beyond_the_checkpoint(train, beyond):
    first = train(stop_after=4)
    run, saved = first.job.run, len(first.given)
    # As if the process had gone on and been killed: what it did last is in here.
    write_json(run.path / "progress.json", {**run.progress(), "step": saved + beyond})
    assert train().job.ledger.generation == run.progress()["generation"]  # it is its own word by now
    (restored,) = run.history().all("restored")
    assert (restored["step"], restored["lost_steps"]) == (saved, beyond)


@pytest.mark.parametrize("stop_after", [PER_EPOCH - 1, PER_EPOCH, PER_EPOCH + 1])
def test_evaluations_come_every_so_many_epochs_and_at_the_end_and_none_twice(train, stop_after):
    steps = PER_EPOCH * EPOCHS
    assert train(folder="at the end").evaluated == [steps]
    assert train("method.eval_every=2", folder="every second").evaluated == [2 * PER_EPOCH, steps]
    first, second = train("method.eval_every=1", stop_after=stop_after), train("method.eval_every=1")
    assert first.stopped
    assert first.evaluated + second.evaluated == [PER_EPOCH, 2 * PER_EPOCH, steps]


def test_passes_of_a_step_are_one_mean(train):
    """Batch statistics of 2 images make a step four passes; this network has none."""
    one, four = train(folder="one"), train("method.batch_norm_group=2", folder="four")
    assert len(four.given) == 4 * len(one.given)
    assert [ids for _, _, ids, _ in one.given] == [
        [image for _, _, ids, _ in four.given[n : n + 4] for image in ids] for n in range(0, len(four.given), 4)
    ]
    torch.testing.assert_close(weights(four), weights(one))


def test_fp16_whose_gradients_are_no_numbers_at_any_scale_ends_the_run_although_the_loss_is_one(train, monkeypatch):
    """The gradient of a square root at 0. Torch's scale of 65536 is halved 30 times until it is below 1e-4."""
    monkeypatch.setattr(Toy, "loss", lambda self, batch, step: ((weights_of(self) * 0).sum().sqrt(), {}))
    with pytest.raises(Diverged, match=r"overflow fp16 .* at step 30 on rank 0, .*: use method.precision=bf16"):
        train("method.precision=fp16", "method.epochs=8")


def test_a_pass_may_say_what_the_one_before_did_not(train):
    trainer = train()
    with contextlib.closing(trainer.steps(0, 0)) as stream:
        passes = [*next(stream), *next(stream)]
    loss, said = trainer.loss, iter([{}, {"late": torch.tensor(3.0)}])
    trainer.loss = lambda batch, step: (loss(batch, step)[0], next(said))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    assert float(loop.take_step(trainer.job, trainer, scaler, passes, 0, 0.1)["late"]) == 1.5
