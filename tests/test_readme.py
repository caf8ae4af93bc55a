"""Every command that the README shows works as printed, in order, in an empty folder.

Launches run at recipe=tiny instead of recipe=demo, so that this takes seconds; `make` targets are only looked up.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.M | re.S)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_every_sslrun_command_works_as_printed(tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    assert len(commands()) >= 10
    for command in commands():
        quick = command.replace("recipe=demo", "recipe=tiny").replace("-demo", "-tiny")
        done = subprocess.run(quick, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{quick}\n{done.stdout}{done.stderr}"


def test_every_make_target_exists():
    targets = re.findall(r"^make ([a-z-]+)", README, flags=re.M)
    assert {"run", "test"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_file_and_picture_it_names_exists():
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name
    tree = README.split("## The tree")[1]
    for name in re.findall(r"\b[a-z_]+/|\b[a-z_]+\.py\b", tree):
        assert list(ROOT.glob(f"**/{name.rstrip('/')}")), name
