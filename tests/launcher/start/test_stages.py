"""Who is waited for, by whom, and who is not; and what a start takes of those that it waited for."""

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.compose import clustering, sources
from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from launcher.run import pins
from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.start import stages
from methods.backbones.export import export

CLUSTER = "cluster=generic"
QUEUED = {"7": SimpleNamespace(state="RUNNING", reason="", suspended=None)}
THEIRS = 65534


def save(ledgers, run, step):
    path = ledgers.save(run, step)
    write_json(path / "manifest.json", {"step": step, "steps": 18, "digest": f"digest {step}", "files": {}})
    return path


def pupil(source, *given, runs=None):
    """The spec of a run that waits for the end of `source`."""
    words = ["method=deepercluster", "recipe=tiny", f"init_from={source.path}", f"runs={runs or source.runs}"]
    return resolve([*words, *(given or (CLUSTER,))])[0]


def made(spec):
    run = RunDir(Path(spec.runs) / spec.run_id)
    recipe = resolve(["method=deepercluster", "recipe=tiny"])[1]
    code = Snapshot(Path(spec.runs) / ".code" / "digest", "digest", "")
    run.create(spec, planning.make(spec, recipe), lambda: code)
    return run


def behind(spec, jobs=QUEUED):
    return stages.jobs_before(spec, stages.of_spec(spec), jobs)


@pytest.fixture
def source(ledgers):
    """A run on a cluster, as job 7."""
    run = ledgers.create("method=rotnet", "recipe=tiny", CLUSTER)
    ledgers.submit(run, "7")
    return run


def started(ledgers, run):
    ledgers.start(run, job="7")
    save(ledgers, run, 9)
    return run


def test_a_run_stands_behind_the_job_of_one_that_is_in_the_queue_or_at_work(ledgers, source):
    spec = pupil(source)
    assert behind(spec) == ["7"] == behind(spec, None)
    assert behind(pupil(started(ledgers, source))) == ["7"]
    # Behind one that waits itself.
    chained = made(spec)
    ledgers.submit(chained, "8")
    waiting = {**QUEUED, "8": SimpleNamespace(state="PENDING", reason="Dependency", suspended=None)}
    assert behind(pupil(chained, "seed=1", CLUSTER), waiting) == ["8"]
    ledgers.end(source)
    assert behind(spec) == []


def test_of_two_sources_each_is_waited_for_and_one_named_twice_once(ledgers, source):
    other = ledgers.create("method=rotnet", "recipe=tiny", CLUSTER, "seed=1")
    ledgers.submit(other, "8")
    spec, jobs = pupil(source), {**QUEUED, "8": QUEUED["7"]}
    named = [stages.Awaited("init_from", source), stages.Awaited("method.teacher", other), stages.Awaited("x", source)]
    assert stages.jobs_before(spec, named, jobs) == ["7", "8"]


def refused(spec, jobs=QUEUED):
    with pytest.raises(InputError) as refusal:
        behind(spec, jobs)
    line = str(refusal.value)
    assert refusal.value.exit_code == 2 and "\n" not in line
    return line


@pytest.mark.parametrize("state", ["failed", "stopped", "cancelled"])
def test_one_that_nobody_runs_is_refused(ledgers, source, state):
    spec, near = pupil(source), source.id  # for `runs=`, which the line has; `resume` finds it by its path
    ledgers.end(started(ledgers, source), state)
    fix = f"`sslrun resume {source.path}` first, or init_from={near}@newest"
    assert refused(spec) == f"init_from={near}: it is {state}, and nobody runs it; {fix}"


def test_one_that_was_never_submitted_or_whose_job_is_gone_is_refused(ledgers, source):
    spec = pupil(source)
    assert "it is failed, and nobody runs it; `sslrun resume" in refused(spec, {})
    assert "@newest" not in refused(spec, {})  # there is none
    never = ledgers.create("method=rotnet", "recipe=tiny", CLUSTER, "seed=1")
    assert "it is not submitted, and nobody runs it" in refused(pupil(never))


def test_what_to_type_finds_the_run_from_another_folder(ledgers, ledgers_in, tmp_path):
    run = ledgers_in(tmp_path / "it's there").create("method=rotnet", "recipe=tiny", CLUSTER)
    escaped = str(run.path).replace("'", "\\'")
    words = ["method=deepercluster", "recipe=tiny", f"init_from='{escaped}'", f"runs={tmp_path}/runs", CLUSTER]
    line = refused(resolve(words)[0])
    assert re.search(r"`sslrun resume '.*it'\"'\"'s there/rotnet-tiny-\w+'` first$", line), line


def test_what_runs_outside_slurm_is_waited_for_by_nobody(ledgers):
    run = ledgers.create("method=rotnet", "recipe=tiny")
    ledgers.start(run)
    save(ledgers, run, 9)
    lock = run.lock()
    line = refused(pupil(run))
    assert (
        "it is running, and no job can wait for what runs outside Slurm; wait until it is done, or init_from=" in line
    )
    os.close(lock)
    assert "it is failed, and nobody runs it" in refused(pupil(run))


def test_a_run_here_waits_for_nobody(ledgers, source):
    line = refused(pupil(started(ledgers, source), "cluster=local"))
    assert (
        "it is running, and only a job on a cluster waits for another run; wait until it is done, or init_from=" in line
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_one_of_somebody_else_is_refused_until_it_is_done(ledgers, source):
    spec = pupil(started(ledgers, source))
    os.chown(source.path, THEIRS, THEIRS)
    assert "it is running, and somebody else's; wait until it is done, or init_from=" in refused(spec, None)
    ledgers.end(source)
    assert behind(spec, None) == []


def test_a_sweep_asks_the_queue_once_and_each_source_once(ledgers, source, monkeypatch):
    asked, looked = [], []
    monkeypatch.setattr(stages.queue, "of_runs", lambda runs: (asked.append(list(runs)) or QUEUED, ""))
    monkeypatch.setattr(stages, "jobs_before", lambda *given: looked.append(given))
    stages.check([pupil(source, f"seed={seed}", CLUSTER) for seed in range(5)])
    assert [[run.path for run in runs] for runs in asked] == [[source.path]] and len(looked) == 1


# -- what a start takes ----------------------------------------------------------------------------------------------


def pen(run):
    return Ledger(run.path, run.generation() + 1, "batch")


def test_what_is_taken_is_the_last_checkpoint_and_the_first_start_writes_it_down(ledgers, source):
    run = made(pupil(source))
    spec, pinned = run.spec(), run.path / "pinned" / "init_from" / "step_00000018"
    assert [each.run.path for each in stages.unfinished(stages.of_run(run))] == [source.path]
    with pytest.raises(InputError, match=r"^init_from=.*that run is not done.*`sslrun resume .*` first"):
        stages.pin(run, spec, pen(run))
    ledgers.say(started(ledgers, source), "end", state="failed", cause="input", message="method.lr=-1: out of range")
    with pytest.raises(InputError, match=r"start a new run with another method\.lr"):
        stages.pin(run, spec, pen(run))
    ledgers.start(source, job="7")
    ledgers.end(source)
    save(ledgers, source, 18)
    assert stages.unfinished(stages.of_run(run)) == []
    stages.pin(run, spec, pen(run))
    told = run.history().all("pinned")
    said = {"field": "init_from", "path": f"{source.path}/checkpoints/step_00000018", "step": 18, "digest": "digest 18"}
    assert [{key: event[key] for key in said} for event in told] == [said]
    assert pinned.is_dir() and pins.taken(run.path, "init_from", spec.init_from).path == str(pinned)
    # From now on the source may be gone.
    source.path.rename(source.path.with_name("away"))
    assert stages.of_run(run) == []
    stages.pin(run, spec, pen(run))
    assert len(run.history().all("pinned")) == 1


def test_what_cannot_be_written_down_was_not_taken(ledgers, source, monkeypatch):
    run = made(pupil(source))
    ledgers.end(started(ledgers, source))
    silent = pen(run)
    monkeypatch.setattr(silent, "settle", lambda: "No space left on device")
    with pytest.raises(OSError, match="No space left on device"):
        stages.pin(run, run.spec(), silent)
    assert [each.run.path for each in stages.of_run(run)] == [source.path]


def test_a_start_that_was_killed_between_the_files_and_the_word_takes_them_again(ledgers, source):
    run = made(pupil(source))
    ledgers.end(started(ledgers, source))
    half = run.path / "pinned" / "init_from" / "step_00000004"
    half.mkdir(parents=True)
    stages.pin(run, run.spec(), pen(run))
    assert not half.exists() and run.history().last("pinned")["step"] == 9


def test_what_is_done_when_a_run_is_made_is_taken_at_once(ledgers, source):
    ledgers.end(started(ledgers, source))
    run = made(pupil(source))
    assert run.history().last("pinned")["step"] == 9 and stages.of_run(run) == []
    named = made(resolve(["method=deepercluster", "recipe=tiny", f"init_from={source.path}@9", f"runs={run.runs}"])[0])
    assert named.id != run.id and named.history().last("pinned")["digest"] == "digest 9"


def test_what_was_the_newest_a_moment_ago_is_asked_for_again_by_the_field_that_was_typed(ledgers, source):
    started(ledgers, source)
    trains = resolve(["method=deepercluster", "recipe=tiny", f"init_from={source.id}@newest", f"runs={source.runs}"])[0]
    clusters = clustering.want([f"features={source.id}@newest", "k=3", f"runs={source.runs}"])
    (source.path / "checkpoints" / "step_00000009").rename(source.path / "checkpoints" / "step_00000012")
    for spec, field in ((trains, "init_from"), (clusters, "features")):
        with pytest.raises(InputError) as refusal:
            pins.lay(source.runs / "new", spec)
        path = source.path / "checkpoints" / "step_00000009"
        fix = "type it again, or name another step"
        assert str(refusal.value) == f"{field}={path}: there is no such checkpoint any more; {fix}"


def test_one_that_is_there_can_ask_for_no_other_checkpoint(ledgers, source):
    run = made(pupil(source))
    ledgers.end(started(ledgers, source), "failed")
    with pytest.raises(InputError, match=rf"nobody runs it; `sslrun resume {source.path}` first$"):
        stages.jobs_before(run.spec(), stages.of_run(run), QUEUED, made=True)


@pytest.mark.parametrize("what", ["gone", "another", "no last checkpoint", "damaged"])
def test_what_is_not_there_any_more_is_one_line_and_nothing_is_taken(ledgers, source, what):
    run = made(pupil(source))
    ledgers.end(started(ledgers, source))
    if what == "gone":
        source.path.rename(source.path.with_name("away"))
        said = "that run is gone; restore it"
    elif what == "another":
        spec = source.path / "spec.json"
        spec.write_text(spec.read_text().replace(source.spec().identity, "0" * 64))
        said = "that folder holds another run now"
    elif what == "no last checkpoint":
        ledgers.say(source, "finished", step=18, seconds={})
        said = "step_00000018: there is no such checkpoint any more"
    else:
        (source.path / "checkpoints" / "step_00000009" / "manifest.json").write_text("{}")
        said = "cannot be read"
    with pytest.raises(InputError) as refusal:
        stages.pin(run, run.spec(), pen(run))
    assert str(refusal.value).startswith("init_from=") and said in str(refusal.value)
    assert not (run.path / "pinned").exists() and not run.history().all("pinned")
    # Such a run is not waited for: its start says what is wrong.
    assert stages.unfinished(stages.of_run(run)) == []


def test_an_evaluation_follows_its_run_and_takes_nothing(ledgers, source):
    folder = source.path / "evals" / "knn-1"
    folder.mkdir(parents=True)
    write_json(folder / "eval.json", {"protocol": "knn", "settings": {}, "step": None, "digest": None, "after": True})
    found = RunDir(folder)
    assert [(each.field, each.run.path) for each in stages.of_run(found)] == [("RUN", source.path)]
    stages.pin(found, source.spec(), pen(source))
    ledgers.end(started(ledgers, source))
    assert stages.unfinished(stages.of_run(found)) == []
    write_json(folder / "eval.json", {"protocol": "knn", "settings": {}, "step": 9, "digest": "9", "after": False})
    assert stages.of_run(found) == []


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("method.classes=3: the data have 7; give 7", "start a new run with another method.classes: "),
        ("data.path=/images: there is no such folder; give one", "`sslrun resume "),  # which may be put back
    ],
)
def test_of_one_that_ended_for_what_a_resume_keeps_a_new_run_is_advised(ledgers, source, said, fix):
    run = made(pupil(source))
    started(ledgers, source)
    shutil.rmtree(source.path / "checkpoints")
    Ledger(source.path, source.generation(), "launcher").write("end", state="failed", cause="input", message=said)
    refusals = [
        lambda: stages.jobs_before(run.spec(), stages.of_run(run), QUEUED, made=True),
        lambda: export(source, source.path / "file"),
        lambda: sources.at_step(source, "newest", "RUN", source.id),
        lambda: sources.pin_continue_from(str(source.path), source.runs, run.spec()),
    ]
    for refused in refusals:
        with pytest.raises(InputError, match=re.escape(f"; {fix}")):
            refused()
