"""Whenever the submitter is killed, the next `sslrun` finds its job or submits, never twice."""

import shutil
import signal
import time

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
MOMENTS = {
    "before sbatch": "kill -9 $PPID",
    "after sbatch": 'said=$({real} "$@"); kill -9 $PPID; echo "$said"',
    # The next one must wait for this answer: the job comes when its submitter has long been dead.
    "while sbatch waits": 'kill -9 $PPID; sleep 3; exec {real} "$@"',
}


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
    """`killed(sslrun, moment, *words)`: the command, killed at this moment."""

    def run(sslrun, moment, *words):
        wrapper = tmp_path / "bin" / "sbatch"
        wrapper.parent.mkdir()
        wrapper.write_text(WRAPPER.format(real=REAL, act=MOMENTS[moment].format(real=REAL)))
        wrapper.chmod(0o755)
        path = sslrun.environment["PATH"]
        sslrun.environment["PATH"] = f"{wrapper.parent}:{path}"
        try:
            sslrun(*words, code=-signal.SIGKILL)
        finally:
            sslrun.environment["PATH"] = path
        assert not wrapper.exists(), "sbatch was never called"

    return run


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_the_middle_of_sbatch(held, queued, killed, moment):
    sslrun, words = held
    killed(sslrun, moment, *words)
    answer = sslrun(*words, "--json").json
    assert [answer["job"]] == queued()
    assert sslrun(*words, "--json").json == {**answer, "joined": True, "state": "pending"}
    assert [answer["job"]] == queued()


def test_killed_at_any_time(held, queued):
    sslrun, words = held
    for tenths in range(3, 12):
        launcher = sslrun.start(*words)
        time.sleep(tenths / 10)
        launcher.kill()
        launcher.communicate()
    answer = sslrun(*words, "--json").json
    assert [answer["job"]] == queued()


def test_a_killed_sweep_is_completed_and_no_point_is_there_twice(held, queued):
    sslrun, words = held
    sweep = ("--multirun", *words, "seed=range(0,20)")
    for tenths in (8, 10, 12):
        launcher = sslrun.start(*sweep)
        time.sleep(tenths / 10)
        launcher.kill()
        launcher.communicate()
    runs = sslrun(*sweep, "--json").json["runs"]
    jobs = [run["job"] for run in runs]
    assert len(set(jobs)) == 20
    assert sorted(jobs) == sorted(queued())


def test_the_orphan_of_a_killed_submitter_works(cluster, slurm_sslrun, config_dir, killed, tmp_path, until):
    sslrun = slurm_sslrun(cluster)
    words = ("--config-dir", config_dir(cluster), *RUN, "cluster.cpus_per_task=1", f"runs={tmp_path / 'runs'}")
    killed(sslrun, "after sbatch", *words)
    run = next((tmp_path / "runs").glob("rotnet*"))
    until(lambda: sslrun.show(run)["state"] == "done", seconds=90)
    assert sslrun(*words, "--json").json["state"] == "done"
