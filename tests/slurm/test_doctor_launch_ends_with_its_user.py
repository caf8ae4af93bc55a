"""A launch that is interrupted, or waits too long, says why and leaves no job in the queue."""

import signal

import pytest


@pytest.fixture
def taken(cluster):
    """Both nodes are at work for somebody else."""
    cluster.run("sbatch", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 100")
    return cluster


def waiting(cluster) -> list[str]:
    return cluster.run("squeue", "--noheader", "--name=sslrun-doctor", "--format=%i").stdout.split()


def left(runs) -> list[str]:
    return [path.name for path in (runs / ".doctor").iterdir()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_launch_cancels_its_job(number, taken, slurm_sslrun, tmp_path, until):
    sslrun = slurm_sslrun(taken)
    process = sslrun.start("doctor", "--launch", "nodes=2", f"runs={tmp_path}")
    until(lambda: waiting(taken), seconds=30)
    process.send_signal(number)
    answer = sslrun.finish(process, timeout=20)
    assert answer.code == 130
    assert "Traceback" not in answer.err
    assert waiting(taken) == [] and left(tmp_path) == []


def test_a_launch_that_waits_too_long_says_for_what(taken, slurm_sslrun, tmp_path):
    sslrun = slurm_sslrun(taken)
    answer = sslrun("doctor", "--launch", "nodes=2", "--timeout=4", f"runs={tmp_path}", code=3)
    assert "waits in main: Resources" in answer.err
    assert "--timeout=4: job " in answer.complaint and "still pending (Resources)" in answer.complaint
    assert waiting(taken) == [] and left(tmp_path) == []


def test_a_job_that_will_never_start_is_not_waited_for(cluster, slurm_sslrun, tmp_path):
    last = cluster.run("sbatch", "--output=/dev/null", "--wrap=false", "--wait", "--parsable", check=False).stdout
    options = f"cluster.additional_parameters.dependency=afterok:{last.strip()}"
    answer = slurm_sslrun(cluster)("doctor", "--launch", "nodes=1", options, f"runs={tmp_path}", code=3, timeout=60)
    assert "would never start: DependencyNeverSatisfied" in answer.complaint
    assert waiting(cluster) == [] and left(tmp_path) == []
