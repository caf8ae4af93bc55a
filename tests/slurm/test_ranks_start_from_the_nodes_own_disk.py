"""cluster.local_env: ranks start from a copy of the environment on their node's own disk, and ask the shared one not.

The nodes of the test cluster are one machine: what is the disk of each is one folder."""

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.start import unpacked

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "cluster.cpus_per_task=1", "--json")
QUESTIONS = 200  # of a node to the shared environment, at most, whatever the number of its ranks
CHILD = re.compile(r"(\d+)\s.*\b(?:clone3?|v?fork)\b.*= (\d+)")
CALL = re.compile(r'(\d+)\s+(\w+)\(.*?"([^"]*)"')


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Of an environment with what the batch script needs, and without torch: its ranks end at once."""
    folder = tmp_path_factory.mktemp("shared") / "env"
    subprocess.run([sys._base_executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in ("submitit", "cloudpickle", "typing_extensions", "xxhash"):
        found = Path(importlib.util.find_spec(name).origin)
        if found.name == "__init__.py":
            shutil.copytree(found.parent, site / name)
        else:
            shutil.copy2(found, site)
    return folder / "bin" / "python"


@pytest.fixture
def disk(tmp_path) -> Path:
    (tmp_path / "disk of a node").mkdir()
    return tmp_path / "disk of a node"


@pytest.fixture
def launch(slurm_sslrun, config_dir, python, tmp_path) -> Callable:
    """`launch(cluster, override, ...)` -> (the command line, the run that it made)."""

    def type(cluster, *overrides: str) -> tuple:
        sslrun = slurm_sslrun(cluster)
        words = (*RUN, "--config-dir", config_dir(cluster), f"cluster.python={python}", f"runs={tmp_path / 'runs'}")
        return sslrun, Path(sslrun(*words, *overrides).json["path"])

    return type


@pytest.fixture
def traced(tmp_path) -> Callable[..., contextlib.AbstractContextManager]:
    """`with traced(cluster) as seen`: afterwards seen.asked(folder, ...) counts questions about files there."""
    if not shutil.which("strace") or os.geteuid():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("what a job asks is seen with strace, as root")

    @contextlib.contextmanager
    def trace(cluster) -> Iterator[SimpleNamespace]:
        file = tmp_path / "trace"
        daemons = subprocess.run(["pgrep", "-f", f"slurmd.*{cluster.folder}/"], capture_output=True, text=True)
        attached = [word for pid in daemons.stdout.split() for word in ("-p", pid)]
        options = ["-f", "-qq", "-s", "300", "-o", file, "-e", "trace=%file,%process"]
        strace = subprocess.Popen(["strace", *options, *attached])
        try:
            yield SimpleNamespace(asked=lambda *folders: asked(file, folders))
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait()

    return trace


def asked(file: Path, folders: tuple[str, ...]) -> Counter:
    """By whom: "job", its first process and what that starts there, or "tasks", all else; and each program begun."""
    whose: dict[str, str] = {}
    found: Counter = Counter()
    for line in file.read_text(errors="replace").splitlines():
        if child := CHILD.fullmatch(line):
            whose.setdefault(child[2], whose.get(child[1], "tasks"))
        if call := CALL.match(line):
            process, name, path = call.groups()
            if name == "execve":
                found[path] += 1
                if path.endswith("/slurm_script"):
                    whose[process] = "job"
            if any(f"{path}/".startswith(f"{folder}/") for folder in folders):
                found[whose.get(process, "tasks")] += 1
    return found


def test_at_the_second_start_ranks_ask_the_shared_environment_nothing(
    cluster, launch, python, disk, traced, ledger, settled, until
):
    sslrun, run = launch(cluster, "nodes=2", "tasks_per_node=1", f"cluster.local_env={disk}")

    def failed(after: int = 0) -> None:
        """Ranks of a start after that one have, for want of torch."""
        until(lambda: any(event["generation"] > after for event in ledger(run, "error")))
        sslrun("cancel", run, "--yes")
        settled(sslrun, run)

    failed()
    last = ledger(run, "start")[-1]["generation"]  # the cancel may have met a second one
    with traced(cluster) as seen:
        sslrun("resume", run, "tasks_per_node=2")
        failed(last)
    first, second = ledger(run, "packed")
    assert (first["fresh"], second["fresh"], second["digest"]) == (True, False, first["digest"])
    assert [event["fresh"] for event in ledger(run, "unpacked")] == [1, 0]
    copy = unpacked.home(disk) / first["digest"]
    found = seen.asked(*first["prefixes"])
    print(found["tasks"], "questions of the nodes, and", found["job"], "of the job's first process")
    assert found["tasks"] <= 2 * QUESTIONS and found["job"] > 0
    assert found[str(copy / "env/bin/python")] == 2 * 4  # looks at the copy, meets the other node, and is two ranks

    (next(python.parents[1].glob("lib/python*/site-packages")) / "installed.py").touch()
    sslrun("resume", run, "cluster.additional_parameters.begin=now+1hour")
    *_, third = ledger(run, "packed")
    assert third["fresh"] and third["digest"] != first["digest"]


@pytest.mark.slow
def test_so_it_is_with_all_that_a_training_loads(cluster, launch, disk, traced, ledger, settled):
    whole = Path(sys.prefix)
    size = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file() and not file.is_symlink())
    if shutil.disk_usage(disk).free < 3 * size:
        pytest.skip(f"it takes {2 * size / 1e9:.0f} GB of disk")
    given = (f"cluster.python={sys.executable}", f"cluster.local_env={disk}", "nodes=2", "tasks_per_node=2")
    sslrun, run = launch(cluster, *given)
    assert settled(sslrun, run)["state"] == "done"
    with traced(cluster) as seen:
        sslrun, again = launch(cluster, *given, "seed=1")
        assert settled(sslrun, again)["state"] == "done"
    (first,), (second,) = ledger(run, "packed"), ledger(again, "packed")
    assert (first["fresh"], second["fresh"]) == (True, False)
    assert [event["fresh"] for each in (run, again) for event in ledger(each, "unpacked")] == [1, 0]
    found = seen.asked(*first["prefixes"])
    print(found["tasks"], "questions of the nodes, and", found["job"], "of the job's first process")
    assert found["tasks"] <= 2 * QUESTIONS and found["job"] > 0


@pytest.mark.fault
@pytest.mark.slow
def test_a_run_that_is_to_end_while_its_environment_is_unpacked_ends_soon(
    cluster, launch, disk, ledger, settled, until
):
    home = unpacked.home(disk)
    home.mkdir(mode=0o700)
    with open(home / "lock", "w") as another:  # of which there is no news
        fcntl.flock(another, fcntl.LOCK_EX)
        sslrun, run = launch(cluster, "cluster.partition=low", f"cluster.local_env={disk}")
        until(lambda: "unpacking 0/1" in sslrun("status", f"runs={run.parent}").out)
        above = cluster.run("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep inf")
        until(lambda: ledger(run, "end"))
        cluster.run("scancel", above.stdout.strip())
        until(lambda: len(ledger(run, "start")) > 1)
        sslrun("cancel", run, "--yes")
        settled(sslrun, run)
    assert [(event["cause"], event["requeued"]) for event in ledger(run, "end")] == [
        ("preempted", True),
        ("cancelled", False),
    ]
    assert not ledger(run, "unpacked") and {path.name for path in home.iterdir()} == {"lock"}


def test_a_node_that_cannot_have_it_is_named(uneven, launch, hidden, settled):
    mine = hidden / "scratch"
    mine.mkdir()
    sslrun, run = launch(uneven, "cluster.exclude=n1", f"cluster.local_env={mine}")
    shown = settled(sslrun, run)
    line = f"n2 has no folder {mine} (No such file or directory); `sslrun resume {run} cluster.local_env=FOLDER`"
    assert shown["state"] == "failed" and shown["message"].startswith(line)
