"""The spec and the code are frozen at submission: edits afterwards reach no job, unless somebody asks for them."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BROKEN = "\nraise RuntimeError('this was edited after the submission')\n"


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the code that a test may edit."""
    for package in ("launcher", "methods", "cluster_configs", "sweeps"):
        shutil.copytree(ROOT / package, tmp_path / "checkout" / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "checkout"


def test_editing_the_yaml_and_the_code_changes_no_point(cluster, slurm_sslrun, config_dir, checkout, tmp_path, until):
    sslrun = slurm_sslrun(cluster)
    sslrun.environment["PYTHONPATH"] = str(checkout)
    folder = config_dir(cluster, additional_parameters={"begin": "now+1hour"})
    yaml = folder / "method" / "mine.yaml"
    yaml.parent.mkdir()
    yaml.write_text("defaults: [rotnet, _self_]\nlr: 0.03\n")
    shape = ("recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1", "--config-dir", folder)
    words = ("--multirun", "method=mine", *shape, f"runs={tmp_path / 'runs'}", "seed=0,1", "--json")
    answer = sslrun(*words).json

    yaml.write_text("defaults: [rotnet, _self_]\nlr: 0.9\nepochs: 7\n")
    trainer = checkout / "methods" / "rotnet" / "trainer.py"
    trainer.write_text(trainer.read_text() + BROKEN)
    for run in answer["runs"]:
        cluster.run("scontrol", "update", f"JobId={run['job']}", "StartTime=now")
    paths = [Path(run["path"]) for run in answer["runs"]]
    for path in paths:
        shown = until(lambda path=path: (s := sslrun.show(path))["state"] in ("done", "failed") and s, seconds=240)
        assert shown["state"] == "done", shown
        spec = json.loads((path / "spec.json").read_text())
        assert (spec["method"]["lr"], spec["method"]["epochs"]) == (0.03, 2)


def test_the_code_of_today_is_taken_only_when_asked_for(cluster, slurm_sslrun, config_dir, checkout, tmp_path, until):
    sslrun = slurm_sslrun(cluster)
    sslrun.environment["PYTHONPATH"] = str(checkout)
    folder = config_dir(cluster)
    trainer = checkout / "methods" / "rotnet" / "trainer.py"
    good = trainer.read_text()
    trainer.write_text(good + BROKEN)
    shape = ("recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1", "--config-dir", folder)
    run = Path(sslrun("method=rotnet", *shape, f"runs={tmp_path / 'runs'}", "--json").json["path"])

    def ended() -> dict:
        return until(lambda: (s := sslrun.show(run))["state"] in ("done", "failed") and s, seconds=240)

    assert "this was edited" in ended()["message"]
    trainer.write_text(good)
    sslrun("resume", run)
    assert "this was edited" in ended()["message"]
    sslrun("resume", run, "--code=current")
    assert ended()["state"] == "done"


def test_a_snapshot_that_was_changed_ends_the_job_at_once(cluster, slurm_sslrun, config_dir, tmp_path, until):
    sslrun = slurm_sslrun(cluster)
    folder = config_dir(cluster, additional_parameters={"begin": "now+1hour"})
    shape = ("recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1", "--config-dir", folder)
    answer = sslrun("method=rotnet", *shape, f"runs={tmp_path / 'runs'}", "--json").json
    run = Path(answer["path"])
    file = run / "code" / "methods" / "rotnet" / "trainer.py"
    file.chmod(0o600)
    file.write_text(file.read_text() + "\n# changed\n")
    cluster.run("scontrol", "update", f"JobId={answer['job']}", "StartTime=now")
    shown = until(lambda: (s := sslrun.show(run))["state"] == "failed" and s, seconds=120)
    assert "hash has changed" in shown["message"] and "--code=current" in shown["message"]
