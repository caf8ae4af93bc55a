"""`continue_from`: a finished run is trained for more epochs, as a run of its own; what else cannot be is refused."""

import os
import shlex

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from launcher.run.folder import RunDir
from launcher.run.snapshot import Snapshot
from launcher.spec.stored import read

MADE = ("method=rotnet", "recipe=tiny", "method.lr=0.3")


@pytest.fixture
def done(ledgers):
    """A run of two epochs of 9 steps that is done."""
    run = ledgers.create(*MADE)
    ledgers.start(run)
    ledgers.save(run, 18)
    return ledgers.end(run)


def spec_of(run, *words):
    return resolve([*MADE, *words, f"runs={run.runs}"])


def refused(run, *words):
    with pytest.raises(InputError) as refusal:
        spec_of(run, *words)
    assert refusal.value.exit_code == 2
    return str(refusal.value)


def test_it_is_a_run_of_its_own_that_knows_where_it_begins(done):
    slow = "method.epochs=4", "cluster.efficiency=0.000001"
    (spec, recipe), (alone, _) = spec_of(done, *slow, f"continue_from={done.id}"), spec_of(done, *slow)
    assert len({spec.identity, alone.identity, done.spec().identity}) == 3
    begun = spec.continue_from
    assert (begun.run, begun.step, begun.epochs) == (done.id, 18, 2)
    assert begun.path == str(done.path / "checkpoints" / "step_00000018")
    assert read(spec.to_json()).to_json() == spec.to_json()
    plan, whole = planning.make(spec, recipe), planning.make(alone, recipe)
    assert plan.steps == whole.steps == 36 and plan.hours == pytest.approx(whole.hours / 2, rel=1e-3)
    assert plan.why["steps"].startswith(f"9 x 4 epochs; the first 18 are those of {done.id}")
    assert plan.why["steps"].endswith("; the cosine is stretched over all 36")


def test_its_digest_is_part_of_the_identity(done, ledgers):
    words = "method.epochs=4", f"continue_from={done.path}"
    before = spec_of(done, *words)[0].identity
    manifest = done.path / "checkpoints" / "step_00000018" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"digest": ""', '"digest": "another"'))
    assert spec_of(done, *words)[0].identity != before
    assert spec_of(done, *words, "tasks_per_node=2", "method.workers=3", "method.log_every=7")[0].identity != before


def test_one_that_was_trained_longer_is_trained_longer_still(done, ledgers):
    spec, recipe = spec_of(done, "method.epochs=4", f"continue_from={done.id}")
    run = RunDir(ledgers.folder / spec.run_id)
    run.create(spec, planning.make(spec, recipe), lambda: Snapshot(ledgers.folder / ".code" / "digest", "digest", ""))
    assert run.summary()["step"] == 18 and run.summary()["continues"] == {"run": done.id, "step": 18, "epochs": 2}
    ledgers.start(run)
    ledgers.save(run, 36)
    ledgers.end(run)
    longer, _ = spec_of(run, "method.epochs=6", f"continue_from={run.id}")
    assert (longer.continue_from.run, longer.continue_from.step, longer.continue_from.epochs) == (run.id, 36, 4)


REFUSED = {
    ("method.epochs=2",): ("method.epochs=2", "was trained for 2 already; give more than 2"),
    ("method.epochs=1",): ("method.epochs=1", "give more than 2"),
    ("method.epochs=4", "method.lr=0.2"): ("method.lr=0.2", "was trained with 0.3, and only method.epochs may be"),
    ("method.epochs=4", "seed=3"): ("seed=3", "was trained with 0"),
    ("method.epochs=4", "data.images=400"): ("data.images=400", "was trained with 304"),
    ("method.epochs=4", "method.schedule=constant"): ("method.schedule=constant", "was trained with cosine"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_only_the_epochs_may_be_others(done, words):
    line = refused(done, *words, f"continue_from={done.id}")
    assert all(part in line for part in REFUSED[words]), line


def test_another_method_is_refused_by_its_name(done):
    with pytest.raises(InputError, match=r"^method\.name=swav: rotnet-.* was trained with rotnet, and only method\.ep"):
        resolve(["method=swav", "recipe=tiny", "method.epochs=9", f"continue_from={done.id}", f"runs={done.runs}"])


def test_the_fix_is_the_line_to_type(done):
    line = refused(done, "method.epochs=4", "method.lr=0.2", f"continue_from={done.id}")
    _, *typed = shlex.split(line.partition("type `")[2].rstrip("`"))
    spec, _ = resolve(typed)
    assert spec.continue_from.run == done.id and (spec.method.epochs, spec.method.lr) == (4, 0.3)


def test_a_run_that_is_not_finished_is_refused(ledgers):
    run = ledgers.create(*MADE)
    ledgers.start(run)
    ledgers.save(run, 9)
    line = refused(run, "method.epochs=4", f"continue_from={run.id}")
    assert line.startswith(f"continue_from={run.id}: it is ") and f"`sslrun resume {run.path}` first" in line
    lock = run.lock()
    line = refused(run, "method.epochs=4", f"continue_from={run.id}")
    assert line.endswith("it is running, and only a finished run is trained longer; wait until it is done")
    os.close(lock)
    never = ledgers.create(*MADE, "seed=9")
    assert f"`sslrun resume {never.path}` first" in refused(never, "method.epochs=4", f"continue_from={never.id}")
    ledgers.end(run, "failed")
    assert f"continue_from={run.id}: it is failed" in refused(run, "method.epochs=4", f"continue_from={run.id}")


def test_what_is_no_run_is_refused(done):
    assert refused(done, "method.epochs=4", "continue_from=nothing").startswith(
        "continue_from=nothing: there is no such"
    )
