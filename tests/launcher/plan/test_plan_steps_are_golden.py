"""What a job of DeeperCluster's published recipe on four to eight nodes has srun start, to the letter, one word a line:
the look at its nodes, its ranks, beside a step that has not ended too, what asks a node what is left there, and what
stands by on a second node.

    SSLRUN_REWRITE_GOLDEN=1 python -m pytest tests/launcher/plan/test_plan_steps_are_golden.py

writes them anew; read the difference before committing it.
"""

import difflib
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from launcher.compose.training import resolve
from launcher.plan import steps

GOLDEN = Path(__file__).with_name("golden") / "steps"
RUN = Path("/runs/deepercluster")
NODES = ["n1", "n2", "n3", "n4"]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """A step's name -> its words."""
    words = ("nodes=4-8", "cluster.spare_nodes=1", "cluster=generic", "cluster.python=/opt/sslrun/bin/python")
    spec, _ = resolve(["method=deepercluster", *words, "runs=/runs"], planning=True)
    spec = spec.on(len(NODES))
    commands = {
        "look": steps.look(spec, RUN, NODES, seconds=60),
        "ranks": steps.ranks(spec, RUN, NODES, "start1"),
        "ranks-beside": steps.ranks(spec, RUN, NODES, "start2", beside=True),
        "gone": steps.gone("n2", [4711, 4712]),
        "understudy": steps.understudy("7", "n1", "n2"),
    }
    return {name: " \\\n".join(map(shlex.quote, command)) + "\n" for name, command in commands.items()}


@pytest.mark.parametrize("name", ["look", "ranks", "ranks-beside", "gone", "understudy"])
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


@pytest.mark.parametrize("text", [steps.LOOK, steps.GONE, steps.UNDERSTUDY], ids=["look", "gone", "understudy"])
def test_what_a_node_runs_is_sh(text):
    checked = subprocess.run(["sh", "-n", "-c", text], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_what_is_left_of_ranks_is_told_by_their_processes():
    gone = subprocess.Popen(["true"])
    gone.wait()

    def told(*pids: int) -> int:
        return subprocess.run(["sh", "-c", steps.GONE, "sh", *map(str, pids)]).returncode

    assert told() == told(gone.pid) == 0
    assert told(gone.pid, os.getpid()) == told(os.getpid(), gone.pid) == steps.HELD


# What the understudy is told of the job -> whether it puts it back.
TOLD = {
    "all is well": ("RUNNING n[1-2]", "n1 n2", False),
    "its first node is gone": ("RUNNING n2", "n2", True),
    "another has a name that begins so": ("RUNNING n[2,11]", "n2 n11", True),
    "it waits": ("PENDING ", "", False),
    "it ends": ("COMPLETING n2", "n2", False),
    "no word": ("", "", False),
}


@pytest.mark.parametrize("case", TOLD)
def test_the_understudy_puts_the_job_back_where_its_first_node_is_gone(case, tmp_path):
    said, names, put_back = TOLD[case]
    programs = {
        # The second time ends it.
        "sleep": f"[ ! -e {tmp_path}/slept ] && touch {tmp_path}/slept",
        "squeue": f"echo '{said}'" if said else "exit 1",
        "scontrol": f'[ "$1" = show ] && printf "%s\\n" {names} || echo "$*" >> {tmp_path}/asked',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o700)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", steps.UNDERSTUDY, "sslrun", "7", "n1"], env=environment, timeout=60)
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == ("requeue 7\n" if put_back else "")
