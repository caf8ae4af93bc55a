"""The spec and the code are frozen at submission: edits afterwards reach no job, unless somebody asks for them."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What the ranks refuse, before they load PyTorch; whoever submits reads the same file.
BROKEN = """
import sys

from launcher.errors import InputError

if "launcher.start.worker" in sys.orig_argv:
    raise InputError("this is the first edition")
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the code that a test may edit."""
    for package in ("launcher", "methods", "cluster_configs", "sweeps"):
        shutil.copytree(ROOT / package, tmp_path / "checkout" / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "checkout"


def test_edits_reach_no_point_of_a_sweep_and_the_code_of_today_is_taken_only_when_asked_for(
    cluster, slurm_sslrun, config_dir, checkout, tmp_path, settled
):
    sslrun = slurm_sslrun(cluster)
    sslrun.environment["PYTHONPATH"] = str(checkout)
    folder = config_dir(cluster, additional_parameters={"begin": "now+1hour"})
    yaml = folder / "method" / "mine.yaml"
    yaml.parent.mkdir()
    yaml.write_text("defaults: [rotnet, _self_]\nlr: 0.03\n")
    method = checkout / "methods" / "rotnet" / "spec.py"
    good = method.read_text()
    method.write_text(good + BROKEN)
    shape = ("recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1", "--config-dir", folder)
    words = ("--multirun", "method=mine", *shape, f"runs={tmp_path / 'runs'}", "seed=0,1", "--json")
    answer = sslrun(*words).json

    yaml.write_text("defaults: [rotnet, _self_]\nlr: 0.9\nepochs: 7\n")
    method.write_text(good)

    def ended(run: dict) -> dict:
        cluster.run("scontrol", "update", f"JobId={run['job']}", "StartTime=now")
        return settled(sslrun, run["path"])

    for run in answer["runs"]:
        shown = ended(run)
        assert shown["state"] == "failed" and "this is the first edition" in shown["message"], shown
        spec = json.loads((Path(run["path"]) / "spec.json").read_text())
        assert (spec["method"]["lr"], spec["method"]["epochs"]) == (0.03, 2)

    run = answer["runs"][0]["path"]
    assert "this is the first edition" in ended(sslrun("resume", run, "--json").json)["message"]
    shown = ended(sslrun("resume", run, "--code=current", "--json").json)
    assert (shown["state"], shown["step"]) == ("done", shown["steps"]), shown
    spec = json.loads((Path(run) / "spec.json").read_text())
    assert (spec["method"]["lr"], spec["method"]["epochs"]) == (0.03, 2)


def test_a_snapshot_that_was_changed_ends_the_job_at_once(cluster, slurm_sslrun, config_dir, tmp_path, settled):
    sslrun = slurm_sslrun(cluster)
    folder = config_dir(cluster, additional_parameters={"begin": "now+1hour"})
    shape = ("recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1", "--config-dir", folder)
    answer = sslrun("method=rotnet", *shape, f"runs={tmp_path / 'runs'}", "--json").json
    run = Path(answer["path"])
    file = run / "code" / "methods" / "rotnet" / "trainer.py"
    file.chmod(0o600)
    file.write_text(file.read_text() + "\n# changed\n")
    cluster.run("scontrol", "update", f"JobId={answer['job']}", "StartTime=now")
    shown = settled(sslrun, run)
    assert shown["state"] == "failed", shown
    assert "hash has changed" in shown["message"] and "--code=current" in shown["message"]
