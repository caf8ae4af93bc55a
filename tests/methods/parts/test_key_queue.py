"""MoCo's queue: the latest keys of all ranks, the same ones in the same places on any number of ranks."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.runtime.checkpoint import Checkpointer, Owners
from launcher.spec.schema import TrainConfig
from methods.parts.memory import KeyQueue
from methods.parts.memory_layout import check_queue

WORLDS, LENGTH, BATCH, D, STEPS = (2, 1, 4), 24, 8, 3, 5
SAVED = 2  # ranks, by which the state is written that all worlds go on from


def keys_of(step):
    return torch.randn(BATCH, D, generator=torch.Generator().manual_seed(step))


def fed(queue, steps, rank, size):
    for step in steps:
        queue.put(keys_of(step).chunk(size)[rank])
    return queue


def in_a_world(world, folder):
    """(keys after each step from an empty queue, those at first and at last of a random one, those of a queue that goes
    on from what two ranks saved, and whether it is full)"""
    queue, found = KeyQueue(LENGTH, D), []
    for step in range(STEPS):
        fed(queue, [step], world.rank, world.size)
        found.append((queue.keys(), queue.full))
    random = KeyQueue(LENGTH, D, seed=7)
    first = random.keys(), random.full
    last = fed(random, [0], world.rank, world.size).keys()
    return found, first, last, gone_on(world, Path(folder))


def gone_on(world, folder):
    def checkpoints(queue):
        owners = Owners(world)
        owners.add("queue", queue)
        return Checkpointer(RunDir(folder), world, owners, keep=1, generation=1)

    if world.size == SAVED:
        checkpoints(fed(KeyQueue(LENGTH, D), range(4), world.rank, world.size)).save(4, 9)
    queue = KeyQueue(LENGTH, D, seed=1)
    assert checkpoints(queue).restore() == 4
    return fed(queue, [4], world.rank, world.size).keys(), queue.full


@pytest.fixture(scope="module")
def told(ranks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    return ranks(WORLDS, in_a_world, str(folder))


@pytest.mark.parametrize("size", WORLDS)
def test_every_rank_holds_the_latest_keys_of_all_ranks(told, size):
    for found, *_ in told[size]:
        for step, (keys, full) in enumerate(found):
            held = [step - (step - place) % 3 for place in range(3)]  # the latest step that fell to each third
            assert torch.equal(keys, torch.cat([keys_of(each) for each in held if each >= 0]))
            assert full == (step >= 2)


@pytest.mark.parametrize("size", WORLDS)
def test_a_random_one_begins_full_of_the_same_unit_vectors(told, size):
    for _, (first, full), last, _ in told[size]:
        assert full and first.shape == (LENGTH, D) and torch.equal(first, told[1][0][1][0])
        torch.testing.assert_close(first.norm(dim=1), torch.ones(LENGTH))
        assert torch.equal(last, torch.cat([keys_of(0), first[BATCH:]]))


def test_another_seed_draws_others():
    assert not torch.equal(KeyQueue(4, D, seed=0).keys(), KeyQueue(4, D, seed=1).keys())


@pytest.mark.parametrize("size", WORLDS)
def test_what_two_ranks_saved_goes_on_as_if_nothing_had_happened(told, size):
    for found, _, _, (keys, full) in told[size]:
        assert full and torch.equal(keys, found[4][0])


def test_a_loss_can_be_differentiated_after_the_next_keys_are_in():
    queue, query = KeyQueue(LENGTH, D, seed=0), keys_of(1).requires_grad_()
    before = queue.keys()
    loss = (query @ queue.keys().T).sum()
    queue.put(query * 2)
    loss.backward()
    torch.testing.assert_close(query.grad, before.sum(0).expand_as(query))
    assert not queue.keys().requires_grad


def test_keys_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="length=0: a queue holds"):
        KeyQueue(0, D)
    with pytest.raises(ValueError, match="length=20: no multiple of the 8 keys of a step"):
        KeyQueue(20, D).put(keys_of(0))


@dataclass
class Keyed(TrainConfig):
    queue: int = 24


@pytest.mark.parametrize(
    ("length", "fix"),
    [(20, "use 16 or 24"), (7, "use at least 8"), (0, "use at least 8"), (-8, "use at least 8"), (24, None)],
)
def test_a_config_hears_of_it_in_one_line(length, fix):
    config = Keyed(global_batch=BATCH, queue=length)
    if fix is None:
        return check_queue(config)
    with pytest.raises(InputError) as refused:
        check_queue(config)
    assert str(refused.value) == f"method.queue={length}: no multiple of the global batch of 8; {fix}"
