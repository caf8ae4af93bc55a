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
    compile = ["sh", "-c", 'gcc -shared -fPIC -o "$1" "$2"', "sh", plugin, HERE / "containers.c"]
    compiled = subprocess.run(compile, capture_output=True, text=True)
    if compiled.returncode:  # on CI a test that was skipped is one that nobody will ever miss
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no plugin of Slurm can be compiled: {compiled.stderr}")
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


@pytest.fixture
def fetching(image):
    """`fetching(".n2")`: from now on that node fetches the image, or all do, until the end or `unlink`."""
    files = []

    def fetch(where: str = "") -> Path:
        files.append(Path(f"{image}.fetching{where}"))
        files[-1].touch()
        return files[-1]

    yield fetch
    for file in files:
        file.unlink(missing_ok=True)


def test_a_run_waits_for_its_image_and_trains_in_it(typed, fetching, tmp_path, until, settled):
    sslrun, words = typed
    words = (*words, f"runs={tmp_path}")
    shown = shlex.split(sslrun("plan", *words, "--json").json["mounts"])
    assert len(shown) == 1 and f"{tmp_path}:{tmp_path}" in shown[0]
    fetched = fetching(".n2")
    run = Path(sslrun(*words, *shown, "--json").json["path"])
    until(lambda: "n2 to begin" in sslrun("status", f"runs={tmp_path}").out)
    fetched.unlink()
    ended = settled(sslrun, run)
    assert ended["state"] == "done", ended


@pytest.mark.slow
def test_one_that_waits_for_its_image_can_be_cancelled_and_resumed(typed, fetching, ledger, tmp_path, until, settled):
    sslrun, words = typed
    fetched = fetching()
    run = Path(sslrun(*words, f"runs={tmp_path}", f"cluster.srun.container-mounts=[{tmp_path}]", "--json").json["path"])
    until(lambda: "n1, n2 to begin" in sslrun("status", f"runs={tmp_path}").out)
    cancelling = sslrun.start("cancel", run, "--yes")
    until(lambda: ledger(run, "end"))
    fetched.unlink()  # what has been fetched is not begun with any more, but only then does Slurm let the job go
    assert sslrun.finish(cancelling).code == 0
    assert settled(sslrun, run)["state"] == "cancelled"

    sslrun("resume", run)
    ended = settled(sslrun, run)
    assert ended["state"] == "done", ended


def test_what_a_container_does_not_show_is_named(typed, tmp_path, settled):
    sslrun, words = typed
    run = Path(sslrun(*words, f"runs={tmp_path}", "--json").json["path"])
    shown = settled(sslrun, run)
    hidden = f"does not see {run}, {tmp_path}/.code"
    assert shown["state"] == "failed" and f"each of n1, n2 {hidden}" in shown["message"]
    assert "inside the container: cluster.srun.container-mounts; `sslrun resume " in shown["message"]
    assert f'"cluster.srun.container-mounts=[{tmp_path}:{tmp_path}' in shown["message"]


def test_the_doctor_starts_its_tasks_in_it(typed, config_dir, contained, image, tmp_path):
    sslrun, _ = typed
    where = ("cluster=fake", "--config-dir", config_dir(contained), "nodes=2", "tasks_per_node=1", f"runs={tmp_path}")
    inside = (f"cluster.python={INSIDE}", f"cluster.srun.container-image={image}")
    rows = {row["check"]: row for row in sslrun("doctor", "--launch", *where, *inside, "--json", code=None).json}
    assert rows["launch"]["found"].startswith("2 of 2 ranks")
    hidden, programs = rows["run directory"], rows["slurm programs"]
    assert (hidden["level"], programs["level"]) == ("bad", "ok") and "n1, n2: no such file" in hidden["found"]
    assert "into the container" in hidden["advice"] and programs["found"] == "the first node has scontrol"


def test_an_option_that_srun_does_not_know_is_refused_and_found_by_the_doctor(typed, tmp_path):
    sslrun, words = typed
    wrong = "cluster.srun.container_imagine=a#b"
    said = sslrun(*words, wrong, f"runs={tmp_path}", code=2).complaint
    assert "cluster.srun.container_imagine: srun does not take it here (unrecognized option" in said
    assert not list(tmp_path.iterdir())
    where = [word for word in words[2:] if not str(word).startswith("nodes")]
    rows = {row["check"]: row for row in sslrun("doctor", *where, wrong, "--json", code=3).json}
    assert (rows["srun"]["level"], rows["python"]["level"]) == ("bad", "ok")
    rows = {row["check"]: row for row in sslrun("doctor", *where, "--json").json}
    assert rows["srun"]["level"] == "ok" and "--container-image=" in rows["srun"]["found"]
