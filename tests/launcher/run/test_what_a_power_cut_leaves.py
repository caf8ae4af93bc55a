"""What a run's folder promises to hold after a power cut is on disk, contents and names, before others rely on it."""

import os
from pathlib import Path

import pytest

from launcher.run import snapshot
from launcher.run.ledger import Ledger


@pytest.fixture
def synced(monkeypatch) -> dict[Path, int]:
    """{what was last synced with so many bytes, of a folder so many names}, under the name it has at the end."""
    found: dict[Path, int] = {}
    fsync, rename = os.fsync, Path.rename

    def size(path: Path) -> int:
        return len(os.listdir(path)) if path.is_dir() else path.stat().st_size

    def noted(file) -> None:
        fsync(file)
        path = Path(os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}"))
        found[path] = size(path)

    def renamed(path: Path, target: Path) -> Path:
        for old in [each for each in found if each.is_relative_to(path)]:
            found[Path(target) / old.relative_to(path)] = found.pop(old)
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", renamed)
    return found


def on_disk(found: dict[Path, int], path: Path) -> bool:
    """As it is now."""
    return found.get(path) == (len(os.listdir(path)) if path.is_dir() else path.stat().st_size)


def test_every_event_that_was_written(tmp_path, synced):
    (tmp_path / "events").mkdir()
    pen = Ledger(tmp_path, 1, "rank0")
    for event in ("start", "checkpoint"):
        pen.write(event)
        assert on_disk(synced, tmp_path / "events" / "0001-rank0.jsonl")
        assert on_disk(synced, tmp_path / "events")
        synced.pop(tmp_path / "events" / "0001-rank0.jsonl")


def test_the_code_before_a_run_points_at_it(tmp_path, synced):
    contents = {"toy/__init__.py": b"", "toy/part/file.py": b"name = 1\n" * 1000, "toy/top.py": b"x = 1\n"}
    target = tmp_path / "runs" / ".code" / "digest"
    target.parent.mkdir(parents=True)
    snapshot._write(contents, target)
    below = [target, *target.rglob("*")]
    assert len(below) == 6
    assert all(on_disk(synced, path) for path in (*below, target.parent, tmp_path / "runs"))
    (tmp_path / "runs" / "run").mkdir()
    snapshot.link(tmp_path / "runs" / "run", target)
    assert on_disk(synced, tmp_path / "runs" / "run")


def test_the_folder_of_a_run_and_those_above_it(tmp_path, synced, ledgers_in):
    run = ledgers_in(tmp_path / "new" / "runs").create("method=rotnet", "recipe=tiny")
    for path in (run.path.parent, tmp_path / "new", tmp_path):
        assert on_disk(synced, path)
