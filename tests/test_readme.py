"""Every command that the README shows works as printed, in order, in an empty folder.

Launches run at recipe=tiny instead of recipe=demo, so that this takes seconds; `make` targets are only looked up.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import warm

from launcher.spec import registry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.M | re.S)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_every_sslrun_command_works_as_printed(forge, tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    assert len(commands()) >= 10
    for command in commands():
        quick = command.replace("recipe=demo", "recipe=tiny").replace("-demo", "-tiny")
        words = shlex.split(quick)
        of_a_shell = words[0] != "sslrun" or "$" in quick
        start = subprocess.Popen if of_a_shell else forge.start
        given = ["sh", "-c", quick] if of_a_shell else [warm.SSLRUN, *words[1:]]
        options = {"cwd": tmp_path, "env": environment, "stdin": subprocess.DEVNULL, "text": True}
        done = start(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        out, err = done.communicate()
        assert done.returncode == 0, f"{quick}\n{out}{err}"


def test_every_make_target_exists():
    targets = re.findall(r"^make ([a-z-]+)", README, flags=re.M)
    assert {"run", "test"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_file_and_picture_it_names_exists():
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name
    tree = README.split("## The tree")[1]
    here = [top for top in ROOT.iterdir() if not top.name.startswith(".")]
    names = {path.name for top in here for path in (top, *top.rglob("*"))}
    for name in re.findall(r"\b[a-z_]+/|\b[a-z_]+\.py\b", tree):
        assert name.rstrip("/") in names, name


def test_every_method_has_a_row_with_all_its_recipes():
    for name in registry.names():
        rows = "".join(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        assert {*registry.method(name).recipes} <= {*re.findall(r"`(\w+)`", rows)}
