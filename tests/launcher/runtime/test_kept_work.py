"""Work that no checkpoint holds yet: what the next start finds of it, and what it must not find."""

import json

import pytest
import torch

from launcher.run.folder import RunDir
from launcher.runtime.dist import World
from launcher.runtime.store import FOLDER, discard, open_store
from launcher.start import ending

ALONE = World(0, 1, torch.device("cpu"))
KEY = {"weights": "abc", "code": "def"}


@pytest.fixture
def begun(tmp_path):
    """`begun()`: (the store of step 40, why it is empty or keeps nothing), as each start opens it."""

    def open_again(key=KEY, step=40, every_s=0.0, **sizes):
        sizes = {"needed": 0, "reserve": 0, **sizes}
        return open_store(RunDir(tmp_path), ALONE, step, lambda: key, every_s=every_s, **sizes)

    return open_again


def keep(store, first, last):
    store.keep("features", first, last, {"rows": torch.arange(first, last)}, {"first": first})
    store.wait()


def kept(store):
    """{first item: what its file holds}."""
    return {item.first: store.read(item) for item in store.items("features")}


def test_the_next_start_finds_what_was_kept(begun):
    store, why = begun()
    assert store.active and not why
    keep(store, 0, 3)
    keep(store, 3, 5)
    store.close()
    found = kept(begun()[0])
    assert {first: (state["rows"].tolist(), state["first"]) for first, state in found.items()} == {
        0: ([0, 1, 2], 0), 3: ([3, 4], 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    "other, named", [({"weights": "x"}, "weights"), ({"code": "x", "weights": "x"}, "code, weights"), ({"k": 3}, "k")]
)
def test_what_was_made_from_something_else_is_gone_and_said(begun, other, named):
    store, _ = begun()
    keep(store, 0, 3)
    store.close()
    store, why = begun({**KEY, **other})
    assert kept(store) == {} and why == f"it was made from other {named}"
    store.close()
    assert begun({**KEY, **other})[1] == ""


def test_a_file_that_is_damaged_is_made_again(begun):
    store, _ = begun()
    keep(store, 0, 3)
    (item,) = store.items("features")
    item.path.write_bytes(item.path.read_bytes()[:-1])
    assert store.read(item) is None and store.items("features") == []


def test_of_a_state_the_newest_iteration_counts_and_the_older_ones_go(begun):
    store, _ = begun()
    for number in (1, 2, 10):
        store.slot("k-means").note(number, {"centroids": torch.full((2,), float(number))}, {"inertia": number})
    store.close()
    store, _ = begun()
    number, state = store.slot("k-means").load()
    assert (number, state["centroids"].tolist(), state["inertia"]) == (10, [10, 10], 10)
    assert len(store.items("k-means")) == 1 and store.resumed == {"k-means": 10}
    assert store.slot("whitening").load() is None


def test_a_checkpoint_takes_away_the_work_before_it_and_no_other(begun, tmp_path):
    for step in (9, 40, 100):
        store, _ = begun(step=step)
        keep(store, 0, 3)
        store.close()
    discard(RunDir(tmp_path), before=40)  # restored at 40, the run goes on with the work of that very step
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["step_00000040", "step_00000100"]
    discard(RunDir(tmp_path), before=101)
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize(
    "given, said", [({"every_s": None}, "as it was asked"), ({"needed": 10**18}, "the disk is too small")]
)
def test_what_is_not_kept_is_said(begun, given, said):
    store, why = begun(**given)
    assert not store.active and said in why
    keep(store, 0, 3)
    assert store.items("features") == []


def test_what_it_starts_from_lies_beside_it(begun, tmp_path):
    begun()
    assert json.loads((tmp_path / FOLDER / "step_00000040" / "key.json").read_text()) == KEY


def test_behind_a_link_nothing_is_kept_and_nothing_goes(begun, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    for name in (".gone-1", "step_00000040", "step_00000020"):
        (theirs / name).mkdir(parents=True)
        (theirs / name / ".writing-1").touch()
    (tmp_path / FOLDER).symlink_to(theirs)
    before = sorted(theirs.rglob("*"))
    store, why = begun()
    assert not store.active and "it is a link, and what it leads to stays" in why
    discard(RunDir(tmp_path), before=101)
    assert sorted(theirs.rglob("*")) == before and "it is a link" in capsys.readouterr().out


def test_several_works_of_a_step_keep_apart_and_go_together(begun, tmp_path):
    for part, size in ((None, 2), (0, 3), (12, 5)):
        store, _ = begun(part=part)
        keep(store, 0, size)
        store.close()
    assert [kept(begun(part=part)[0])[0]["rows"].numel() for part in (None, 0, 12)] == [2, 3, 5]
    assert ending.kept(tmp_path / FOLDER) == (40, 10), "what a start has kept, all works of the newest step together"
    store, _ = begun(step=39, part=1)
    keep(store, 0, 100)
    store.close()
    assert ending.kept(tmp_path / FOLDER) == (40, 10)
    discard(RunDir(tmp_path), before=40)
    assert len(list((tmp_path / FOLDER).iterdir())) == 3
    discard(RunDir(tmp_path), before=41)
    assert not (tmp_path / FOLDER).exists()
