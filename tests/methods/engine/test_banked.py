"""A bank of embeddings, and the labels that DeepCluster-v2 and SeLa-v2 make of it: filled in train mode, kept as they
were before each step, and the same on 1, 2 and 4 ranks."""

import copy

import in_float64
import numpy as np
import pytest
import torch

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.spec import registry
from methods import data
from methods.data.sampler import Permutation
from methods.engine.banked import FILLING
from methods.engine.job import Job
from methods.engine.loop import take_step
from methods.parts.losses import NO_LABEL

METHODS = ("deepclusterv2", "selav2")
BATCH, IMAGES, EPOCHS, LEFT_OVER = 16, 76, 2, 12  # of an epoch's four steps
SMALL = ("recipe=tiny", f"method.global_batch={BATCH}", f"data.images={IMAGES}", f"method.epochs={EPOCHS}")
WORLDS = (2, 1, 4)


class StopAt(StopFlag):
    """Told to stop at the n-th question."""

    def __init__(self, count):
        super().__init__()
        self.left = count

    def __bool__(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture
def make(tmp_path):
    """`make("selav2", "method.heads=2", ..., stop=StopFlag())`: a trainer, and its job."""

    def made(method, *overrides, stop=None):
        spec, _ = resolve([f"method={method}", *SMALL, *overrides])
        world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
        (tmp_path / "plan.json").write_text('{"disk_gb": 0}')
        layout = registry.method(method).layout(spec.method, 1)
        dataset = data.build(spec.data, "train")
        stop = StopFlag() if stop is None else stop  # `or` would ask it
        job = Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), stop, dataset)
        job.keeping = Unkept()
        return registry.load_trainer(method)(job)

    return made


class Unkept:
    """In the place of a job's `keeping`: there is no file."""

    unkept_s = 0.0

    def __call__(self, step, key, **room):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def slot(self, name):
        return None


def everything(trainer):
    """What a trainer's checkpoint would hold."""
    owners = [entry for entries in trainer.job.owners.shards().values() for entry in entries.items()]
    state = {f"{name}/{key}": value for name, entry in owners for key, value in entry.owner.state().items()}
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in state.items()}


def differ(one, other):
    assert one.keys() == other.keys()
    same = lambda a, b: torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b  # noqa: E731
    return {key for key in one if not same(one[key], other[key])}


# -- the filling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [(), ("method.global_crops=3", "method.local_crops=0")], ids=["2+2", "3"])
def test_the_bank_is_filled_in_train_mode_by_the_embeddings_of_the_global_crops(make, float64, overrides):
    """Of an epoch that is never trained; statistics move as by so many steps without gradients."""
    trainer = make("selav2", "method.dropout=0", *overrides)
    views, reference = trainer.config.global_crops, copy.deepcopy(trainer.module).eval()
    reference.train()
    expected = {}
    with torch.no_grad():
        for (batch,) in trainer.steps(FILLING, 0):
            images = trainer.crops(batch)[0]
            rows = reference.projection(reference.backbone(images)).unflatten(0, (views, -1))
            for image, id_ in enumerate(batch.ids.tolist()):
                expected[id_] = torch.stack([row / row.norm() for row in rows[:, image]])
    trainer.module.eval()  # as an evaluation leaves it
    trainer.begin_epoch(0)
    ids, rows = trainer.bank.mine
    assert ids.tolist() == sorted(expected) and len(ids) == IMAGES - LEFT_OVER
    torch.testing.assert_close(rows, torch.stack([expected[id_] for id_ in ids.tolist()]), rtol=0, atol=1e-12)
    for (name, found), wanted in zip(trainer.module.named_buffers(), reference.buffers(), strict=True):
        if name.endswith("num_batches_tracked"):
            assert found == IMAGES // BATCH
        else:
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_while_it_is_filled_changes_nothing_and_it_begins_anew(make, method):
    undisturbed = make(method)
    undisturbed.begin_epoch(0)
    stopped = make(method, stop=StopAt(3))
    before = everything(stopped)
    with pytest.raises(Stopped):
        stopped.begin_epoch(0)
    assert not differ(before, everything(stopped)) and not stopped.filled
    stopped.job.stop = StopFlag()
    stopped.begin_epoch(0)
    assert not differ(everything(undisturbed), everything(stopped))


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_while_labels_are_made_keeps_the_bank_and_nothing_else(make, method):
    undisturbed = make(method)
    undisturbed.begin_epoch(0)
    stopped = make(method, stop=StopAt(IMAGES // BATCH + 3))
    before = everything(stopped)
    with pytest.raises(Stopped):
        stopped.begin_epoch(0)
    changed = differ(before, everything(stopped))
    assert stopped.filled and stopped.labelled_epoch == -1
    assert {name.split("/")[0].split("_0")[0] for name in changed} == {"bank", "network", "round"}
    assert not any("prototypes" in name for name in changed)
    stopped.job.stop = StopFlag()
    stopped.begin_epoch(0)
    assert not differ(everything(undisturbed), everything(stopped))


@pytest.mark.parametrize("method", METHODS)
def test_an_epoch_that_is_resumed_in_its_middle_keeps_its_labels(make, method):
    trainer = make(method)
    trainer.begin_epoch(0)
    before = everything(trainer)
    trainer.bank.put_mine(trainer.bank.mine[0], trainer.bank.mine[1].flip(0))
    trainer.begin_epoch(0)
    changed = differ(before, everything(trainer))
    assert changed and all(name.startswith("bank") for name in changed)
    trainer.begin_epoch(1)
    assert any(name.startswith("labels") for name in differ(before, everything(trainer)))


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_step_keeps_the_embeddings_that_were_before_it(make, float64, method):
    trainer = make(method, "method.dropout=0")
    trainer.begin_epoch(0)
    trainer.network.train()
    (batch,) = next(trainer.steps(0, 0))
    everyone, reference = torch.arange(IMAGES), copy.deepcopy(trainer.module)
    expected = trainer.bank.rows(everyone)
    trainer.before_step(0)
    if method == "selav2":
        reference.prototypes.normalise()
    take_step(trainer.job, trainer, torch.amp.GradScaler("cpu", enabled=False), [batch], 0, 0.1)
    with torch.no_grad():
        rows, _ = reference(trainer.crops(batch))
    rows = rows.unflatten(0, (-1, BATCH))[:2].transpose(0, 1)
    expected[batch.ids] = rows
    torch.testing.assert_close(trainer.bank.rows(everyone), expected, rtol=0, atol=1e-12)


# -- ranks -------------------------------------------------------------------------------------------------------------


def in_a_world(world, specs, folder):
    return {name: in_float64.train(world, spec, f"{folder}/{name}-{world.size}").state for name, spec in specs.items()}


def test_bank_labels_and_prototypes_are_the_same_on_one_two_and_four_ranks(ranks, tmp_path):
    """Where some images of an epoch have no label yet, because the filling left them out."""
    specs = {}
    for method in METHODS:
        spec, _ = resolve([f"method={method}", *SMALL, "method.checkpoint_every=1000", "method.log_every=1"])
        specs[method] = spec.to_json()
    answers = ranks(WORLDS, in_a_world, specs, str(tmp_path))
    for method in METHODS:
        states = {}
        for size, of_ranks in answers.items():
            states[size] = {}
            for each in of_ranks:
                states[size] |= each[method]
        whole = states[1]
        labels = torch.cat(
            [whole[name] for name in sorted(whole) if name.startswith("labels") and name.endswith("rows")]
        )
        assert int((labels == NO_LABEL).all(1).sum()) == IMAGES - len(met(spec.seed))
        assert int((labels >= 0).all(1).sum()) == len(met(spec.seed))
        for size in (2, 4):
            assert states[size].keys() == whole.keys()
            for name, value in whole.items():
                if name.startswith("labels"):
                    assert torch.equal(value, states[size][name]), name
                elif isinstance(value, torch.Tensor) and value.is_floating_point():
                    torch.testing.assert_close(states[size][name], value, rtol=1e-7, atol=1e-7, msg=f"{size}: {name}")


def met(seed):
    """The images that the bank holds when the labels of the second epoch are made: of the filling and of epoch 0."""
    spec, _ = resolve(["method=selav2", *SMALL])
    job = Job.__new__(Job)
    job.spec = spec
    orders = [Permutation(IMAGES, job.seed_for("order", epoch)) for epoch in (FILLING, 0)]
    return {int(id_) for order in orders for id_ in order(np.arange(IMAGES - LEFT_OVER))}


def test_fewer_images_than_prototypes_are_one_line(make):
    for method in METHODS:
        with pytest.raises(InputError, match=r"method\.prototypes=65: .* 64 images .*; use at most 64"):
            resolve([f"method={method}", *SMALL, "method.prototypes=65"])
    trainer = make("deepclusterv2")
    trainer.begin_epoch(0)
    trainer.bank._known[5:] = False  # as if most could not be read
    with pytest.raises(
        InputError, match=r"method\.prototypes=6: only [345] images could be read for the bank; use fewer"
    ):
        trainer.begin_epoch(1)
