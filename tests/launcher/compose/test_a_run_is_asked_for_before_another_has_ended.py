"""What a run takes from another is known before that one has ended: its identity, and its end or a step."""

import dataclasses
import fcntl
import json
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from launcher.compose import clustering, evaluation, points, words
from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.snapshot import Snapshot
from launcher.spec import stored
from launcher.spec.runspec import FromRun, InitFrom

SOURCE = ("method=rotnet", "recipe=tiny")
PUPIL = ("method=deepercluster", "recipe=tiny")


def save(ledgers, run, step, digest="a digest"):
    path = ledgers.save(run, step)
    write_json(path / "manifest.json", {"step": step, "steps": 18, "digest": f"{digest} of {step}", "files": {}})
    return path


@pytest.fixture
def source(ledgers):
    """A run that trains, with checkpoints of steps 9 and 12."""
    run = ledgers.create(*SOURCE)
    ledgers.start(run)
    for step in (9, 12):
        save(ledgers, run, step)
    return run


def end(ledgers, run):
    save(ledgers, run, 18)
    return ledgers.end(run)


def pupil(run, name=None, *given, method=PUPIL):
    return resolve([*method, f"init_from={name or run.id}", *given, f"runs={run.runs}"])[0]


def made(spec):
    run = RunDir(f"{spec.runs}/{spec.run_id}")
    run.create(spec, planning.make(spec, resolve(PUPIL)[1]), lambda: Snapshot(run.runs / ".code" / "digest", "d", ""))
    return run


def test_the_identity_is_the_same_before_and_after_the_end(ledgers, source):
    before, at_12 = pupil(source), pupil(source, f"{source.id}@12")
    end(ledgers, source)
    after = pupil(source)
    assert before.identity == after.identity and before.to_json() == after.to_json()
    assert after.init_from == FromRun(str(source.path), source.spec().identity, None)
    assert pupil(source, f"{source.id}@12").identity == at_12.identity != after.identity
    # The step was named: that it is the last one makes another run all the same.
    assert pupil(source, f"{source.id}@18").identity not in (after.identity, at_12.identity)


def test_the_newest_is_the_step_that_it_is_now(ledgers, source):
    assert pupil(source, f"{source.path}@newest").init_from.step == 12
    assert {pupil(source, f"{source.id[:10]}@{step}").init_from.step for step in ("newest", "12", "012")} == {12}
    end(ledgers, source)
    assert pupil(source, f"{source.id}@newest").init_from.step == 18


def test_another_source_is_another_run_and_another_folder_is_not(ledgers, source, ledgers_in, tmp_path):
    other = ledgers.create(*SOURCE, "seed=1")
    elsewhere = ledgers_in(tmp_path / "elsewhere").create(*SOURCE)
    assert pupil(other).identity != pupil(source).identity == pupil(elsewhere).identity


def test_what_was_stored_comes_back_and_older_readers_are_told(source):
    for name in (source.id, f"{source.id}@9"):
        spec = pupil(source, name)
        written = json.loads(json.dumps(spec.to_json()))
        assert stored.read(written).to_json() == spec.to_json() and written["format"] == stored.FORMAT
    alone = resolve(PUPIL)[0].to_json()
    assert alone["format"] == 1 and alone["init_from"] is None


def test_the_line_to_type_says_it_again(source):
    for name in (source.id, f"{source.id}@9", f"{source.id}@newest"):
        spec = pupil(source, name)
        _, *typed = shlex.split(words.command(spec, {}))
        assert resolve(typed)[0].to_json() == spec.to_json()


def test_a_folder_that_is_called_so_is_a_run_itself(source):
    odd = source.runs / "odd name@12"
    source.path.rename(odd)
    spec = pupil(source, f"'{odd}'")
    assert (spec.init_from.path, spec.init_from.step) == (str(odd), None)
    assert pupil(source, f"'{odd}@9'").init_from.step == 9
    _, *typed = shlex.split(words.command(spec, {}))
    assert resolve(typed)[0].to_json() == spec.to_json()


def test_every_point_of_a_sweep_waits(source):
    given = [*PUPIL, f"init_from={source.id},{source.id}@9", "seed=1,2", f"runs={source.runs}"]
    found = [point.spec.init_from.step for point in points.expand(given)]
    assert found == [None, None, 9, 9]


REFUSED = {
    "{id}@13": ("has no checkpoint of that step", "there are: 9, 12"),
    "{id}@end": ("that is no step", "give a number, newest, or none for its end"),
    "{id}@-3": ("that is no step", "give a number"),
    "{id}@": ("no step stands behind the @", "@newest, or rotnet-tiny-"),
    "nothing@9": ("there is no such run", "runs there: "),
    "{kmeans}": ("it trains nothing", "give a run that does"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_source_is_refused_in_one_line(ledgers, source, name):
    end(ledgers, source)
    spec = clustering.want([f"features={source.id}", "k=3", f"runs={source.runs}"])
    asked = name.format(id=source.id, kmeans=made_as(spec).id)
    with pytest.raises(InputError) as error:
        pupil(source, asked)
    line = str(error.value)
    assert line.startswith(f"init_from={asked}: ") or "nothing" in name, line
    assert all(part in line for part in REFUSED[name]) and "\n" not in line


def test_one_that_has_no_checkpoint_yet_says_what_can_be_done(ledgers):
    run = ledgers.create(*SOURCE)
    ledgers.start(run)
    lock = run.lock()
    for step in ("newest", "99"):
        said = (
            f"init_from={run.id}@{step}: {run.id} has no checkpoint yet; "
            "wait, or give no step: then it is what that run is at its end"
        )
        with pytest.raises(InputError, match=f"^{said}$"):
            pupil(run, f"{run.id}@{step}")
    os.close(lock)
    ledgers.end(run, "stopped")
    with pytest.raises(InputError, match=rf"no checkpoint yet; `sslrun resume {run.path}` first$"):
        pupil(run, f"{run.id}@newest")


def test_one_that_is_done_and_has_no_checkpoint_is_not_waited_for(ledgers):
    run = ledgers.create(*SOURCE)
    ledgers.start(run)
    ledgers.end(run)
    said = (
        f"init_from={run.id}@newest: {run.id} is done, and its checkpoints are gone; put them back, or give another run"
    )
    with pytest.raises(InputError, match=f"^{said}$"):
        pupil(run, f"{run.id}@newest")
    with pytest.raises(InputError, match=rf"^features={run.id}@: no step stands behind the @"):
        clustering.want([f"features={run.id}@", "k=3", f"runs={run.runs}"])


def made_as(spec):
    from launcher.plan import kinds

    run = RunDir(f"{spec.runs}/{spec.run_id}")
    run.create(spec, kinds.make(spec), lambda: Snapshot(run.runs / ".code" / "digest", "digest", ""))
    return run


def test_a_clustering_waits_as_well(ledgers, source):
    def asked(name):
        return clustering.want([f"features={name}", "k=3", f"runs={source.runs}"])

    before, at_9 = asked(source.id), asked(f"{source.id}@9")
    assert (before.init_from.step, at_9.init_from.step, before.method.features) == (None, 9, str(source.path))
    end(ledgers, source)
    assert asked(source.id).identity == before.identity != at_9.identity
    with pytest.raises(InputError, match=rf"^features={source.path}@13: .*no checkpoint of that step"):
        asked(f"{source.id}@13")


# -- runs from before ------------------------------------------------------------------------------------------------


def made_before(run, step, *given):
    """A run that was composed when the content of a checkpoint was what counted."""
    path = run.path / "checkpoints" / f"step_{step:08d}"
    alone = resolve([*PUPIL, *given, f"runs={run.runs}"])[0]
    return made(dataclasses.replace(alone, init_from=InitFrom(str(path), f"a digest of {step}")))


def test_the_line_of_an_old_run_joins_it(ledgers, source):
    end(ledgers, source)
    old = made_before(source, 18)
    assert old.spec().to_json()["format"] == 1
    for name in (source.id, f"{source.id}@18", f"{source.id}@newest"):
        assert pupil(source, name).to_json() == old.spec().to_json()
    assert isinstance(pupil(source, None, "seed=1").init_from, FromRun)


def test_while_the_source_trains_an_old_run_is_what_its_step_names(source):
    old = made_before(source, 12)
    assert pupil(source).to_json() == old.spec().to_json()  # nobody trains on
    lock = source.lock()
    assert pupil(source).run_id != old.id
    os.close(lock)
    for name in (f"{source.id}@12", f"{source.id}@newest"):
        assert pupil(source, name).to_json() == old.spec().to_json()


def test_the_line_of_an_old_run_is_told_so_that_it_joins_it(ledgers, source):
    end(ledgers, source)
    old = made_before(source, 12)
    line = words.command(old.spec(), {})
    assert f"init_from={source.path}@12" in line
    _, *typed = shlex.split(line)
    assert resolve(typed)[0].to_json() == old.spec().to_json()


def test_an_old_run_is_trained_longer(ledgers, source):
    end(ledgers, source)
    old = made_before(source, 18)
    ledgers.start(old)
    save(ledgers, old, 18)
    ledgers.end(old)
    longer = pupil(source, None, "method.epochs=9", f"continue_from={old.id}")
    assert longer.continue_from.run == old.id and longer.init_from.step is None


# -- evaluations -----------------------------------------------------------------------------------------------------


def want(run, *given):
    return evaluation.want(run, ["protocol=knn", *given])


def kept(found):
    return sorted(path.name for path in found.path.glob("pinned/run/*"))


def test_an_evaluation_is_the_same_before_and_after_the_end(ledgers, source):
    early = evaluation.prepare(source, want(source))
    assert early[1] is False and evaluation.asked_of(early[0])["after"] is True
    assert evaluation.prepare(source, want(source))[1] is True
    end(ledgers, source)
    again, joined = evaluation.prepare(source, want(source))
    assert joined and again.path == early[0].path


def test_those_who_ask_at_the_same_time_have_one_evaluation(ledgers, source, monkeypatch):
    create, wanted = evaluation._create, want(source)
    monkeypatch.setattr(evaluation, "_create", lambda *asked: time.sleep(0.3) or create(*asked))
    with ThreadPoolExecutor(3) as askers:
        found = list(askers.map(lambda _: evaluation.prepare(source, wanted), range(3)))
    assert len({each.path for each, _ in found}) == 1 and sorted(joined for _, joined in found) == [False, True, True]
    other = want(source, "step=9")
    monkeypatch.setattr(evaluation, "TURN", 0.1)
    with open(source.path / "evals" / "lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert evaluation.prepare(source, other)[1] is False, "a lock that is never let go stops nobody"


def test_of_a_run_that_trains_the_named_checkpoint_is_kept(ledgers, source):
    newest, _ = evaluation.prepare(source, want(source, "step=newest"))
    named, joined = evaluation.prepare(source, want(source, "step=12"))
    assert joined and named.path == newest.path and kept(named) == ["step_00000012"]
    assert evaluation.asked_of(named)["step"] == 12
    end(ledgers, source)
    late, joined = evaluation.prepare(source, want(source, "step=9"))
    assert not joined and kept(late) == []
    # Its end is another checkpoint.
    assert evaluation.prepare(source, want(source))[1] is False
