"""What `doctor --launch` lays on shared folders and nodes is its user's: nobody else takes a rank's place."""

import json
import os
import stat
import subprocess
import sys

import pytest

from launcher.compose.training import resolve
from launcher.errors import ClusterError
from launcher.slurm import limits, probe, trial


@pytest.fixture
def spec(tmp_path):
    words = ["method=rotnet", "recipe=tiny", "cluster=generic", "cluster.environment.KEY=secret"]
    return resolve([*words, f"runs={tmp_path / 'runs'}"])[0]


@pytest.fixture
def folder(spec, tmp_path):
    (tmp_path / "order").mkdir()
    trial._prepare(spec, tmp_path / "order")
    return tmp_path / "order"


def test_no_command_line_holds_the_token_or_a_variable(folder, tmp_path):
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/line\nenv > {tmp_path}/environment\n')
    (tmp_path / "srun").chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-I", "-S", probe.__file__, "batch", folder], env={**os.environ, **job}, check=True)
    token = json.loads((folder / "order.json").read_text())["token"]
    line, environment = (tmp_path / "line").read_text(), (tmp_path / "environment").read_text()
    assert "task" in line and token not in line and "secret" not in line
    assert token in environment and "KEY=secret" in environment


def test_the_queue_shows_another_token(spec, tmp_path, monkeypatch, slurm_said):
    seen = {}

    def sbatch(command):
        (path,) = (tmp_path / "runs" / ".doctor").iterdir()
        seen["order"], seen["comment"] = json.loads((path / "order.json").read_text())["token"], " ".join(command)
        seen["modes"] = {stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)}
        raise KeyboardInterrupt

    monkeypatch.setattr(limits, "check", lambda _: None)
    slurm_said.says("squeue", "")
    slurm_said.says("sbatch --parsable", sbatch)
    with pytest.raises(KeyboardInterrupt):
        trial.launch(spec, seconds=1, say=print)
    assert seen["order"] not in seen["comment"] and seen["modes"] == {0o700}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_nothing_is_laid_in_a_folder_of_somebody_else(spec, tmp_path, monkeypatch):
    (tmp_path / "runs" / ".doctor").mkdir(parents=True)
    os.chown(tmp_path / "runs" / ".doctor", 65534, 65534)
    monkeypatch.setattr(limits, "check", lambda _: None)
    laid = []

    def submit(script, *_, **__):
        laid.append(script.parent.parent)
        raise ClusterError("no")

    monkeypatch.setattr(trial.commands, "submit", submit)
    with pytest.raises(ClusterError):
        trial.launch(spec, seconds=1, say=print)
    assert not any((tmp_path / "runs" / ".doctor").iterdir())
    assert laid == [tmp_path / "runs" / ".doctor-0"] and laid[0].stat().st_mode & 0o777 == 0o700
