"""Runs that never trained: folders and ledgers written by the launcher's own code, so that a test has many at once."""

import dataclasses
import functools
import os
import shutil
from pathlib import Path

import pytest
import recorded

from launcher.compose.training import resolve
from launcher.plan import plan as planning
from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot


@functools.cache
def resolved_once(*overrides: str):
    """`resolve`, for overrides whose spec follows from them alone: not from the folder or the machine."""
    return resolve(list(overrides))


class Ledgers:
    """A folder of such runs."""

    def __init__(self, folder: Path):
        self.folder = folder

    def create(self, *overrides: str) -> RunDir:
        """A run that was made and never started."""
        inside = [f"runs={self.folder}"] if any(word.startswith("init_from=") for word in overrides) else []
        spec, recipe = resolved_once(*overrides, *inside)
        spec = dataclasses.replace(spec, runs=str(self.folder))
        run = RunDir(self.folder / spec.run_id)
        code = Snapshot(self.folder / ".code" / "digest", "digest", "")
        run.create(spec, planning.make(spec, recipe), lambda: code)
        return run

    def start(self, run: RunDir, cause: str = "submitted", world_size: int = 1, **fields: object) -> None:
        """Its next generation."""
        pen = Ledger(run.path, run.generation() + 1, "launcher")
        pen.write("start", cause=cause, pid=os.getpid(), world_size=world_size, **fields)

    def submit(self, run: RunDir, job: str, folder: Path | str = "/nowhere") -> None:
        """Its next generation is asked for."""
        pen = Ledger(run.path, run.generation() + 1, "submit")
        pen.write("submitted", job=job, token="token", folder=str(folder))

    def say(self, run: RunDir, event: str, **fields: object) -> None:
        """An event of the generation that started last."""
        Ledger(run.path, run.generation(), "rank0").write(event, **fields)

    def progress(self, run: RunDir, step: int, **fields: object) -> None:
        write_json(run.path / "progress.json", {"stage": "training", "step": step, "steps": 100, **fields})

    def save(self, run: RunDir, step: int) -> Path:
        """A committed checkpoint without content."""
        path = run.path / "checkpoints" / f"step_{step:08d}"
        path.mkdir()
        write_json(path / "manifest.json", {"step": step, "steps": 100, "digest": "", "files": {}})
        self.say(run, "checkpoint", step=step, path=path.name)
        return path

    def end(self, run: RunDir, state: str = "done", message: str = "") -> RunDir:
        Ledger(run.path, run.generation(), "launcher").write("end", state=state, cause=state, message=message)
        return run


@pytest.fixture(scope="session")
def ledgers_in() -> type[Ledgers]:
    """`ledgers_in(folder)`."""
    return Ledgers


@pytest.fixture
def ledgers(tmp_path) -> Ledgers:
    return Ledgers(tmp_path / "runs")


@pytest.fixture(scope="session")
def _made_once(tmp_path_factory) -> RunDir:
    return Ledgers(tmp_path_factory.mktemp("made")).create("method=rotnet", "recipe=tiny")


@pytest.fixture
def fresh(ledgers, _made_once) -> RunDir:
    """A run of `ledgers` that was made and never started, copied: composing one takes a tenth of a second."""
    return RunDir(shutil.copytree(_made_once.path, ledgers.folder / _made_once.path.name, symlinks=True))


@pytest.fixture
def slurm_said(monkeypatch):
    """A Slurm that says it again; `says`, `cluster` and `commands` of recorded.py's Replay."""
    return recorded.replay(monkeypatch)
