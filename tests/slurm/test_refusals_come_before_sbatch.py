"""What the queue could never start is refused with one line, before there is a job or a run directory."""

import os
import signal

import pytest

from launcher import cli

TINY = ("method=rotnet", "recipe=tiny")
RUN = (*TINY, "cluster=fake")
PARTITIONS = {
    "main": "Default=YES MaxTime=60",
    "short": "MaxTime=10",
    "single": "MaxTime=60 MaxNodes=1",
    "physics": "MaxTime=60 AllowAccounts=physics,biology",
    "closed": "MaxTime=60",
}
# what is asked of nodes with 2 GPUs, 4 CPUs and 16 GB -> exit code, and what the line must hold
REFUSED = {
    ("cluster.partition=gpuu",): (2, "cluster.partition=gpuu", "it has: closed, main, physics, short, single"),
    ("cluster.partition='main,gpuu'",): (2, "cluster.partition=gpuu", "it has: closed, main"),
    ("cluster.partition=closed",): (2, "cluster.partition=closed", "it is DRAIN", "use another"),
    ("cluster.partition=physics", "cluster.account=maths"): (2, "cluster.account=maths", "physics, biology"),
    ("cluster.partition=physics",): (2, "cluster.account=None", "physics asks for one", "physics, biology"),
    ("nodes=4",): (2, "nodes=4", "at most 2 nodes with 2 GPUs", "use nodes=2"),
    ("nodes=2", "cluster.partition=single"): (2, "nodes=2", "single", "use nodes=1"),
    # sbatch would take it, and it would wait for ever.
    ("nodes=1-2", "cluster.partition=single"): (2, "nodes=1-2", "single", "use nodes=1"),
    ("nodes=2", "cluster.spare_nodes=1"): (2, "nodes=2", "cluster.spare_nodes=1", "use nodes=1"),
    ("nodes=2", "cluster.exclude=n1"): (2, "nodes=2", "use nodes=1"),
    ("cluster.timeout_min=30", "cluster.partition=short"): (
        2,
        "cluster.timeout_min=30",
        "10 minutes",
        "timeout_min=10",
    ),
    ("cluster.gpus_per_node=8",): (2, "cluster.gpus_per_node=8", "2 at most", "use cluster.gpus_per_node=2"),
    ("cluster.cpus_per_task=3",): (2, "cluster.cpus_per_task=3", "6 CPUs a node", "use at most 2"),
    ("cluster.cpus_per_gpu=3",): (2, "cluster.cpus_per_gpu=3", "6 CPUs a node", "use at most 2"),
    ("cluster.cpus_per_node=64",): (2, "cluster.cpus_per_node=64", "have 4", "use cluster.cpus_per_node=4"),
    ("cluster.gpus_per_node=0", "tasks_per_node=8"): (2, "tasks_per_node=8", "8 CPUs a node", "use at most 4"),
    ("cluster.mem_gb=17",): (2, "cluster.mem_gb=17", "have 16 GB", "ask for less"),
    ("cluster.mem_per_gpu=9G",): (2, "cluster.mem_per_gpu=9G", "have 16 GB"),
    ("cluster.mem_per_cpu=5G",): (2, "cluster.mem_per_cpu=5G", "have 16 GB"),
    # What Slurm alone knows: its own words, and the field that they are about.
    ("cluster.constraint=a100",): (3, "Invalid feature specification", "cluster.constraint=a100"),
    ("cluster.gres=gpu:a100:2",): (3, "node configuration is not available", "cluster.gres=gpu:a100:2"),
    ("cluster.exclude=n7",): (3, "Invalid node name specified", "cluster.exclude=n7"),
    ("cluster.additional_parameters.reservation=mine",): (3, "reservation is invalid", "reservation=mine"),
    ("cluster.additional_parameters.begin=soonish",): (3, "soonish"),
}


@pytest.fixture(scope="module")
def strict(start_cluster):
    cluster = start_cluster(nodes=2, gpus=2, cpus=4, partitions=PARTITIONS)
    cluster.run("scontrol", "update", "partitionname=closed", "state=drain")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def typed(strict, slurm_sslrun, config_dir):
    """(the command line, overrides of a run that the cluster would take)."""
    return slurm_sslrun(strict), (*RUN, "--config-dir", config_dir(strict, timeout_min=5))


def queued(cluster) -> list[str]:
    return cluster.run("squeue", "--noheader", "--array", "--format=%i").stdout.split()


def refused(said: str, *, folder) -> str:
    """The one line that was said; fails where more was said, or anything is left."""
    lines = said.splitlines()
    assert len(lines) == 1 and lines[0].startswith("sslrun: "), said
    assert not folder.exists()
    return lines[0]


@pytest.fixture
def here(typed, monkeypatch, capsys):
    """`here(override, ...)` -> how the command line ends, inside this process: a fifth of the time."""
    sslrun, words = typed
    for name in {*os.environ, *sslrun.environment}:
        monkeypatch.delenv(name, raising=False)
    for name, value in sslrun.environment.items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGPIPE)

    def run(*overrides):
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, words), *map(str, overrides)])
        said = capsys.readouterr()
        return ended.value.code, said.err

    yield run
    signal.signal(signal.SIGPIPE, before)


@pytest.mark.parametrize("asked", REFUSED, ids=" ".join)
def test_with_the_field_and_what_would_fit(strict, here, tmp_path, asked):
    expected, *parts = REFUSED[asked]
    code, said = here(*asked, f"runs={tmp_path / 'runs'}")
    line = refused(said, folder=tmp_path / "runs")
    assert code == expected
    assert all(part in line for part in parts), line
    assert queued(strict) == []


def test_nodes_that_are_drained_are_waited_for_and_those_that_do_not_exist_are_not(strict, typed, tmp_path):
    sslrun, words = typed
    strict.run("scontrol", "update", "nodename=n1,n2", "state=drain", "reason=test")
    try:
        refused(sslrun(*words, "cluster.mem_gb=17", f"runs={tmp_path / 'a'}", code=2).err, folder=tmp_path / "a")
        job = sslrun(*words, "nodes=2", f"runs={tmp_path / 'b'}", "--json").json["job"]
        assert job in queued(strict)
        # Slurm cannot say of the kind of GPU beforehand while the nodes are away, and refuses only now.
        kind = (*words, f"runs={tmp_path / 'c'}")
        assert "node configuration" in sslrun(*kind, "cluster.gres=gpu:a100:2", code=3).complaint
        # What it was refused for is not kept: the run never began.
        answer = sslrun(*kind, "--json")
        assert "kept as first submitted" not in answer.err
        assert answer.json["job"] in queued(strict)
        # A queued run keeps what it was submitted with.
        assert "kept as first submitted: nodes: 1 -> 2" in sslrun(*kind, "nodes=2").err
    finally:
        strict.run("scancel", "--user=root" if os.geteuid() == 0 else f"--user={os.getuid()}")
        strict.run("scontrol", "update", "nodename=n1,n2", "state=resume")


def test_a_partition_that_is_down_is_waited_for(strict, typed, tmp_path):
    sslrun, words = typed
    given = (*words, "cluster.partition=closed", f"runs={tmp_path / 'runs'}")
    try:
        strict.run("scontrol", "update", "partitionname=closed", "state=down")
        answer = sslrun(*given, "--json")
        assert "partition closed is DOWN: its jobs wait in the queue until it is up again" in answer.err
        assert answer.json["job"] in queued(strict)
    finally:
        strict.run("scancel", f"--user={os.getuid()}")
        strict.run("scontrol", "update", "partitionname=closed", "state=drain")


def test_nodes_that_do_not_answer_are_waited_for(strict, typed, tmp_path):
    """To Slurm they are idle, and to its test no nodes at all: so is every node for a moment when it is resumed."""
    sslrun, words = typed
    for node in strict.nodes:
        strict.kill_node(node)
    strict.run("scontrol", "update", "nodename=n1,n2", "state=drain", "reason=test")
    strict.run("scontrol", "update", "nodename=n1,n2", "state=resume")
    try:
        assert "idle*" in strict.run("sinfo", "--noheader", "--format=%T").stdout
        later = "cluster.additional_parameters.begin=now+1hour"
        job = sslrun(*words, later, f"runs={tmp_path}", "--json").json["job"]
        assert job in queued(strict)
        strict.run("scancel", job)
    finally:
        for node in strict.nodes:
            strict.start_node(node)
        strict.wait_idle()


def test_a_run_that_a_job_has_is_not_resumed(strict, typed, tmp_path):
    sslrun, words = typed
    later = "cluster.additional_parameters.begin=now+1hour"
    answer = sslrun(*words, later, f"runs={tmp_path}", "--json").json
    line = sslrun("resume", answer["path"], code=2).complaint
    assert f"job {answer['job']} has it" in line
    assert queued(strict) == [answer["job"]]
    sslrun("cancel", answer["path"], "--yes")


def test_without_a_controller(cluster, slurm_sslrun, config_dir, pings_alone, tmp_path):
    sslrun = slurm_sslrun(cluster)
    words = (*RUN, "--config-dir", config_dir(cluster), "tasks_per_node=1")
    later = "cluster.additional_parameters.begin=now+1hour"
    run = sslrun(*words, later, f"runs={tmp_path / 'before'}", "--json").json["path"]
    auto = ("method=rotnet", "cluster=auto", "--cfg")
    assert "name: generic" in sslrun(*auto).out
    assert "name: local" in sslrun("method=rotnet", "recipe=demo", "--cfg").out
    assert "name: local" in sslrun("method=rotnet", "recipe=tiny", "--cfg").out

    called = pings_alone(sslrun)
    pid = int((cluster.folder / "slurmctld.pid").read_text())
    os.kill(pid, signal.SIGSTOP)  # it takes connections, and says nothing
    try:
        line = refused(sslrun(*words, f"runs={tmp_path / 'a'}", code=3).err, folder=tmp_path / "a")
        assert "slurmctld does not answer" in line
    finally:
        os.kill(pid, signal.SIGCONT)

    cluster.stop_controller()
    line = refused(sslrun(*words, f"runs={tmp_path / 'b'}", code=3).err, folder=tmp_path / "b")
    assert "slurmctld does not answer" in line
    assert "slurmctld does not answer" in sslrun("resume", run, code=3).complaint
    assert "name: local" in sslrun(*auto).out
    status = sslrun("status", f"runs={tmp_path / 'before'}")
    assert "pending" in status.out and "slurmctld does not answer" in status.err
    assert called() == []


def test_without_slurm(cluster, slurm_sslrun, config_dir, tmp_path):
    sslrun = slurm_sslrun(cluster)
    sslrun.environment["PATH"] = str(tmp_path / "empty")
    words = (*RUN, "--config-dir", config_dir(cluster), "tasks_per_node=1")
    line = refused(sslrun(*words, f"runs={tmp_path / 'a'}", code=3).err, folder=tmp_path / "a")
    assert "there is no Slurm on this machine" in line and "cluster=local" in line
    assert "name: local" in sslrun("method=rotnet", "cluster=auto", "--cfg").out
