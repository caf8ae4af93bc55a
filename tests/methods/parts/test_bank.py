"""A bank by sample id is the same on any number of ranks, whichever rank saw a sample last."""

from pathlib import Path

import pytest
import torch

from launcher import kmeans
from launcher.run.folder import RunDir
from launcher.runtime.checkpoint import Checkpointer, Owners
from methods.parts.bank import SampleBank
from methods.parts.memory_layout import bank_bytes, part_of_bank, share_of_bank

WORLDS, SAMPLES, PARTS, SHAPE, BATCH, STEPS = (2, 1, 4), 53, 8, (2, 3), 8, 9
SAVED = 2  # ranks, by which the state is written that all worlds go on from


def batch(step):
    """(ids [BATCH], rows [BATCH, *SHAPE]) of a step: one image is there twice, as where another is broken
    (methods/data/loader.py), and one on the first rank and on the last."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randperm(SAMPLES, generator=generator)[:BATCH]
    ids[1] = ids[0]
    ids[-1] = ids[2]
    return ids, torch.randn(BATCH, *SHAPE, generator=generator)


def put(bank, steps, rank, size):
    for step in steps:
        bank.put(*(each.chunk(size)[rank] for each in batch(step)))
    return bank


def expected(steps, rows):
    """`rows` [SAMPLES, ...] after these steps, one image after the other; which were put."""
    rows, known = rows.clone(), set()
    for step in steps:
        for id_, row in zip(*batch(step), strict=True):
            rows[id_] = row
            known.add(int(id_))
    return rows, sorted(known)


def in_a_world(world, folder):
    rank, size = world.rank, world.size
    bank = put(SampleBank(SAMPLES, SHAPE, parts=PARTS, fill=-7), range(STEPS), rank, size)
    asked = torch.arange(SAMPLES - 1, -1, -1)[: SAMPLES // 4 * 4].chunk(size)[rank]  # of samples of every rank
    everyones = torch.randn(SAMPLES, 1, generator=torch.Generator().manual_seed(1))
    random = SampleBank(SAMPLES, (4,), parts=PARTS, seed=3)
    labels = SampleBank(SAMPLES, (), parts=PARTS, dtype=torch.int64, fill=-100)
    ids, rows = bank.mine
    labels.put_mine(ids, 1000 + ids)
    clusters = kmeans.fit(rows[:, 0], 3, seed=5, deterministic=True)
    return {
        "asked": asked,
        "rows": bank.rows(asked),
        "same": bank.rows(torch.tensor([9, 50, 9])),
        "mine": (ids, rows.clone()),
        "random": random.mine,
        "labels": labels.rows(asked),
        "centroids": clusters.centroids,
        "bytes": sum(each.nbytes for each in (bank._rows, bank._known)),
        "everyones": moved(SampleBank(SAMPLES, (1,), parts=PARTS), everyones, rank, size),
        "gone on": gone_on(world, Path(folder)),
        "few": few(rank, size),
    }


def moved(bank, rows, rank, size):
    """NPID's update of its features, two times: a mean of what was there and what is new."""
    for step in range(2):
        ids, _ = (each.chunk(size)[rank] for each in batch(step))
        bank.put(ids, 0.5 * bank.rows(ids) + 0.5 * rows[ids])
    return bank.rows(torch.arange(SAMPLES))


def gone_on(world, folder):
    def checkpoints(bank):
        owners = Owners(world)
        for number, part in bank.parts().items():
            owners.add(f"bank_{number:03d}", part, shard=f"bank_{number:03d}", writes=True)
        return Checkpointer(RunDir(folder), world, owners, keep=1, generation=1)

    if world.size == SAVED:
        bank = SampleBank(SAMPLES, SHAPE, parts=PARTS, fill=-7)
        checkpoints(put(bank, range(STEPS - 1), world.rank, world.size)).save(STEPS - 1, STEPS)
    bank = SampleBank(SAMPLES, SHAPE, parts=PARTS, fill=3, seed=0)
    assert checkpoints(bank).restore() == STEPS - 1
    ids, rows = put(bank, [STEPS - 1], world.rank, world.size).mine
    return ids, rows.clone(), bank.rows(torch.arange(SAMPLES))


def few(rank, size):
    """Three samples: with four ranks, or eight parts, some hold none."""
    bank = SampleBank(3, (1,), parts=PARTS)
    ids = torch.arange(4)[rank : rank + 1].clamp(max=2)
    bank.put(ids, ids.unsqueeze(1) + 10.0)
    assert sorted(bank.parts()) == list(range(rank * PARTS // size, (rank + 1) * PARTS // size))
    return bank.rows(torch.tensor([2, 0])).flatten().tolist(), bank.mine[0].tolist()


@pytest.fixture(scope="module")
def told(ranks, tmp_path_factory):
    """{world_size: [what each rank got]}"""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    return ranks(WORLDS, in_a_world, str(folder))


@pytest.fixture(scope="module")
def whole():
    return expected(range(STEPS), torch.full((SAMPLES, *SHAPE), -7.0))


@pytest.mark.parametrize("size", WORLDS)
def test_every_rank_reads_what_any_rank_put_last(told, whole, size):
    for each in told[size]:
        assert torch.equal(each["rows"], whole[0][each["asked"]])
        assert torch.equal(each["same"], whole[0][[9, 50, 9]])


@pytest.mark.parametrize("size", WORLDS)
def test_the_shares_in_order_of_rank_are_what_was_ever_put_in_order_of_id(told, whole, size):
    ids, rows = (torch.cat(each) for each in zip(*(each["mine"] for each in told[size]), strict=True))
    assert 0 < len(ids) < SAMPLES and ids.tolist() == whole[1]
    assert torch.equal(rows, whole[0][ids])


@pytest.mark.parametrize("size", WORLDS)
def test_k_means_of_the_shares_and_its_labels_know_no_world(told, whole, size):
    for each in told[size]:
        assert torch.equal(each["centroids"], told[1][0]["centroids"])
        known = torch.isin(each["asked"], torch.tensor(whole[1]))
        assert torch.equal(each["labels"], torch.where(known, 1000 + each["asked"], -100))


@pytest.mark.parametrize("size", WORLDS)
def test_random_unit_vectors_are_the_same_ones(told, size):
    ids, rows = (torch.cat(each) for each in zip(*(each["random"] for each in told[size]), strict=True))
    assert torch.equal(ids, torch.arange(SAMPLES)) and torch.equal(rows, told[1][0]["random"][1])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(SAMPLES))
    assert len(rows.unique(dim=0)) == SAMPLES


@pytest.mark.parametrize("size", WORLDS)
def test_rows_that_move_are_moved_once_a_step(told, size):
    for each in told[size]:
        assert torch.equal(each["everyones"], told[1][0]["everyones"])


@pytest.mark.parametrize("size", WORLDS)
def test_what_two_ranks_saved_goes_on_as_if_nothing_had_happened(told, whole, size):
    ids = torch.cat([each["gone on"][0] for each in told[size]])
    assert ids.tolist() == whole[1]
    for mine, rows, every in (each["gone on"] for each in told[size]):
        assert torch.equal(rows, whole[0][mine]) and torch.equal(every, whole[0])


@pytest.mark.parametrize("size", WORLDS)
def test_ranks_may_hold_none(told, size):
    for each in told[size]:
        assert each["few"][0] == [12.0 if size == 4 else 0.0, 10.0]
    assert [id_ for each in told[size] for id_ in each["few"][1]] == list(range(min(size, 3)))


@pytest.mark.parametrize("size", WORLDS)
def test_it_takes_the_bytes_that_a_spec_is_told(told, size):
    said = bank_bytes(SAMPLES, 2 * 3 * 4, parts=PARTS, world_size=size)
    assert max(each["bytes"] for each in told[size]) == said


@pytest.mark.parametrize(("samples", "parts"), [(10, 1), (10, 4), (3, 8), (1_281_167, 64)])
def test_shares_are_whole_parts_and_hold_every_sample_once(samples, parts):
    edges = [part_of_bank(samples, parts, number).start for number in range(parts)]
    for size in range(1, min(parts, 9) + 1):
        shares = [share_of_bank(samples, parts, rank, size) for rank in range(size)]
        assert [share.start for share in shares] == [0, *(share.stop for share in shares[:-1])]
        assert shares[-1].stop == samples and all(share.start in edges for share in shares)


def test_what_cannot_be_held_is_refused():
    with pytest.raises(ValueError, match="samples=0"):
        SampleBank(0, (2,), parts=1)
    with pytest.raises(ValueError, match="parts=2: fewer than the 3 ranks"):
        share_of_bank(10, 2, 0, 3)


@pytest.mark.parametrize("ids", [[0, 5], [-1, 0]])
def test_a_sample_that_is_none_is_refused(ids):
    bank, ids, rows = SampleBank(5, (2,), parts=1), torch.tensor(ids), torch.zeros(2, 2)
    for call in (lambda: bank.put(ids, rows), lambda: bank.rows(ids)):
        with pytest.raises(IndexError, match="outside 0 to 4, the samples of the bank"):
            call()
    with pytest.raises(IndexError, match="outside 0 to 4, this rank's share"):
        bank.put_mine(ids, rows)
