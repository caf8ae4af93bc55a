"""Whenever the submitter is killed, the next `sslrun` finds its job or submits, never twice."""

import shutil
import signal
from itertools import count
from pathlib import Path

import pytest

pytestmark = pytest.mark.fault

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1")
REAL = shutil.which("sbatch")
# A real sbatch whose caller is killed at one moment; asking (--test-only) is let through.
WRAPPER = """#!/bin/sh
case "$*" in *--test-only*) exec {real} "$@";; esac
rm "$0"
{act}
"""
WAITS = 'kill -9 $PPID; until [ -e "{go}" ]; do sleep 0.1; done; exec {real} "$@"'
MOMENTS = {
    "before sbatch": "kill -9 $PPID",
    "after sbatch": 'said=$({real} "$@"); kill -9 $PPID; echo "$said"',
}
# A process that kills itself when it is about to change something in the folder of runs, or to submit, for the nth
# time. That the code is copied counts once, when it has been.
SUICIDE = """
import os
import signal
import sys

left = int(os.environ["KILLED_AT"])


def about_to(event, words):
    global left
    opens = event == "open" and isinstance(words[2], int) and words[2] & (os.O_WRONLY | os.O_RDWR)
    writes = opens or event in ("os.mkdir", "os.rename", "os.symlink", "os.remove")
    submits = event == "subprocess.Popen" and words[1][:2] == ["sbatch", "--parsable"]
    if submits or (writes and os.environ["RUNS"] in str(words[0]) and "/.code/." not in str(words[0])):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(about_to)
"""


@pytest.fixture
def queued(cluster):
    return lambda: cluster.run("squeue", "--noheader", "--array", "--format=%i").stdout.split()


@pytest.fixture
def held(cluster, slurm_sslrun, config_dir, tmp_path):
    """(the command line, overrides of a run that waits in the queue)."""
    begin = {"begin": "now+1hour"}
    folder = config_dir(cluster, additional_parameters=begin)
    return slurm_sslrun(cluster), ("--config-dir", folder, *RUN, f"runs={tmp_path / 'runs'}")


@pytest.fixture
def killed(tmp_path):
    """`killed(sslrun, act, *words)`: the command, for which `act` is done instead of submitting."""

    def run(sslrun, act, *words):
        wrapper = tmp_path / "bin" / "sbatch"
        wrapper.parent.mkdir()
        wrapper.write_text(WRAPPER.format(real=REAL, act=act.format(real=REAL, go=tmp_path / "go")))
        wrapper.chmod(0o755)
        path = sslrun.environment["PATH"]
        sslrun.environment["PATH"] = f"{wrapper.parent}:{path}"
        try:
            sslrun(*words, code=-signal.SIGKILL)
        finally:
            sslrun.environment["PATH"] = path
        assert not wrapper.exists(), "sbatch was never called"

    return run


@pytest.fixture
def kills_itself(monkeypatch, tmp_path):
    """`kills_itself(sslrun, n, *words)`: whether the command came to what it does as the nth thing, and was killed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SUICIDE)

    def run(sslrun, n, *words):
        with monkeypatch.context() as these:
            for name, value in {"PYTHONPATH": tmp_path / "site", "RUNS": tmp_path / "runs", "KILLED_AT": n}.items():
                these.setitem(sslrun.environment, name, str(value))
            answer = sslrun(*words, code=None)
        assert answer.code in (0, -signal.SIGKILL), answer
        return answer.code != 0

    return run


def waits_for_a_lock(process) -> bool:
    """As /proc/locks shows it: `7: -> FLOCK ADVISORY WRITE 4711 ...`."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(words[2] == "FLOCK" and words[5] == str(process.pid) for words in waiting)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_the_middle_of_sbatch(held, queued, killed, moment):
    sslrun, words = held
    killed(sslrun, MOMENTS[moment], *words)
    answer = sslrun(*words, "--json").json
    assert [answer["job"]] == queued()
    assert sslrun(*words, "--json").json == {**answer, "joined": True, "state": "pending"}
    assert [answer["job"]] == queued()


def test_killed_while_sbatch_waits_the_next_waits_for_its_answer(held, queued, killed, tmp_path, until):
    sslrun, words = held
    killed(sslrun, WAITS, *words)
    second = sslrun.start(*words, "--json")
    until(lambda: waits_for_a_lock(second))
    assert queued() == []
    (tmp_path / "go").touch()  # the job comes when its submitter has long been dead
    answer = sslrun.finish(second)
    assert answer.code == 0, answer
    assert [answer.json["job"]] == queued()


@pytest.mark.slow
def test_killed_at_any_time(held, queued, kills_itself):
    sslrun, words = held
    things = next(n for n in count(1) if not kills_itself(sslrun, n, *words))
    assert things > 10
    answer = sslrun(*words, "--json").json
    assert [answer["job"]] == queued()


def test_a_killed_sweep_is_completed_and_no_point_is_there_twice(held, queued, killed, kills_itself):
    sslrun, words = held
    sweep = ("--multirun", *words, "seed=range(0,20)")
    for n in (20, 60):  # while the points are made
        assert kills_itself(sslrun, n, *sweep)
    killed(sslrun, MOMENTS["after sbatch"], *sweep)
    assert kills_itself(sslrun, 5, *sweep)  # while it writes down whose job is which
    runs = sslrun(*sweep, "--json").json["runs"]
    jobs = [run["job"] for run in runs]
    assert len(set(jobs)) == 20
    assert sorted(jobs) == sorted(queued())


def test_the_orphan_of_a_killed_submitter_works(cluster, slurm_sslrun, config_dir, killed, tmp_path, settled):
    sslrun = slurm_sslrun(cluster)
    words = ("--config-dir", config_dir(cluster), *RUN, "cluster.cpus_per_task=1", f"runs={tmp_path / 'runs'}")
    killed(sslrun, MOMENTS["after sbatch"], *words)
    (job,) = cluster.run("squeue", "--noheader", "--format=%i").stdout.split()
    run = next((tmp_path / "runs").glob("rotnet*"))
    assert settled(sslrun, run, job)["state"] == "done"
    assert sslrun(*words, "--json").json["state"] == "done"
