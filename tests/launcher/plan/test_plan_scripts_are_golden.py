"""The batch scripts of DeeperCluster's published recipe, to the letter: on 8, 64, 256 and 512 GPUs, on as many nodes as
there are, with one in reserve, and with lines of one's own.

    SSLRUN_REWRITE_GOLDEN=1 python -m pytest tests/launcher/plan/test_plan_scripts_are_golden.py

writes them anew; read the difference before committing it.
"""

import difflib
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

from launcher.compose.training import resolve
from launcher.plan import plan as planning
from launcher.plan import script

GOLDEN = Path(__file__).with_name("golden")
# Fixed, because the real ones differ from machine to machine.
FIXED = ("cluster=generic", "cluster.python=/opt/sslrun/bin/python", "runs=/runs")


# name -> what is typed
WORDS = {
    **{f"{8 * nodes}gpus": (f"nodes={nodes}",) for nodes in (1, 8, 32, 64)},
    "8gpus-and-modules": ("nodes=1", "cluster.setup=['module load cuda/12.4','. /opt/venv/bin/activate']"),
    "4to8nodes": ("nodes=4-8",),
    "4to8nodes-one-gpu-each": ("nodes=4-8", "tasks_per_node=1"),
    "8nodes-and-a-spare": ("nodes=8", "cluster.spare_nodes=1"),
    "4to8nodes-and-a-spare": ("nodes=4-8", "cluster.spare_nodes=1"),
}


def written(words):
    """The script that is planned for them."""
    spec, recipe = resolve(["method=deepercluster", *words, *FIXED], planning=True)
    return planning.make(spec, recipe).sbatch


@pytest.mark.parametrize("name", WORDS)
def test_the_script_is_the_golden_one(name):
    file, planned = GOLDEN / f"deepercluster-{name}.sh", written(WORDS[name])
    if os.environ.get("SSLRUN_REWRITE_GOLDEN"):
        file.write_text(planned)
    golden = file.read_text() if file.exists() else ""
    difference = difflib.unified_diff(
        golden.splitlines(), planned.splitlines(), f"golden/{file.name}", "planned now", lineterm=""
    )
    assert golden == planned, "\n" + "\n".join(difference)


HARD = (
    *WORDS.values(),
    ("cluster.partition=two words", "cluster.gres=gpu:a100:8", "cluster.constraint='a&b'", "cluster.exclude='n[1,3]'"),
    ("cluster.cpus_per_gpu=7", "cluster.mem_per_gpu=60G", "cluster.account=null", "nodes=2-8"),
    ("cluster.additional_parameters.exclusive=true", "cluster.additional_parameters.mail_user='a b@c'"),
    ("cluster.additional_parameters.time-min=10", "cluster.signal_delay_s=77", "runs='/the runs'"),
)


@pytest.mark.parametrize("words", HARD, ids=" ".join)
def test_submitit_writes_the_same(words):
    fixed = [word for word in FIXED if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    spec, _ = resolve(["method=deepercluster", *words, *fixed], planning=True)
    folder, python = Path(spec.runs, spec.run_id, "submit"), script.python_of(spec.cluster)
    given = script.parameters(spec, signal_delay_s=spec.cluster.signal_delay_s or 90, folder=folder, python=python)
    command = SlurmExecutor(folder, python=shlex.quote(python))._submitit_command_str
    theirs = _make_sbatch_string(command=command, folder=folder, **given)
    assert script.text(folder, given, python=python) == theirs


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.sh")), ids=lambda file: file.stem)
def test_it_is_bash(file):
    checked = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_there_is_one_of_each():
    assert {file.name for file in GOLDEN.glob("*.sh")} == {f"deepercluster-{name}.sh" for name in WORDS}
