"""What is kept of a clustering: whole or absent, of use only where it came from, never in the way of checkpoints."""

import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from launcher.run.folder import RunDir
from launcher.runtime import store as stores
from launcher.runtime.dist import World
from launcher.runtime.store import discard, open_store
from methods.engine.features import BATCH, NAME, _Block

ALONE = World(0, 1, torch.device("cpu"))


def opened(folder, step=4, key=None, needed=0, reserve=0, every_s=0.0):
    made_from = key or {"weights": "a"}
    return open_store(RunDir(folder), ALONE, step, lambda: made_from, needed=needed, reserve=reserve, every_s=every_s)


def keep(store, first=0, last=4, number=0.0):
    store.keep(NAME, first, last, {"features": torch.full((last - first, 3), number)}, {"note": [first]})
    store.wait()


def folder(path, step=4):
    return path / "features" / f"step_{step:08d}"


# -- files -------------------------------------------------------------------------------------------------------------


def test_what_was_kept_is_found_by_another_life(tmp_path):
    store, why = opened(tmp_path)
    assert (store.active, why) == (True, "")
    keep(store, 4, 8, 2.0)
    keep(store, 0, 4, 1.0)
    store.close()
    again, why = opened(tmp_path)
    assert why == ""
    assert [(item.first, item.last) for item in again.items(NAME)] == [(0, 4), (4, 8)]
    for item, number in zip(again.items(NAME), (1.0, 2.0), strict=True):
        found = again.read(item)
        assert torch.equal(found["features"], torch.full((4, 3), number)) and found["note"] == [item.first]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda _: b""]
)
def test_a_damaged_file_is_deleted_and_not_believed(tmp_path, damage, capsys):
    store, _ = opened(tmp_path)
    keep(store)
    (item,) = store.items(NAME)
    item.path.write_bytes(damage(item.path.read_bytes()))
    assert store.read(item) is None
    assert not item.path.exists() and store.items(NAME) == []
    assert f"{item.path.name} is damaged" in capsys.readouterr().out


def test_what_a_killed_life_left_half_written_is_not_found_and_goes(tmp_path):
    store, _ = opened(tmp_path)
    keep(store)
    (item,) = store.items(NAME)
    item.path.rename(folder(tmp_path) / ".writing-0123")
    again, _ = opened(tmp_path)
    assert again.items(NAME) == [] and not (folder(tmp_path) / ".writing-0123").exists()


def test_a_state_replaces_the_one_before(tmp_path):
    store, _ = opened(tmp_path)
    for number in (1, 2, 3):
        store.slot("k-means").note(
            number, {"centroids": torch.full((2, 2), float(number))}, {"inertia": [0.1] * number}
        )
    assert len(store.items("k-means")) == 1
    again, _ = opened(tmp_path)
    number, state = again.slot("k-means").load()
    assert number == 3 and state["inertia"] == [0.1] * 3 and torch.equal(state["centroids"], torch.full((2, 2), 3.0))
    assert again.resumed == {"k-means": 3}
    assert again.slot("another").load() is None


def test_states_wait_until_they_are_due_or_the_run_is_told_to_stop(tmp_path):
    store, _ = opened(tmp_path, every_s=1000.0)
    store.slot("k-means").note(1, {"centroids": torch.zeros(1)}, {})
    assert store.items("k-means") == []
    store.flush()
    assert len(store.items("k-means")) == 1


# -- when it is of use -------------------------------------------------------------------------------------------------


def test_work_on_other_weights_begins_anew_and_says_so(tmp_path):
    store, _ = opened(tmp_path)
    keep(store)
    again, why = opened(tmp_path, key={"weights": "b"})
    assert why == "it was made from other weights" and again.active and again.items(NAME) == []


def test_it_goes_with_the_checkpoint_of_a_later_step(tmp_path):
    for step in (4, 8):
        store, _ = opened(tmp_path, step=step)
        keep(store)
    discard(RunDir(tmp_path), before=4)
    assert folder(tmp_path, 4).exists()
    discard(RunDir(tmp_path), before=8)
    assert not folder(tmp_path, 4).exists() and folder(tmp_path, 8).exists()
    discard(RunDir(tmp_path), before=9)
    assert not (tmp_path / "features").exists()


# -- room --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("needed", "reserve"), [(10**18, 0), (0, 10**18)])
def test_nothing_is_kept_where_the_next_checkpoints_would_not_fit(tmp_path, needed, reserve):
    store, why = opened(tmp_path, needed=needed, reserve=reserve)
    assert not store.active and "it takes 1000000000.00 GB with room for the next checkpoints" in why
    keep(store)
    assert store.items(NAME) == [] and not folder(tmp_path).exists()


def test_a_disk_that_refuses_ends_the_keeping_and_gets_its_room_back(tmp_path, capsys):
    store, _ = opened(tmp_path)
    keep(store)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # the kernel refuses what is longer
    try:
        keep(store, 4, 4000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not store.active and store.trouble == "File too large"
    assert not (tmp_path / stores.FOLDER).exists()
    keep(store)  # the work goes on
    assert "nothing is kept any more: File too large" in capsys.readouterr().out


# -- features by sample ------------------------------------------------------------------------------------------------


def world(rank, size):
    """One rank's view; `gather` and `broadcast` answer for a rank that does as the others."""
    found = World(rank, size, torch.device("cpu"))
    alike = SimpleNamespace(rank=rank, size=size, is_main=True, device=found.device)
    alike.gather, alike.broadcast = lambda value: [value], lambda value: value
    return alike


def block_of(rank, size, images):
    job = SimpleNamespace(world=world(rank, size), safe_point=lambda *_: None)
    return _Block(job, range(images), "features")


def true_features(ids):
    return torch.stack([torch.from_numpy(ids).float(), torch.from_numpy(ids).float() / 2], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("other", [1, 3, 5])
def test_ranks_of_another_world_find_the_features_of_their_samples(tmp_path, other, dtype):
    """A world of two kept most of its features, with some images broken; one of another size takes what there is."""
    images, broken = 2000, np.array([3, 700, 701, 1300, 1999])
    store, _ = opened(tmp_path)
    kept = []
    for rank in range(2):
        writer = block_of(rank, 2, images)
        for number, (first, last) in enumerate(writer.missing()):
            ids = np.setdiff1d(np.arange(first, last), broken)
            writer.put(first, last, ids, lambda x: x.to(dtype), true_features(ids))
            if number != 2:  # one batch a rank was lost
                store.keep(NAME, first, last, writer.part(first, last), {})
                kept += range(first, last)
    store.wait()
    for rank in range(other):
        reader = block_of(rank, other, images)
        reader.restore(store)
        mine = set(range(reader.first, reader.last))
        assert reader.restored == len(mine & set(kept))
        missing = reader.missing()
        assert {i for first, last in missing for i in range(first, last)} >= mine - set(kept)
        assert all((first - reader.first) % BATCH == 0 for first, _ in missing)
        for first, last in missing:
            ids = np.setdiff1d(np.arange(first, last), broken)
            reader.put(first, last, ids, lambda x: x.to(dtype), true_features(ids))
        features, ids = reader.finished(lambda _: None)
        assert np.array_equal(ids, np.setdiff1d(np.arange(reader.first, reader.last), broken))
        assert features.dtype == torch.float32
        assert torch.equal(features, true_features(ids).to(dtype).float())
