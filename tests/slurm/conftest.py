"""Real Slurm clusters on this machine, shared by the session, and the command line as their user would type it."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from launcher.run.shapes import is_event

HERE = Path(__file__).parent
INSTALL = "apt-get install slurm-wlm munge (Debian, Ubuntu)"
MISSING = "Slurm is not on this machine: "
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(name: str) -> ModuleType:
    """Tests are not a package, so this is how they share a class."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


clusters, networks = _load("cluster"), _load("networks")

_shared: list = []  # clusters of the session that are running


def pytest_collection_modifyitems(config, items) -> None:
    program = clusters.missing()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            if program and not _must_be_here():
                item.add_marker(pytest.mark.skip(reason=f"{MISSING}no {program}"))


def pytest_runtest_setup(item) -> None:
    if (program := clusters.missing()) and _must_be_here():
        pytest.fail(f"{MISSING}no {program}. {INSTALL}", pytrace=False)


def pytest_terminal_summary(terminalreporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if MISSING in str(report.longrepr)]
    if skipped:
        terminalreporter.section("SLURM WAS NOT TESTED", red=True, bold=True)
        terminalreporter.line(f"{len(skipped)} tests need a real Slurm, and none is installed: {INSTALL}", red=True)


def _must_be_here() -> bool:
    """On CI a test that was skipped is one that nobody will ever miss."""
    return os.environ.get("CI", "").lower() in ("true", "1")


@pytest.fixture(scope="session")
def start_cluster():
    """`start_cluster(nodes=2, ...)`: one more Cluster with cluster.py's options; stop it, or the session does."""
    started = []

    def start(**options):
        cluster = clusters.Cluster(**options).start()
        started.append(cluster)
        return cluster

    yield start
    for cluster in started:
        cluster.stop()


@pytest.fixture(scope="session")
def cluster(start_cluster):
    """Two nodes of four CPUs, or of as many as there are, and no GPUs: what trains."""
    cluster = start_cluster(nodes=2, cpus=max(4, CORES))
    with _cleaned(cluster):
        yield cluster


@pytest.fixture(scope="session")
def big_cluster(start_cluster):
    """64 nodes of eight fake GPUs."""
    cluster = start_cluster(nodes=64, gpus=8, cpus=16)
    with _cleaned(cluster):
        yield cluster


@pytest.fixture(scope="session")
def hidden(tmp_path_factory) -> Path:
    """A folder that n2 of the `uneven` cluster does not see."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="session")
def uneven(start_cluster, hidden):
    """Two nodes, of which n2 sees an empty folder where n1 sees `hidden`."""
    if os.geteuid() != 0:
        pytest.skip("hiding a folder from a node takes a mount namespace, so root")
    cluster = start_cluster(nodes=2, hide={"n2": hidden})
    with _cleaned(cluster):
        yield cluster


@pytest.fixture(scope="session")
def networked():
    """Two nodes of which each has a network of its own to the other one, as eth0 and as ens3, a docker0 at the same
    address besides, and takes every node's name for its own loopback, as Debian does."""
    if os.geteuid() != 0:
        pytest.skip("a network of a node's own takes a network namespace, so root")
    given = {"interfaces": {"n2": "ens3"}, "hosts": "127.0.1.1 n1 n2"}
    with networks.networked(clusters.Cluster)(nodes=2, cpus=max(4, CORES), **given) as cluster, _cleaned(cluster):
        yield cluster


@contextlib.contextmanager
def _cleaned(cluster) -> Iterator[None]:
    _shared.append(cluster)
    yield
    _shared.remove(cluster)


@pytest.fixture
def grace(cluster) -> Iterator[Callable[[int], None]]:
    """`grace(20)`: for this test, so many seconds for preempted jobs of `low` on the shared cluster."""

    def give(seconds: int) -> None:
        cluster.run("scontrol", "update", "partitionname=low", f"gracetime={seconds}")

    yield give
    give(cluster.grace_s)


@pytest.fixture(autouse=True)
def _clean_clusters():
    """A test leaves no job behind, and no node that it broke, for the next one."""
    yield
    for shared in _shared:
        shared.clear()


@pytest.fixture(scope="session")
def slurm_sslrun(sslrun, forge, tmp_path_factory):
    """`slurm_sslrun(cluster)`: `sslrun` as typed on the login node of that cluster, with a `home` of its own. The
    commands are forks; what Slurm starts for them, on its nodes, is started as anywhere."""
    made = []

    def make(cluster):
        command = type(sslrun)(tmp_path_factory.mktemp("login"), forge)
        command.environment = cluster.environ(command.environment)
        made.append(command)
        return command

    yield make
    for command in made:
        command.close()


@pytest.fixture(scope="session")
def settled(until) -> Callable[..., dict]:
    """`settled(sslrun, run)`: what `show` says of a run, or an evaluation, once its job has left the queue. `job`: the
    one that its ledger does not know."""

    def wait(sslrun, run: str | Path, job: str = "") -> dict:
        given = [event["job"] for event in read_ledger(run) if event["event"] == "submitted"]
        queue = ["squeue", "--noheader", "--array", "--format=%i"]

        def gone() -> bool:  # one that is started again is in the queue meanwhile
            said = subprocess.run(queue, env=sslrun.environment, capture_output=True, text=True)
            return said.returncode == 0 and (job or given[-1]) not in said.stdout.split()

        until(gone)
        return sslrun.show(run)

    return wait


@pytest.fixture(scope="session")
def ledger() -> Callable[..., list[dict]]:
    """`ledger(run, "start")`: those of its events."""
    return lambda run, name: [event for event in read_ledger(run) if event["event"] == name]


def read_ledger(run: str | Path) -> list[dict]:
    """Without a line that is being written; any other has to be one that is read."""
    files = sorted((Path(run) / "events").glob("*.jsonl"))
    lines = [line for file in files for line in file.read_text().splitlines(keepends=True)]
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    assert not [row for row in rows if not is_event(row)]
    return sorted(rows, key=lambda event: event["generation"])


@pytest.fixture(scope="session")
def standing() -> Callable[..., contextlib.AbstractContextManager]:
    """`with standing(run): ...`: its ranks stand still meanwhile, so that a small run is still there afterwards. Slurm
    wakes them when it tells them to go."""

    @contextlib.contextmanager
    def stopped(run: str | Path) -> Iterator[None]:
        beats = [json.loads(file.read_text()) for file in (Path(run) / "heartbeats").glob("rank*.json")]
        now = max(beat["generation"] for beat in beats)
        ranks = [beat["pid"] for beat in beats if beat["generation"] == now]
        for rank in ranks:
            os.kill(rank, signal.SIGSTOP)
        try:
            yield
        finally:
            for rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank, signal.SIGCONT)

    return stopped


@pytest.fixture(scope="session")
def config_dir(tmp_path_factory) -> Callable[..., Path]:
    """`config_dir(cluster, timeout_min=5)`: for `--config-dir`; `cluster=fake` then says what that cluster is."""

    def write(cluster, **fields: object) -> Path:
        folder = tmp_path_factory.mktemp("config")
        (folder / "cluster").mkdir()
        about = {
            "name": "fake",
            "kind": "slurm",
            "gpus_per_node": cluster.gpus,
            "cpus_per_node": cluster.cpus,
            # All nodes are this machine, whose own name may lead nowhere.
            "environment": {"GLOO_SOCKET_IFNAME": "lo"},
            # Each would import PyTorch, on few cores, for nothing: a test of what they are for says True.
            "standby": False,
            **fields,
        }
        (folder / "cluster" / "fake.yaml").write_text(json.dumps(about) + "\n")  # JSON is YAML
        return folder

    return write


@pytest.fixture
def pings_alone(tmp_path) -> Callable:
    """`pings_alone(sslrun)`: it, where every program of Slurm hangs but for `scontrol ping`. Returns a function that
    lists what was called all the same: without a controller Slurm's own programs try for minutes."""
    called, folder = tmp_path / "called", tmp_path / "hang"
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue", "sinfo", "scancel", "sacct", "scontrol"):
        pings = f'[ "$*" = ping ] && exec {shutil.which(name)} ping\n' if name == "scontrol" else ""
        (folder / name).write_text(f'#!/bin/sh\n{pings}echo "{name} $*" >> {called}\nexec sleep infinity\n')
        (folder / name).chmod(0o755)

    def hang(sslrun) -> Callable[[], list[str]]:
        sslrun.environment["PATH"] = f"{folder}:{sslrun.environment['PATH']}"
        return lambda: called.read_text().splitlines() if called.exists() else []

    return hang


@pytest.fixture(scope="session")
def patient(tmp_path_factory) -> Callable:
    """`patient(sslrun)`: it, whose `doctor --launch` waits an hour for ranks that are still to come, and not a minute:
    no machine is too slow for that, and whoever waits for what cannot come is seen to."""
    site = tmp_path_factory.mktemp("site")
    said = "from launcher.slurm import trial\n\ntrial.RANK_SECONDS, trial.JOB_MINUTES = 3600.0, 60\n"
    (site / "sitecustomize.py").write_text(said)

    def wait(sslrun):
        sslrun.environment["PYTHONPATH"] = str(site)
        return sslrun

    return wait
