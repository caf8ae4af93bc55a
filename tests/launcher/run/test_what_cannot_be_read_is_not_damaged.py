"""A file that cannot be read for a moment is waited for. Nothing that was not read is called damaged, renamed, deleted
or begun anew."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from launcher.errors import Unreadable
from launcher.run import causes, pruning, snapshot
from launcher.run.folder import RunDir
from launcher.run.ledger import History, Ledger
from launcher.runtime.checkpoint import Checkpointer, Owners
from launcher.runtime.dist import World
from launcher.runtime.patient import PatientRunDir
from launcher.runtime.stateful import ValueState
from launcher.runtime.store import open_store
from launcher.start import ending

pytestmark = pytest.mark.fault

ALONE = World(0, 1, torch.device("cpu"))


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Saved:
    """A run with checkpoints of steps 5 and 10."""

    def __init__(self, folder: Path):
        self.run, self.value = RunDir(folder), 0
        (folder / "checkpoints").mkdir()
        for step in (5, 10):
            self.value = step
            self.checkpoints().save(step, 100)

    def checkpoints(self) -> Checkpointer:
        owners = Owners(ALONE)
        owners.add("value", ValueState(lambda: {"value": self.value}, self.take))
        return Checkpointer(self.run, ALONE, owners, keep=3, generation=2)

    def take(self, state: dict) -> None:
        self.value = state["value"]


@pytest.fixture
def saved(tmp_path):
    return Saved(tmp_path)


PLACES = ("checkpoints", "checkpoints/step_00000010/manifest.json", "checkpoints/step_00000010/shared.safetensors")


@pytest.mark.parametrize("place", PLACES)
def test_a_checkpoint_is_waited_for_and_loaded(saved, away, place, capsys):
    before = below(saved.run.path)
    away(saved.run.path / place, times=2)
    assert saved.checkpoints().restore() == 10 and saved.value == 10
    assert below(saved.run.path) == sorted([*before, "progress.json"])
    assert f"waiting: {saved.run.path / place} cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("place", PLACES)
def test_one_that_stays_away_ends_the_start_and_stands(saved, away, place):
    before = below(saved.run.path)
    away(saved.run.path / place)
    with pytest.raises(Unreadable, match=rf"{saved.run.path / place} cannot be read on .* \(.*\)") as error:
        saved.checkpoints().restore()
    away(None)
    assert "\n" not in str(error.value)
    assert below(saved.run.path) == sorted([*before, "progress.json"])
    assert saved.checkpoints().restore() == 10


def test_a_file_that_is_gone_is_damage_and_is_not_waited_for(saved):
    (saved.run.path / PLACES[2]).unlink()
    assert saved.checkpoints().restore() == 5
    assert list(saved.run.path.glob("checkpoints/broken-step_00000010-*"))


def test_it_is_shown_what_is_waited_for(saved, away):
    (saved.run.path / "progress.json").write_text(json.dumps({"generation": 2, "step": 7}))
    away(saved.run.path / PLACES[1], times=1)
    saved.checkpoints().restore()
    progress = saved.run.progress()
    assert progress["step"] == 7 and progress["stage"].startswith("waiting: manifest.json: ")


def test_a_save_whose_folder_is_away_fails_and_ends_nothing(saved, away):
    from launcher.runtime.checkpoint import SaveFailed

    (saved.run.path / "events").mkdir()
    away(saved.run.path / "events")  # who the newest start is cannot be told
    with pytest.raises(SaveFailed):
        saved.checkpoints().save(15, 100)
    away(None)
    assert saved.checkpoints().restore() == 10


# -- what is kept between two steps ------------------------------------------------------------------------------------


def begun(tmp_path):
    store, why = open_store(RunDir(tmp_path), ALONE, 40, lambda: {"code": "a"}, needed=0, reserve=0, every_s=0.0)
    return store, why


@pytest.fixture
def kept(tmp_path):
    """The folder of a store with one item."""
    store, _ = begun(tmp_path)
    store.keep("features", 0, 3, {"rows": torch.arange(3)}, {})
    store.close()
    return tmp_path / "features" / "step_00000040"


@pytest.mark.parametrize("times", [1, float("inf")])
@pytest.mark.parametrize("place", ["", "key.json"])
def test_kept_work_that_cannot_be_looked_at_stays(kept, tmp_path, away, place, times):
    before = below(kept)
    away(kept / place, times)
    if times == 1:
        store, why = begun(tmp_path)
        assert why == "" and [item.first for item in store.items("features")] == [0]
    else:
        with pytest.raises(Unreadable):
            begun(tmp_path)
    away(None)
    assert below(kept) == before


def test_an_item_is_waited_for(kept, tmp_path, away):
    store, _ = begun(tmp_path)
    (item,) = store.items("features")
    away(item.path, times=1)
    assert store.read(item)["rows"].tolist() == [0, 1, 2]
    away(item.path)
    with pytest.raises(Unreadable):
        store.read(item)
    away(None)
    assert item.path.exists()


# -- the ledger, the code, other runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["events", "events/0001-batch.jsonl"])
def test_a_ledger_that_cannot_be_read_is_not_an_empty_one(tmp_path, away, place):
    (tmp_path / "events").mkdir()
    Ledger(tmp_path, 1, "batch").write("start", cause="submitted")
    away(tmp_path / place)
    with pytest.raises(OSError, match="events"):
        History.read(tmp_path)


def test_kept_work_and_checkpoints_that_cannot_be_listed_are_not_none(kept, tmp_path, away):
    run = RunDir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for place, ask in (("checkpoints", run.checkpoints), ("features", lambda: ending.kept(tmp_path / "features"))):
        away(tmp_path / place)
        with pytest.raises(OSError, match=place):
            ask()


def test_code_that_cannot_be_read_is_not_put_aside(tmp_path, away):
    target = tmp_path / "code" / "folder" / "inner"
    target.mkdir(parents=True)
    (target / "a.py").write_text("a = 1\n")
    digest = snapshot.digest_of(tmp_path / "code")
    whole = (tmp_path / "code").rename(tmp_path / digest)
    for place in ("folder", "folder/inner/a.py"):
        away(whole / place)
        with pytest.raises(OSError, match="folder"):
            snapshot.verify(whole, digest)
        with pytest.raises(OSError, match="folder"):
            snapshot._write({"folder/inner/a.py": b"a = 1\n"}, whole)
        away(None)
        assert snapshot.verify(whole, digest) == whole and below(tmp_path)[0] == digest


def test_nothing_is_pruned_of_what_cannot_be_looked_at(saved, tmp_path, away):
    runs, path = tmp_path / "runs", tmp_path / "runs" / "one"
    runs.mkdir()
    path.mkdir()
    shutil.move(tmp_path / "checkpoints", path)
    (runs / "two" / "events").mkdir(parents=True)
    (runs / "two" / "spec.json").write_text("{}")
    (runs / ".code" / "unused").mkdir(parents=True)
    run = RunDir(path)
    places = ("one/checkpoints/step_00000010/manifest.json", "two/spec.json", "two")
    for place in places:
        away(runs / place)
        found = pruning.find(run, 1, dict)
        away(None)
        assert not [item for item in found.doomed if item.what == pruning.CHECKPOINT], place
        assert any(place.rpartition("/")[2] in note and "cannot be read" in note for note in found.notes), place
        assert place != "two" or not found.doomed
    assert {item.what for item in pruning.find(run, 1, dict).doomed} == {pruning.CHECKPOINT, pruning.CODE}


# -- how such a start ends ---------------------------------------------------------------------------------------------


def test_the_rank_that_could_not_read_is_heard_and_the_run_starts_again():
    told = {"event": "error", "exit_code": 4, "alive_s": 9.0}
    lost = {**told, "writer": "rank0", "cause": "crash", "message": "Connection closed by peer"}
    met = {
        **told,
        "writer": "rank1",
        "cause": Unreadable.cause,
        "message": "/a cannot be read on n1 (Stale)",
        "alive_s": 9.1,
    }
    outcome = ending.judge(History([lost, met]), 4, 0, "")
    assert (outcome.cause, outcome.message) == (Unreadable.cause, "/a cannot be read on n1 (Stale)")
    assert causes.of(Unreadable.cause).forgiven and causes.of(Unreadable.cause).resumable


@pytest.mark.parametrize("place", ["events", "plan.json", "checkpoints"])
def test_a_rank_waits_for_all_that_it_reads_of_its_run(saved, away, place):
    (saved.run.path / "events").mkdir()
    Ledger(saved.run.path, 1, "submit").write("start", cause="submitted")
    plan = {"steps": 100, "signal_delay_s": 60}
    (saved.run.path / "plan.json").write_text(json.dumps(plan))
    run = PatientRunDir(saved.run.path)
    away(saved.run.path / place, times=1)
    assert (run.generation(), len(run.checkpoints()), run.plan()) == (1, 2, plan)
    away(saved.run.path / place)
    with pytest.raises(Unreadable, match=place):
        run.generation(), run.checkpoints(), run.plan()


def test_a_save_stands_though_the_older_ones_cannot_be_listed(saved, away, monkeypatch):
    checkpoints = saved.checkpoints()
    prune = checkpoints._prune
    monkeypatch.setattr(checkpoints, "_prune", lambda: away(saved.run.path / "checkpoints") or prune())
    checkpoints.save(15, 100)
    away(None)
    assert saved.checkpoints().restore() == 15
