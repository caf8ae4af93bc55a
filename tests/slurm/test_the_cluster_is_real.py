"""What the other tests here rely on: these clusters are Slurm itself, and leave nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("cluster.py")


def processes(folder: Path) -> list[str]:
    """Command lines of everything alive that names the cluster's folder, in its arguments or its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command, environment = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if bytes(folder) in command + environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def submit(cluster, script: str, *options: str) -> str:
    text = f"#!/bin/bash\n{script}\n"
    done = subprocess.run(
        ["sbatch", "--parsable", f"--output={cluster.folder}/out-%j", *options],
        input=text,
        env=cluster.environ(),
        cwd=cluster.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def state(cluster, job: str) -> str:
    return cluster.run("squeue", "--noheader", "--format=%T", f"--jobs={job}", check=False).stdout.strip()


def test_tasks_run_on_every_node(cluster):
    said = cluster.run("srun", "--nodes=2", "--ntasks-per-node=2", "sh", "-c", "echo $SLURMD_NODENAME").stdout
    assert sorted(said.split()) == ["n1", "n1", "n2", "n2"]


@pytest.fixture
def preempted(cluster, until):
    """`preempted()`: (a job whose task says that it runs, and that it was told to end; where it says so), once another
    job has been submitted that takes its nodes."""

    def submitted() -> tuple[str, Path]:
        said, task = cluster.folder / "said", cluster.folder / "task"
        said.unlink(missing_ok=True)
        task.write_text("trap 'echo told; exit' TERM; echo run $SLURM_RESTART_COUNT; while :; do sleep 0.1; done")
        step = f"srun --output={said} --open-mode=append bash {task}; sleep infinity"
        job = submit(cluster, step, "--partition=low")
        until(lambda: said.exists() and "run" in said.read_text())
        submit(cluster, "true", "--partition=high", "--nodes=2", "--exclusive")
        return job, said

    return submitted


def test_a_preempted_job_is_told_and_goes_on_for_its_grace(cluster, preempted, until):
    job, said = preempted()
    until(lambda: "told" in said.read_text())
    assert state(cluster, job) == "RUNNING"


@pytest.mark.fault
@pytest.mark.slow
def test_a_preempted_job_runs_again_when_its_grace_is_over(grace, preempted, until):
    grace(1)
    _, said = preempted()
    until(lambda: "run 1" in said.read_text())


@pytest.mark.fault
@pytest.mark.slow
def test_a_lost_node_is_noticed_and_its_job_runs_again(cluster, start_cluster, until):
    with start_cluster(nodes=2, config={"SlurmdTimeout": 4, "MessageTimeout": 3}) as own:
        assert own.folder != cluster.folder
        job = submit(own, "srun sh -c 'touch $SLURMD_NODENAME-$SLURM_RESTART_COUNT; sleep infinity'", "--nodes=2")
        until((own.folder / "n2-").exists)
        assert state(own, job) == "RUNNING"
        assert state(cluster, job) != "RUNNING", "two clusters that share their jobs"

        own.kill_node("n2")

        assert not [words for words in processes(own.folder) if "-N n2" in words]
        until(lambda: "down" in own.run("sinfo", "--noheader", "--nodes=n2", "--format=%T", check=False).stdout)
        until(lambda: state(own, job) == "PENDING")
        own.start_node("n2")
        until(lambda: any(own.folder.glob("n2-[1-9]*")))


def test_a_folder_can_be_hidden_from_a_node(uneven, hidden):
    (hidden / "file").touch()
    look = f"echo $SLURMD_NODENAME $(ls {hidden} | grep file)"
    assert sorted(uneven.run("srun", "--nodes=2", "sh", "-c", look).stdout.splitlines()) == ["n1 file", "n2"]


def test_the_controller_can_be_away(cluster, until):
    job = submit(cluster, "sleep infinity")
    until(lambda: state(cluster, job) == "RUNNING")
    cluster.stop_controller()
    assert "DOWN" in cluster.run("scontrol", "ping", check=False).stdout
    cluster.start_controller()
    until(lambda: "UP" in cluster.run("scontrol", "ping", check=False).stdout)
    assert state(cluster, job) == "RUNNING"


def test_nothing_is_left_of_a_cluster_that_was_stopped(start_cluster, until):
    own = start_cluster(nodes=2)
    submit(own, "srun sh -c 'trap : TERM; touch started; setsid sleep infinity & while :; do sleep 1; done'")
    until((own.folder / "started").exists)
    assert len(processes(own.folder)) > 5
    own.stop()
    assert not processes(own.folder)
    assert not own.folder.exists()


def test_nothing_is_left_of_a_cluster_whose_process_was_killed(until):
    holder = subprocess.Popen(
        [sys.executable, PROGRAM, "--", "sh", "-c", "srun sleep infinity & echo $SLURM_CONF; wait"],
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = Path(holder.stdout.readline().strip()).parent
    until(lambda: any("slurmstepd" in words for words in processes(folder)))
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    until(lambda: not folder.exists() and not processes(folder))


def test_a_cluster_that_cannot_start_says_what_its_daemons_said(start_cluster, tmp_path):
    with pytest.raises(RuntimeError, match=r"(slurmctld|n1) ended(.|\n)*NoSuchType"):
        start_cluster(folder=tmp_path, nodes=1, config={"SelectType": "select/NoSuchType"})
    assert not list(tmp_path.iterdir())
