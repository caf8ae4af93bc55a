"""Under any umask a run directory is its owner's alone, and with `group=` that group's to read."""

import grp
import os
import stat
from pathlib import Path

import pytest

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=1", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1")
LATER = "cluster.additional_parameters.begin=now+1hour"


@pytest.fixture(scope="module")
def typed(cluster, slurm_sslrun, config_dir):
    return slurm_sslrun(cluster), (*RUN, "--config-dir", config_dir(cluster), "--json")


@pytest.fixture
def careless():
    """The umask of a shell that hides nothing: what is started `cold` inherits it."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def team() -> grp.struct_group:
    """A group of ours that is not the first one."""
    groups = [g for g in grp.getgrall() if os.geteuid() == 0 or g.gr_gid in os.getgroups()]
    return next((g for g in groups if g.gr_gid != os.getegid()), None) or pytest.skip("we are in one group only")


def modes(runs: Path) -> dict[Path, str]:
    # The code is read-only and has a place of its own; of the submission nobody else needs to know. Keys, and who runs
    # it, are the owner's alone.
    private = (".code", "submit", ".submit.lock", "private.json", "lock")
    found = [p for p in (runs, *runs.rglob("*")) if not p.is_symlink() and not set(private) & set(p.parts)]
    return {p: oct(stat.S_IMODE(p.stat().st_mode)) for p in found}


def test_nobody_else_reads_it(cluster, typed, careless, team, tmp_path, settled):
    sslrun, words = typed
    wanted = {
        ("mine", f"runs={tmp_path / 'mine' / 'deep'}"): {"0o700", "0o600"},
        ("ours", f"runs={tmp_path / 'ours' / 'deep'}", f"group={team.gr_name}"): {"0o2750", "0o640"},
    }
    for name, *where in wanted:
        queued = sslrun(*words, LATER, *where, cold=True).json
        assert set(modes(tmp_path / name).values()) == wanted[name, *where]
        cluster.run("scancel", queued["job"])
    for path in [sslrun(*words, *where, cold=True).json["path"] for _, *where in wanted]:  # now at once
        shown = settled(sslrun, path)
        assert shown["state"] == "done", shown
    for name, *where in wanted:
        assert set(modes(tmp_path / name).values()) == wanted[name, *where]
    assert {p.stat().st_gid for p in modes(tmp_path / "ours")} == {team.gr_gid}


def test_a_group_that_does_not_exist_is_refused(typed, tmp_path):
    sslrun, words = typed
    line = sslrun(*words, "group=nobodys-team", f"runs={tmp_path / 'runs'}", code=2).complaint
    assert "group=nobodys-team: there is no such group; see `id -Gn`" in line
    assert not (tmp_path / "runs").exists()
