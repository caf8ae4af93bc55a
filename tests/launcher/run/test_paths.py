"""A home that is a link on a login node leads to where other nodes have nothing: paths keep the names of the user."""

import os
import shutil
from pathlib import Path

import pytest

from launcher.run import snapshot
from launcher.run.folder import every, find
from launcher.spec import paths
from launcher.verbs import arguments


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A link to a folder that lies deeper; the shell has gone there by it."""
    real = tmp_path / "array" / "vol" / "home"
    real.mkdir(parents=True)
    home = tmp_path / "home"
    home.symlink_to(real)
    monkeypatch.chdir(home)
    monkeypatch.setenv("PWD", str(home))
    return home


def test_a_relative_path_begins_with_what_the_shell_calls_the_folder(home):
    assert os.getcwd() != str(home)
    assert paths.absolute("runs") == home / "runs" == arguments.runs_folder([])
    assert paths.absolute("") == paths.absolute(".") == home
    assert paths.absolute("/x//y/../z") == Path("/x/z") and paths.absolute("~/x") == Path("~/x").expanduser()


def test_up_from_a_link_is_where_the_kernel_goes(home):
    assert paths.absolute("../x") == home.resolve().parent / "x"


@pytest.mark.parametrize("stale", ["", "/", "/nowhere", "relative"])
def test_a_shell_that_is_elsewhere_is_not_believed(home, monkeypatch, stale):
    monkeypatch.setenv("PWD", stale)
    assert paths.absolute("runs") == home.resolve() / "runs"


def test_a_run_is_found_under_the_names_that_were_typed(home):
    run = home / "runs" / "swav-1"
    run.mkdir(parents=True)
    (run / "spec.json").touch()
    for name in ("swav-1", "swav", "runs/swav-1", "runs/swav-1/"):
        assert find(name, home / "runs").path == run
    assert [each.path for each in every(home / "runs")] == [run]
    (home / "runs" / "best").symlink_to("swav-1")
    assert find("best", home / "runs").path == run.resolve()  # what is a link itself is what it leads to


@pytest.mark.parametrize("target", [Path.absolute, Path.resolve], ids=["as typed", "followed"])
def test_the_code_is_found_from_behind_a_link_and_after_a_move(home, target):
    code, run = home / "runs" / ".code" / "digest", home / "runs" / "swav-1" / "evals" / "knn-1"
    for folder in (code, run):
        folder.mkdir(parents=True)
    snapshot.link(run, target(code))
    assert (run / "code").samefile(code)
    shutil.move(home.resolve() / "runs", home.resolve().parents[2] / "elsewhere")
    moved = home.resolve().parents[2] / "elsewhere"
    assert (moved / "swav-1" / "evals" / "knn-1" / "code").samefile(moved / ".code" / "digest")
