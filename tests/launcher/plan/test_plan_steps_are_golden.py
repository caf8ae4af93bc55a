"""What a job of DeeperCluster's published recipe on four to eight nodes has srun start, to the letter, one word a line:
the look at its nodes, what unpacks its environment there, what tries how they reach one another, and its ranks, beside
a step that has not ended too, what asks a node what is left there, and what stands by on a second node or is asked from
outside of the job.

    SSLRUN_REWRITE_GOLDEN=1 python -m pytest tests/launcher/plan/test_plan_steps_are_golden.py

writes them anew; read the difference before committing it.
"""

import dataclasses
import difflib
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import recorded
from recorded import Refused

from launcher.compose.training import resolve
from launcher.plan import steps
from launcher.spec.runspec import freeze

GOLDEN = Path(__file__).with_name("golden") / "steps"
RUN = Path("/runs/deepercluster")
COPY = Path("/scratch/sslrun-1000-env/1a97/env/bin/python")
CODE = "/runs/.code/0123456789abcdef"
NODES = ["n1", "n2", "n3", "n4"]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """A step's name -> its words."""
    words = ("nodes=4-8", "cluster.spare_nodes=1", "cluster=generic", "cluster.python=/opt/sslrun/bin/python")
    spec, _ = resolve(["method=deepercluster", *words, "runs=/runs"], planning=True)
    spec = spec.on(len(NODES))
    srun = {"mpi": "none", "container_image": "a#b", "container-mounts": ["/data:/data:ro", "/runs"]}
    within = dataclasses.replace(spec, cluster=freeze(spec.cluster_but(srun=srun)))
    command = "apptainer exec --nv --bind /runs image.sif python"
    into = dataclasses.replace(spec, cluster=freeze(spec.cluster_but(python=command)))
    commands = {
        "look-within": steps.look(within, RUN, NODES, [CODE], seconds=2),
        "meet-within": steps.meet(within, NODES, "SOURCE"),
        "doctor-within": steps.doctor(within),
        "doctor": steps.doctor(spec),
        "ranks-within": steps.ranks(within, RUN, NODES, "start1"),
        "gone-within": steps.gone(within, "n2", [4711]),
        "on-node-within": steps.on_node(within, "7", "n2", ["kill", "-9", "4711"]),
        "understudy-within": steps.understudy(within, RUN, "7", "n1", 2, "n2"),
        "look-into": steps.look(into, RUN, NODES, [CODE], seconds=2),
        "look": steps.look(spec, RUN, NODES, [CODE], seconds=60),
        "look-beside": steps.look(spec, RUN, NODES, [CODE], seconds=60, beside=True),
        "meet": steps.meet(spec, NODES, "SOURCE"),
        "meet-doctor": steps.meet(spec, None, "SOURCE"),
        "meet-beside": steps.meet(spec, NODES, "SOURCE", beside=True),
        "unpack": steps.unpack(spec, NODES, "unpack1", RUN / "code", COPY.parents[3], COPY, '{"digest": "1a97"}'),
        "ranks": steps.ranks(spec, RUN, NODES, "start1"),
        "ranks-beside": steps.ranks(spec, RUN, NODES, "start2", beside=True),
        "ranks-waiting": steps.ranks(spec, RUN, NODES, "standby2", waits=True),
        "gone": steps.gone(spec, "n2", [4711, 4712]),
        "understudy": steps.understudy(spec, RUN, "7", "n1", 2, "n2"),
    }
    return {name: " \\\n".join(map(shlex.quote, command)) + "\n" for name, command in commands.items()}


STEPS = (
    "look", "look-beside", "meet", "meet-beside", "meet-doctor", "doctor", "unpack", "ranks", "ranks-beside",
    "ranks-waiting", "gone", "understudy",
)  # fmt: skip
CONTAINED = (
    "look-within", "meet-within", "doctor-within", "ranks-within", "gone-within", "on-node-within", "understudy-within",
    "look-into",
)  # fmt: skip


@pytest.mark.parametrize("name", [*STEPS, *CONTAINED])
def test_the_step_is_the_golden_one(name, written):
    file, step = GOLDEN / f"{name}.sh", written[name]
    if os.environ.get("SSLRUN_REWRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(step)
    golden = file.read_text() if file.exists() else ""
    difference = difflib.unified_diff(golden.splitlines(), step.splitlines(), file.name, "now", lineterm="")
    assert golden == step, "\n" + "\n".join(difference)


def test_there_is_one_of_each(written):
    assert {file.stem for file in GOLDEN.iterdir()} == {*written}


@pytest.mark.parametrize("text", [steps.LOOK, steps.LOOK_INTO, steps.UNPACK, steps.GONE, steps.UNDERSTUDY])
def test_what_a_node_runs_is_sh(text):
    checked = subprocess.run(["sh", "-n", "-c", text], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def environment(folder: Path, programs: dict[str, str]) -> dict[str, str]:
    """One in which these take the place of programs."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o700)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_what_is_left_of_ranks_is_told_by_their_processes(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    without_rest = environment(tmp_path, {"sleep": "exit 0"})

    def told(*pids: int) -> int:
        return subprocess.run(["sh", "-c", steps.GONE, "sh", *map(str, pids)], env=without_rest, timeout=60).returncode

    assert told() == told(gone.pid) == 0
    assert told(gone.pid, os.getpid()) == told(os.getpid(), gone.pid) == steps.LEFT


def test_a_process_that_ends_while_it_is_looked_for_is_not_left(tmp_path):
    rank = subprocess.Popen(["sh", "-c", "read _"], stdin=subprocess.PIPE)
    slept, over = tmp_path / "slept", tmp_path / "over"
    sleep = f"touch {slept}; for n in $(seq 6000); do [ -e {over} ] && exit; {shutil.which('sleep')} 0.01; done"
    known = environment(tmp_path, {"sleep": sleep})
    asked = subprocess.Popen(["sh", "-c", steps.GONE, "sh", str(rank.pid)], env=known)
    while not slept.exists() and asked.poll() is None:
        time.sleep(0.01)
    rank.communicate()
    over.touch()
    assert asked.wait(60) == 0


# What the understudy of job 7's first start is told: (what is another in what Slurm says of the job, or how it refuses
# to say it; the names of its nodes) -> (whether it puts it back, whether it stays).
TOLD = {
    "all is well": ({"NodeList": "n[1-2]"}, "n1 n2", False, True),
    "its first node is gone": ({"NodeList": "n2"}, "n2", True, True),
    "another has a name that begins so": ({"NodeList": "n[2,11]"}, "n2 n11", True, True),
    "its first node is gone and it is suspended": ({"NodeList": "n2", "JobState": "SUSPENDED"}, "n2", False, True),
    "it waits": ({"NodeList": "", "JobState": "PENDING"}, "", False, False),
    "it ends": ({"NodeList": "n2", "JobState": "COMPLETING"}, "n2", False, False),
    "it was started again elsewhere": ({"NodeList": "n2", "Restarts": "1"}, "n2", False, False),
    "its nodes have no names": ({"NodeList": "n2"}, "", False, True),
    "the controller does not know it": (recorded.FORGOTTEN, "", False, False),
    "the controller is away": (Refused("slurm_load_jobs error: Unable to contact slurm controller"), "", False, True),
    "the controller is busy": (Refused("slurm_load_jobs error: Socket timed out on send/recv"), "", False, True),
}


@pytest.mark.parametrize("case", TOLD)
def test_the_understudy_puts_the_job_back_where_its_first_node_is_gone(case, tmp_path):
    says, names, put_back, stays = TOLD[case]
    said = recorded.RUNNING_7
    for key, value in says.items() if isinstance(says, dict) else ():
        said = re.sub(rf" {key}=\S+", f" {key}={value}", said)
    (tmp_path / "said").write_text(said)
    shows = f"cat {tmp_path}/said"
    if isinstance(says, Refused):
        shows = f"echo '{says.said}' >&2; exit {says.code}"
    answers = {
        '"show job -o 7"': shows,
        '"show hostnames "*': f'[ -n "{names}" ] && printf "%s\\n" {names}',
        "ping": "echo 'Slurmctld(primary) at login is UP'",
        "*": f'echo "$*" >> {tmp_path}/asked',
    }
    cases = "\n".join(f"{words}) {does};;" for words, does in answers.items())
    programs = {
        "sleep": f"echo >> {tmp_path}/slept; [ $(wc -l < {tmp_path}/slept) -lt 2 ]",  # the second time ends it
        "scontrol": f'case "$*" in\n{cases}\nesac',
    }
    command = ["sh", "-c", steps.UNDERSTUDY, "sslrun", "7", "n1", "0", tmp_path / "word"]
    subprocess.run(command, env=environment(tmp_path, programs), timeout=60)
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == ("requeue 7\n" if put_back else "")
    assert len((tmp_path / "slept").read_text()) == 1 + stays
