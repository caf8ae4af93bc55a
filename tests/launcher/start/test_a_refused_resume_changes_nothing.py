"""A `sslrun resume` that is refused leaves the run where it was: its place, and its code."""

import os
from argparse import Namespace

import pytest
import recorded

from launcher.errors import ClusterError, InputError, RunFailed
from launcher.run import snapshot
from launcher.run.ledger import Ledger
from launcher.start import local
from launcher.start.ending import Outcome
from launcher.verbs import resume


@pytest.fixture
def resumed(runs):
    """`resumed(run, "tasks_per_node=2", ...)`: the command's exit code."""

    def command(run, *words, **options):
        given = {"force": False, "code": "submitted", "config_dir": None, "json": False, "verb": "resume", **options}
        return resume.run(Namespace(run=str(run.path), overrides=list(words), **given))

    return command


def here(runs, seed=0):
    """A run of cluster=local that was stopped."""
    run = runs.make(seed, kind="local")
    pen = Ledger(run.path, 1, "launcher")
    pen.write("start", cause="submitted", pid=1, world_size=1)
    pen.write("end", state="stopped", cause="stopped", message="", exit_codes=[75])
    return run


def state(run):
    files = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != "lock"}
    return files, os.readlink(run.path / "code")


def test_where_the_code_is_gone(runs, resumed):
    run = here(runs)
    (run.path / "code").unlink()
    (run.path / "code").symlink_to("../.code/gone")
    before = state(run)
    with pytest.raises(InputError, match="the snapshot is gone"):
        resumed(run, "tasks_per_node=2")
    assert state(run) == before and run.spec().tasks_per_node == 1


def test_after_a_divergence(runs, resumed):
    run = here(runs)
    Ledger(run.path, 2, "launcher").write("end", state="failed", cause="diverged", message="the loss is nan")
    before = state(run)
    with pytest.raises(RunFailed, match="--force"):
        resumed(run, "tasks_per_node=2")
    assert state(run) == before


def ending(run, cause):
    """In place of ranks: a start that ends so."""

    def stand_in(found, spec, **_):
        pen = Ledger(found.path, found.generation() + 1, "launcher")
        pen.write("start", cause="stopped", pid=1, world_size=spec.world_size)
        pen.write("end", state="failed", cause=cause, message="no", exit_codes=[2])
        return Outcome("failed", cause, "no", 2 if cause == "input" else 4)

    return stand_in


@pytest.mark.parametrize(("cause", "moves"), [("input", False), ("crash", True)])
def test_where_its_ranks_refuse_it(runs, resumed, monkeypatch, cause, moves):
    """A crash is no refusal: it did start there."""
    run = here(runs)
    monkeypatch.setattr(local, "run", ending(run, cause))
    assert resumed(run, "tasks_per_node=2") == (4 if moves else 2)
    assert run.spec().tasks_per_node == (2 if moves else 1)
    changes = [["tasks_per_node: 1 -> 2"], ["tasks_per_node: 2 -> 1"]]
    assert [event["changes"] for event in runs.told(run, "placed")] == changes[: 1 if moves else 2]
    assert (run.path / "placement.json").exists() == moves


def test_the_place_and_the_code_that_it_had_last(runs, resumed, monkeypatch, tmp_path):
    run = here(runs)
    monkeypatch.setattr(local, "run", ending(run, "crash"))
    assert resumed(run, "tasks_per_node=2") == 4
    place, code = (run.path / "placement.json").read_bytes(), run.code()["digest"]
    other = runs.other_code(runs.folder / ".code" / "other")
    monkeypatch.setattr(snapshot, "take", lambda *_: other)
    monkeypatch.setattr(local, "run", ending(run, "input"))
    assert resumed(run, "tasks_per_node=4", code="current") == 2
    assert (run.path / "placement.json").read_bytes() == place and run.spec().tasks_per_node == 2
    assert run.code()["digest"] == code == snapshot.digest_of(run.code_folder())
    monkeypatch.setattr(local, "run", ending(run, "crash"))
    assert resumed(run, "tasks_per_node=4", code="current") == 4
    assert run.spec().tasks_per_node == 4 and run.code()["digest"] == other.digest


def test_where_slurm_refuses_the_job(runs, ledgers, slurm_said, resumed):
    run = runs.make(partition="mixed", nodes=1)
    ledgers.start(run)
    ledgers.end(run, "stopped")
    slurm_said.says("sbatch --test-only", "", "")
    slurm_said.says("sbatch --parsable", recorded.SUBMISSION_FAILED)
    with pytest.raises(ClusterError):
        resumed(run, "nodes=2")
    assert run.spec().nodes == 1 and not (run.path / "placement.json").exists()
    slurm_said.says("sbatch --parsable", "7\n")
    assert resumed(run, "nodes=2") == 0
    assert run.spec().nodes == 2
