"""slurm/commands.py against a real cluster, without accounting, with whatever people put into names and comments."""

import pytest

from launcher.errors import ClusterError
from launcher.slurm import client, commands, notation

NAME, COMMENT = "a b JobState=FAILED UserId=x", "what | is \x1f this\nJobState=TIMEOUT"


@pytest.fixture
def here(cluster, monkeypatch):
    """This process as a user of the cluster, one who has set up Slurm's tools in his own way."""
    for name, value in cluster.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SCANCEL_NAME", "another")
    return cluster


@pytest.fixture
def submit(here, tmp_path):
    """`submit("exit 3", *options)`: the id of a job that runs these lines."""

    def put(lines: str, *options: str) -> str:
        script = tmp_path / "script.sh"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        return commands.submit(script, ["--output=/dev/null", *options], environment=client.environment())

    return put


def test_jobs_and_tasks_of_arrays_by_their_ids(here, submit):
    array = submit("sleep infinity", "--array=0-5%1", f"--job-name={NAME}", f"--comment={COMMENT}")
    single = submit("sleep infinity", "--hold", "--partition=low")
    found = commands.jobs()
    assert set(found) == {*(f"{array}_{task}" for task in range(6)), single}
    task = found[f"{array}_3"]
    assert (task.id, task.state, task.partition) == (f"{array}_3", "PENDING", "main")
    assert (task.name, task.comment) == (NAME, COMMENT)
    assert (found[single].state, found[single].reason, found[single].partition) == ("PENDING", "JobHeldUser", "low")
    assert found[single].comment == found[single].nodes == ""
    assert set(commands.jobs([f"{array}_2", single])) == {f"{array}_2", single}
    assert len(commands.jobs([array])) == 6
    assert commands.jobs(["99999"]) == commands.jobs([]) == {}


def test_a_running_job_says_where_and_how_long(submit, until):
    job = submit("sleep infinity", "--nodes=2", "--time=10")
    until(lambda: commands.jobs()[job].state == "RUNNING")
    found = commands.jobs()[job]
    assert notation.expand(found.nodes) == ["n1", "n2"]
    assert found.left.startswith("9:") or found.left == "10:00"
    assert found.start[:2] == "20" and found.reason == ""


def test_a_job_that_ended_is_known_for_a_while(submit, until):
    failed = submit("exit 3", f"--job-name={NAME}", f"--comment={COMMENT}")
    array = submit("exit $SLURM_ARRAY_TASK_ID", "--array=0-1")
    until(lambda: not commands.jobs([failed, array]))
    found = commands.ended(failed)
    assert (found.id, found.raw_id, found.name) == (failed, failed, NAME)
    assert (found.state, found.reason, found.exit_code, found.restarts) == ("FAILED", "NonZeroExitCode", "3:0", 0)
    assert found.nodes == "n1" and not found.preempted
    assert commands.ended(f"{array}_0").state == "COMPLETED"
    assert commands.ended(f"{array}_1").exit_code == "1:0"
    assert commands.ended("99999") is None


def test_a_preempted_job_is_known_as_such(here, submit, until):
    job = submit("srun sleep infinity", "--partition=low", "--nodes=2", "--exclusive")
    until(lambda: commands.jobs()[job].state == "RUNNING")
    assert not commands.ended(job).preempted
    submit("sleep infinity", "--partition=high", "--nodes=2", "--exclusive")
    until(lambda: commands.ended(job).preempted)


def test_cancel_signal_and_requeue(submit, until):
    job = submit("sleep infinity")
    until(lambda: commands.jobs()[job].state == "RUNNING")
    commands.requeue(job)
    until(lambda: commands.ended(job).restarts == 1)
    commands.cancel([job, "99999"])
    until(lambda: not commands.jobs())
    assert commands.ended(job).state == "CANCELLED"
    commands.cancel([job])  # again, harmless
    commands.cancel([job], signal="USR2")
    commands.cancel([])
    with pytest.raises(ClusterError, match="scontrol: Invalid job id"):
        commands.requeue("99999")


def test_partitions_and_nodes(here):
    partitions = {p.name: p for p in commands.partitions()}
    assert {name for name, p in partitions.items() if p.default} == {"main"}
    assert partitions["short"].max_minutes == 10 and partitions["main"].max_minutes == 2880
    assert (partitions["low"].grace_s, partitions["low"].preempt_mode) == (here.grace_s, "REQUEUE")
    assert partitions["high"].priority_tier > partitions["low"].priority_tier
    assert all(p.state == "UP" and p.nodes == ("n1", "n2") and p.allow_accounts == () for p in partitions.values())
    nodes = commands.nodes()
    assert [(n.name, n.cpus, n.gpus, n.state, n.reason) for n in nodes] == [
        ("n1", here.cpus, 0, "IDLE", ""),
        ("n2", here.cpus, 0, "IDLE", ""),
    ]
    assert all(set(n.partitions) == set(partitions) for n in nodes)
    assert commands.config()["JobRequeue"] == "1"


def test_a_refusal_is_slurms_own_reason_in_one_line(submit, here, tmp_path):
    with pytest.raises(ClusterError) as refused:
        submit("true", "--partition=nope")
    assert str(refused.value) == "sbatch: invalid partition specified: nope; Invalid partition name specified"
    with pytest.raises(ClusterError, match="sbatch: Unable to open file"):
        commands.submit(tmp_path / "none", environment=client.environment())


def test_trying_submits_nothing(here, tmp_path):
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\n#SBATCH --nodes=2\ntrue\n")
    assert "nodes n[1-2] in partition main" in commands.test_only(script, environment=client.environment())
    with pytest.raises(ClusterError, match="sbatch: Requested node configuration is not available"):
        commands.test_only(script, ["--nodes=3"], environment=client.environment())
    assert commands.jobs() == {}


def test_a_controller_that_is_down_is_said_at_once(cluster, here):
    cluster.stop_controller()
    try:
        assert not client.up()
        with pytest.raises(ClusterError, match="slurmctld does not answer"):
            commands.jobs()
    finally:
        cluster.start_controller()
