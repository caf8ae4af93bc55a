"""A spec is an identity: submitted again it joins its run, and a run has one writer."""

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.fault


@pytest.fixture
def finished(undisturbed, tmp_path) -> Path:
    """A finished run of which a launch may become the writer."""
    run = undisturbed()
    return Path(shutil.copytree(run.parent, tmp_path / "runs", symlinks=True)) / run.name


def written(run: Path) -> dict[Path, bytes]:
    """What starts and ranks say: a start is an event, and every rank has a log."""
    return {path: path.read_bytes() for folder in ("events", "logs") for path in (run / folder).iterdir()}


def test_a_finished_run_answers_and_starts_no_rank(sslrun, finished, journey):
    run = finished
    before, said = sslrun.show(run), written(run)
    answer = sslrun(*journey, f"runs={run.parent}", "--json").json
    assert written(run) == said
    assert answer == {"id": run.name, "path": str(run), "state": "done", "job": None, "joined": True}
    assert sslrun.show(run) == before


def test_operational_differences_are_said_and_not_taken(sslrun, finished, journey):
    run = finished
    answer = sslrun(*journey, f"runs={run.parent}", "method.keep_checkpoints=7", "method.workers=1", "--json")
    assert answer.json["joined"] is True
    assert "kept as first submitted: method.keep_checkpoints: 2 -> 7" in answer.err
    assert "kept as first submitted: method.workers: 0 -> 1" in answer.err
    assert json.loads((run / "spec.json").read_text())["method"]["keep_checkpoints"] == 2


def test_while_it_runs_a_launch_joins_and_a_resume_is_refused(sslrun, one_line, watched, endless):
    launcher = sslrun.start(*endless, f"runs={watched.runs}")
    watched.reach(1, launcher)
    joined = sslrun(*endless, f"runs={watched.runs}", "--json")
    assert joined.json == {
        "id": watched.path.name, "path": str(watched.path), "state": "running", "job": None, "joined": True,
    }  # fmt: skip
    assert f"process {launcher.pid}" in joined.err
    line = one_line(sslrun("resume", watched.path, code=2), inside=True)
    assert f"RUN={watched.path.name}" in line
    assert f"process {launcher.pid}" in line
    launcher.kill()
    assert watched.gone()


def test_where_it_runs_is_no_part_of_the_identity(sslrun):
    def identity(*overrides: str) -> str:
        return sslrun("plan", "method=deepercluster", "data.path=/images", *overrides, "--json").json["run"]

    same = identity("nodes=8")
    assert identity("nodes=16") == same
    assert identity("nodes=8", "tasks_per_node=4") == same
    assert identity("nodes=8", "cluster.partition=spot", "method.workers=3", "method.log_every=1") == same
    others = [("method.lr=0.2",), ("seed=1",), ("method.clusters=8000",), ("data.path=/other",), ("method.epochs=3",)]
    assert len({same, *(identity("nodes=8", *other) for other in others)}) == 1 + len(others)


def test_an_edited_spec_is_refused(sslrun, one_line, copied):
    spec = Path(copied / "spec.json")
    spec.write_text(spec.read_text().replace('"lr": 0.05', '"lr": 0.5'))
    for verb in ("resume", "show"):
        line = one_line(sslrun(verb, copied, code=2))
        assert all(part in line for part in ("spec.json", "it was edited", "start a new run"))
    listed = sslrun("status", f"runs={copied.parent}", "--json").json
    assert [row["state"] for row in listed] == ["failed"]  # it must not hide the other runs of the folder
