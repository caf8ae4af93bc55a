"""Options of srun put ranks into containers, as Pyxis does: a step has another root, sees what is mounted there, and
begins once the image has been fetched. The batch script stays outside."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSIDE = "/inside/python"
RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "nodes=2", "cluster.cpus_per_task=1")


@pytest.fixture(scope="module")
def contained(start_cluster, tmp_path_factory):
    """A cluster whose srun takes --container-image."""
    if os.geteuid() != 0:
        pytest.skip("another root takes root")
    plugin = tmp_path_factory.mktemp("plugin") / "containers.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", plugin, HERE / "containers.c"], check=True)
    own = ["/usr", "/etc", "/dev", "/proc", "/bin", "/lib", "/lib64", sys.prefix, sys.base_prefix]
    has = ":".join(path for path in own if os.path.isdir(path))
    return start_cluster(nodes=2, plugins=f"required {plugin} has={has}\n")


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """Its Python is where no node has one."""
    image = tmp_path_factory.mktemp("images") / "torch#1"
    python = Path(f"{image}{INSIDE}")
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return image


@pytest.fixture(scope="module")
def typed(contained, image, slurm_sslrun, config_dir):
    words = (*RUN, "--config-dir", config_dir(contained), f"cluster.python={INSIDE}")
    return slurm_sslrun(contained), (*words, f"cluster.srun.container-image={image}")


def test_a_run_waits_for_its_image_and_trains_in_it(typed, image, tmp_path, until, settled):
    sslrun, words = typed
    words = (*words, f"runs={tmp_path}")
    shown = sslrun("plan", *words, "--json").json["mounts"]
    fetching = Path(f"{image}.fetching.n2")
    fetching.touch()
    try:
        run = Path(sslrun(*words, *shlex.split(shown), "--json").json["path"])
        until(lambda: "n2 to begin" in sslrun("status", f"runs={tmp_path}").out)
    finally:
        fetching.unlink()
    ended = settled(sslrun, run)
    assert ended["state"] == "done", ended


def test_what_a_container_does_not_show_is_named(typed, tmp_path, settled):
    sslrun, words = typed
    run = Path(sslrun(*words, f"runs={tmp_path}", "--json").json["path"])
    shown = settled(sslrun, run)
    hidden = f"does not see {run}, {tmp_path}/.code"
    assert shown["state"] == "failed" and f"n1 {hidden}" in shown["message"] and f"n2 {hidden}" in shown["message"]
    assert "inside the container: cluster.srun.container-mounts" in shown["message"]
