"""The README's page for a cluster, run as printed on a real Slurm of two nodes with a fake GPU each.

Launches run at recipe=tiny instead of recipe=demo, so that this takes seconds; `pip install` is asked what it would do.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = re.search(r"^```sh cluster\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)[1]


@pytest.fixture(scope="module")
def small(start_cluster):
    cluster = start_cluster(nodes=2, gpus=1, cpus=4)
    yield cluster
    cluster.stop()


def test_every_command_works_as_printed_and_ends_with_a_first_result(small, tmp_path):
    uv = ROOT / ".uv" / "bin" / "uv"
    pip = (
        f"{uv if uv.exists() else 'uv'} pip install --python {sys.executable} --dry-run --no-deps --no-build-isolation"
    )
    environment = small.environ(
        {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    )
    lines = [line.split("  #")[0].strip() for line in COMMANDS.splitlines() if line.strip()]
    assert lines[0] == "pip install ." and len(lines) >= 10
    script = "\n".join(lines[1:]).replace("recipe=demo", "recipe=tiny").replace("-demo", "-tiny")
    # All nodes are this machine, whose own name may lead nowhere.
    script = script.replace(
        "export SSLRUN_CONFIG_DIR",
        "echo 'environment: {GLOO_SOCKET_IFNAME: lo}' >> configs/cluster/mine.yaml\nexport SSLRUN_CONFIG_DIR",
    )
    pip_says = subprocess.run([*pip.split(), str(ROOT)], capture_output=True, text=True)
    assert pip_says.returncode == 0, pip_says.stderr
    done = subprocess.run(["bash", "-euxc", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "k-NN" in done.stdout or "knn" in done.stdout
    header, row = done.stdout.splitlines()[-2:]
    assert "rotnet-tiny" not in header and "rotnet-tiny" in row, done.stdout
