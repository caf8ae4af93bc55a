"""The runs that a run waits for, in words: which they are, how they stand, and what to type where nobody runs them."""

from pathlib import Path

import pytest

from launcher.compose.training import resolve
from launcher.plan import plan as planning
from launcher.report import behind, listing
from launcher.report.index import RunIndex
from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.slurm import queue
from launcher.slurm.commands import SQUEUE, SlurmJob

CLUSTER = "cluster=generic"
NEVER, HELD = "DependencyNeverSatisfied", "job requeued in held state"


def job(id, state="PENDING", reason="Dependency"):
    return SlurmJob(**{**dict.fromkeys(SQUEUE, ""), "id": id, "raw_id": id, "state": state, "reason": reason})


@pytest.fixture
def source(ledgers):
    """A run on a cluster, as job 7, in a folder of runs."""
    return queued(ledgers, ledgers.create("method=rotnet", "recipe=tiny", CLUSTER), "7")


def queued(ledgers, run, job):
    ledgers.submit(run, job)
    return run


@pytest.fixture
def pupil(ledgers):
    """`pupil(source, "8", seed=1, runs=FOLDER)`: a run that waits for its end, as job 8."""

    def make(source, job, seed=0, runs=None):
        words = ["method=deepercluster", "recipe=tiny", f"init_from={source.path}", f"seed={seed}", CLUSTER]
        spec, recipe = resolve([*words, f"runs={runs or source.runs}"])
        run = RunDir(Path(spec.runs) / spec.run_id)
        code = Snapshot(Path(spec.runs) / ".code" / "digest", "digest", "")
        run.create(spec, planning.make(spec, recipe), lambda: code)
        return queued(ledgers, run, job)

    return make


def said(run, jobs, where=" runs=HERE"):
    return behind.in_words(behind.standing([run], jobs)[run.path], run.runs, where)


def test_one_of_another_folder_is_named_by_its_path_and_stands_as_the_queue_says(ledgers, source, pupil, tmp_path):
    run = pupil(source, "8", runs=tmp_path / "others")
    jobs = {"7": job("7"), "8": job("8")}
    assert said(run, jobs) == f"{source.path} (pending at step 0)"
    too = "starts what waits for it, too"
    assert said(run, {"8": jobs["8"]}) == f"{source.path} (failed at step 0): `sslrun resume {source.path}` {too}"
    near, fix = pupil(source, "9"), f"`sslrun resume {source.id} runs=HERE` {too}"
    assert said(near, {"9": job("9")}) == f"{source.id} (failed at step 0): {fix}"


def test_status_asks_the_queue_about_a_run_of_another_folder(source, pupil, tmp_path, monkeypatch):
    run = pupil(source, "8", runs=tmp_path / "others")
    monkeypatch.setattr(queue.commands, "jobs", lambda: {"8": job("8")})
    (row,), _ = RunIndex(run.runs).rows()
    assert row.facts["behind"] == [{"run": source.id, "path": str(source.path), "state": "failed", "step": 0}]


@pytest.mark.parametrize(("reason", "put_back"), [(NEVER, False), (HELD, True)])
def test_where_all_is_done_and_slurm_does_not_know_the_line_starts_it(ledgers, source, pupil, reason, put_back):
    run = pupil(source, "8")
    ledgers.start(source, job="7")
    ledgers.save(source, 18)
    ledgers.end(source)
    if put_back:
        assert said(run, {"8": job("8", reason=reason)}) == ""  # its user holds it
        Ledger(run.path, 1, "batch").write("waits", source=str(source.path), why="", job="8")
    for other in ("Resources", "Dependency"):
        assert said(run, {"8": job("8", reason=other)}) == ""
    assert said(run, None) == ""
    line = f"{source.id} (done at step 18): `sslrun resume {source.id} runs=HERE` starts what waits for it"
    assert said(run, {"8": job("8", reason=reason)}) == line


def test_those_behind_one_run_are_one_line(source, pupil, monkeypatch):
    runs = [pupil(source, str(8 + seed), seed) for seed in range(3)]
    monkeypatch.setattr(queue.commands, "jobs", lambda: {str(n): job(str(n)) for n in (8, 9, 10)})
    looked, standing = [], behind.stages.standing
    monkeypatch.setattr(behind.stages, "standing", lambda *given: looked.append(given) or standing(*given))
    rows, _ = RunIndex(source.runs).rows()
    (line,) = [line for line in str(listing.notes(rows, {})).splitlines() if "wait" in line]
    first = min(run.id for run in runs)
    fix = f"`sslrun resume {source.id}` starts what waits for it, too"
    assert line == f"{first} and 2 more wait for {source.id} (failed at step 0): {fix}"
    assert len(looked) == 1


def test_one_whose_folder_is_gone_is_named(source, pupil, monkeypatch):
    run = pupil(source, "8")
    source.path.rename(source.runs.parent / "away")
    monkeypatch.setattr(queue.commands, "jobs", lambda: {"8": job("8", reason=NEVER)})
    rows, _ = RunIndex(source.runs).rows()
    assert [row.facts["behind"] for row in rows] == [
        [{"run": source.id, "path": str(source.path), "state": "gone", "step": 0}]
    ]
    (line,) = [line for line in str(listing.notes(rows, {})).splitlines() if "wait" in line]
    fix = "put its folder back, or `sslrun cancel` what waits for it"
    assert line == f"{run.id} waits for {source.id} (gone): {fix}"


@pytest.mark.parametrize("remembered", [False, True])
def test_an_evaluation_that_waits_in_vain_is_told_of(ledgers, source, monkeypatch, remembered):
    folder = source.path / "evals" / "knn-1"
    (folder / "events").mkdir(parents=True)
    asked = {"protocol": "knn", "settings": {}, "step": None, "digest": None, "after": True}
    write_json(folder / "eval.json", asked)
    (folder / "spec.json").write_bytes((source.path / "spec.json").read_bytes())
    queued(ledgers, RunDir(folder), "8")
    jobs = {"7": job("7", state="RUNNING", reason="None"), "8": job("8", reason=NEVER)}
    monkeypatch.setattr(queue.commands, "jobs", lambda: jobs)
    ledgers.start(source, job="7")
    source_now = {"run": source.id, "path": str(source.path), "state": "running", "step": 0}
    (row,), _ = RunIndex(source.runs).rows()
    assert row.facts["awaited_by"] == [{"id": f"{source.id}/evals/knn-1", "behind": [source_now]}]
    assert "knn-1" not in str(listing.notes([row], {}))
    ledgers.end(source, "cancelled")
    del jobs["7"]
    for _ in range(1 + remembered):
        (row,), _ = RunIndex(source.runs).rows()
    fix = f"`sslrun resume {source.id}` starts what waits for it, too"
    line = f"{source.id}/evals/knn-1 waits for {source.id} (cancelled at step 0): {fix}"
    assert line in str(listing.notes([row], {})).splitlines()
    del jobs["8"]
    (row,), _ = RunIndex(source.runs).rows()
    assert row.facts["awaited_by"] == []
