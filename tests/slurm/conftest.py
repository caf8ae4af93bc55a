"""Real Slurm clusters on this machine, shared by the session, and the command line as their user would type it."""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALL = "apt-get install slurm-wlm munge (Debian, Ubuntu)"
MISSING = "Slurm is not on this machine: "

_spec = importlib.util.spec_from_file_location("cluster", HERE / "cluster.py")
clusters = importlib.util.module_from_spec(_spec)  # tests are not a package, so this is how they share a class
_spec.loader.exec_module(clusters)

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
    """Two nodes of four CPUs, no GPUs: what trains."""
    cluster = start_cluster(nodes=2, cpus=4)
    _shared.append(cluster)
    yield cluster
    _shared.remove(cluster)


@pytest.fixture(scope="session")
def big_cluster(start_cluster):
    """64 nodes of eight fake GPUs."""
    cluster = start_cluster(nodes=64, gpus=8, cpus=16)
    _shared.append(cluster)
    yield cluster
    _shared.remove(cluster)


@pytest.fixture(autouse=True)
def _clean_clusters():
    """A test leaves no job behind, and no node that it broke, for the next one."""
    yield
    for shared in _shared:
        shared.clear()


@pytest.fixture(scope="session")
def slurm_sslrun(sslrun, tmp_path_factory):
    """`slurm_sslrun(cluster)`: `sslrun` as typed on the login node of that cluster, with a `home` of its own."""
    made = []

    def make(cluster):
        command = type(sslrun)(tmp_path_factory.mktemp("login"))
        command.environment = cluster.environ(command.environment)
        made.append(command)
        return command

    yield make
    for command in made:
        command.close()


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
            **fields,
        }
        (folder / "cluster" / "fake.yaml").write_text(json.dumps(about) + "\n")  # JSON is YAML
        return folder

    return write
