"""The batch scripts of DeeperCluster's published recipe on 8, 64, 256 and 512 GPUs, to the letter.

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


def written(nodes):
    """The script that is planned for so many nodes."""
    spec, recipe = resolve(["method=deepercluster", f"nodes={nodes}", *FIXED], planning=True)
    return planning.make(spec, recipe).sbatch


@pytest.mark.parametrize("gpus", [8, 64, 256, 512])
def test_the_script_is_the_golden_one(gpus):
    file, script = GOLDEN / f"deepercluster-{gpus}gpus.sh", written(gpus // 8)
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


def test_there_is_one_of_each_size():
    assert {file.name for file in GOLDEN.iterdir()} == {f"deepercluster-{gpus}gpus.sh" for gpus in (8, 64, 256, 512)}
