"""What lies behind a link stays, whoever has laid it in the place of what `prune` deletes, and it is said."""

import os
import shutil
import time
from pathlib import Path

import pytest

from launcher.errors import InputError
from launcher.run import pruning
from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.manifest import digest
from launcher.slurm import commands

pytestmark = pytest.mark.fault


@pytest.fixture
def run(fresh, ledgers) -> RunDir:
    """It has two checkpoints, of which the older one would go."""
    ledgers.start(fresh)
    for step in (10, 20):
        folder = make(fresh.path / "checkpoints" / f"step_{step:08d}")
        write_json(folder / "manifest.json", {"step": step, "digest": digest({}), "files": {}})
    return fresh


def age(*paths: Path) -> None:
    then = time.time() - 99 * 86400
    for path in paths:
        os.utime(path, (then, then), follow_symlinks=False)


def make(folder: Path) -> Path:
    """A folder that nobody has written to for long."""
    folder.mkdir(parents=True)
    (folder / "file").touch()
    age(folder / "file", folder)
    return folder


# What would go, were it in the folder of runs ({id} is the run's): its place, and the folder that a link stands for.
LINKED = {
    "{id}/checkpoints": "step_00000000",
    "{id}/features": ".gone-step_00000000",
    "{id}/submit": "deeper",
    "{id}/evals": "knn-1",
    ".arrays": "token",
    ".code": "0123",
    "{id}/checkpoints/.saving-00000001-abcd": "deeper",
    "{id}/features/.gone-step_00000001": "deeper",
    ".arrays/token": "deeper",
    ".code/0123": "deeper",
}


def lay(run: RunDir, place: str, target: Path) -> Path:
    """The place in the folder of runs, as a link to `target`."""
    link = run.runs / place.format(id=run.id)
    link.parent.mkdir(exist_ok=True)
    if link.is_dir():
        link.rename(run.runs / "aside")
    link.symlink_to(target)
    age(link)
    return link


@pytest.mark.parametrize(("place", "holds"), LINKED.items(), ids=LINKED)
def test_what_lies_behind_a_link_stays_and_is_said(run, place, holds, tmp_path, slurm_said):
    slurm_said.says("squeue", "")
    shutil.copytree(run.path / "checkpoints", tmp_path / "theirs")
    make(tmp_path / "theirs" / holds)
    link = lay(run, place, tmp_path / "theirs")
    before = sorted((tmp_path / "theirs").rglob("*"))
    found = pruning.find(run, 1, commands.jobs)
    assert "evals" in place or str(tmp_path / "theirs") in found.kept[link]
    pruning.delete(found.doomed, run.runs)
    assert link.is_symlink() and sorted((tmp_path / "theirs").rglob("*")) == before


@pytest.mark.parametrize("what", ["checkpoints", "checkpoints/step_00000010", "submit"])
def test_a_link_that_is_laid_after_the_look_is_not_followed(run, what, tmp_path):
    make(run.path / "submit")
    found = pruning.find(run, 1, commands.jobs)
    shutil.copytree(run.path / what, tmp_path / "theirs")
    before = sorted((tmp_path / "theirs").rglob("*"))
    shutil.rmtree(run.path / what)
    (run.path / what).symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match=f"{what}: it is a link, and what it leads to stays"):
        pruning.delete(found.doomed, run.runs)
    assert sorted((tmp_path / "theirs").rglob("*")) == before


def test_code_that_is_swapped_for_a_link_after_the_look_is_not_followed(run, tmp_path):
    make(run.runs / ".code" / "0123")
    found = pruning.find(run, 1, commands.jobs)
    (run.runs / ".code").rename(tmp_path / "theirs")
    (run.runs / ".code").symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match="it is a link, and what it leads to stays"):
        pruning.delete(found.doomed, run.runs)
    assert (tmp_path / "theirs" / "0123" / "file").exists()
