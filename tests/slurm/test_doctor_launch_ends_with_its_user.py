"""A launch that is interrupted, or waits too long, says why and leaves no job in the queue."""

import signal

import pytest

LATER = "cluster.additional_parameters.begin=now+1hour"


@pytest.fixture
def taken(cluster, until):
    """Both nodes are at work for somebody else."""
    cluster.run("sbatch", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep infinity")
    until(lambda: cluster.run("squeue", "--noheader", "--states=running").stdout)
    return cluster


def waiting(cluster) -> list[str]:
    return cluster.run("squeue", "--noheader", "--name=sslrun-doctor", "--format=%i").stdout.split()


def left(runs) -> list[str]:
    return [path.name for path in (runs / ".doctor").iterdir()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_launch_cancels_its_job(number, taken, slurm_sslrun, tmp_path, until):
    sslrun = slurm_sslrun(taken)
    process = sslrun.start("doctor", "--launch", "nodes=2", f"runs={tmp_path}")
    until(lambda: waiting(taken))
    process.send_signal(number)
    answer = sslrun.finish(process)
    assert answer.code == 130
    assert "Traceback" not in answer.err
    assert waiting(taken) == [] and left(tmp_path) == []


def test_a_launch_that_waits_too_long_says_for_what(cluster, slurm_sslrun, tmp_path):
    sslrun = slurm_sslrun(cluster)
    answer = sslrun("doctor", "--launch", "nodes=2", "--timeout=1", LATER, f"runs={tmp_path}", code=3)
    assert "waits in main for its begin time (BeginTime)" in answer.err
    assert "--timeout=1: job " in answer.complaint and "still pending (BeginTime)" in answer.complaint
    assert waiting(cluster) == [] and left(tmp_path) == []


def test_a_job_that_will_never_start_is_not_waited_for(cluster, slurm_sslrun, tmp_path):
    last = cluster.run("sbatch", "--output=/dev/null", "--wrap=false", "--wait", "--parsable", check=False).stdout
    options = f"cluster.additional_parameters.dependency=afterok:{last.strip()}"
    answer = slurm_sslrun(cluster)(
        "doctor", "--launch", "nodes=1", "--timeout=3600", options, f"runs={tmp_path}", code=3
    )
    assert (
        "does not start: it waits for nothing: a job failed (DependencyNeverSatisfied); you can help"
        in answer.complaint
    )
    assert waiting(cluster) == [] and left(tmp_path) == []
