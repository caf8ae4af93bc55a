"""The batch scripts of DeeperCluster's published recipe, to the letter: on 8, 64, 256 and 512 GPUs, on as many nodes as
there are, with one in reserve, and with lines of one's own.

    SSLRUN_REWRITE_GOLDEN=1 python -m pytest tests/launcher/plan/test_plan_scripts_are_golden.py

writes them anew; read the difference before committing it.
"""

import difflib
import os
import subprocess
from pathlib import Path

import pytest

from launcher.compose.training import resolve
from launcher.plan import plan as planning

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
    file, script = GOLDEN / f"deepercluster-{name}.sh", written(WORDS[name])
    if os.environ.get("SSLRUN_REWRITE_GOLDEN"):
        file.write_text(script)
    golden = file.read_text() if file.exists() else ""
    difference = difflib.unified_diff(
        golden.splitlines(), script.splitlines(), f"golden/{file.name}", "planned now", lineterm=""
    )
    assert golden == script, "\n" + "\n".join(difference)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.sh")), ids=lambda file: file.stem)
def test_it_is_bash(file):
    checked = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_there_is_one_of_each():
    assert {file.name for file in GOLDEN.glob("*.sh")} == {f"deepercluster-{name}.sh" for name in WORDS}
