"""What judges a run between its steps changes nothing of it, stops within a batch, and goes on to the same score."""

import contextlib
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from launcher.compose import evaluation
from launcher.compose.training import resolve
from launcher.plan import kinds
from launcher.run import manifest
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.spec import registry, stored
from methods import data
from methods.engine import loop
from methods.engine.evaluations import Evaluations, is_due
from methods.engine.job import Job
from methods.evals import alone, during
from methods.evals.linear import protocol as linear

ALONE = World(0, 1, torch.device("cpu"))
STEPS = 9  # of an epoch; there are two
LINEAR = ("linear.epochs=3", "linear.batch=32", "linear.rates=[1.0]", "linear.crop_scale=[0.5,1]")
NAME = "linear(epochs=3,batch=32,rates=[1.0],crop_scale=[0.5,1.0])"
ITS_STEPS = 3 * 4


def train(world: World, folder: str, planned: str, *, stop_at: tuple[int, int] | None = None) -> dict | None:
    """One start of a run, to its end; or told to stop in the n-th batch of the linear probe behind so many steps, and
    then None."""
    folder = Path(folder)
    spec, run = stored.read(json.loads(planned)), RunDir(folder / "run")
    if world.is_main and not run.path.exists():
        run.create(spec, kinds.make(spec), lambda: Snapshot(folder / "code", "digest", ""))
    world.barrier()
    ledger = Ledger(run.path, world.broadcast(run.generation() + 1), f"rank{world.rank}")
    if world.is_main:
        ledger.write("start", cause="submitted", world_size=world.size)
    world.barrier()
    images = data.build(spec.data, "train")
    layout = registry.method(spec.method.name).layout(spec.method, world.size)
    job = Job(run, spec, world, layout, ledger, StopFlag(), images, during.judged(spec, images))
    encoded, batches = linear._encoded, []

    def told(subject, batch):
        batches.append(subject.step)
        if stop_at and batches.count(stop_at[0]) == stop_at[1] and subject.step == stop_at[0] and world.is_main:
            job.stop.signal = signal.SIGTERM
        return encoded(subject, batch)

    linear._encoded = told
    try:
        return loop.train(job, registry.load_trainer(spec.method.name)(job), during.evaluate)["seconds"]
    except Stopped:
        assert stop_at and batches.count(stop_at[0]) - stop_at[1] <= 1  # a vote is counted a batch later
        return None
    finally:
        linear._encoded = encoded


STOPS = [(5, 6), (9, 3), (18, 4)]  # in the midst of an epoch, between two, and at the end


def undisturbed_and_stopped(world: World, folder: str, planned: str) -> list:
    """What the starts came to of a run that nobody stops, and of one that is stopped again and again."""
    return [
        [train(world, f"{folder}/{world.size}/{name}", planned, stop_at=stop) for stop in [*stops, None]]
        for name, stops in (("whole", []), ("cut", STOPS))
    ]


@pytest.fixture
def planned(tmp_path):
    """`planned(*words)`: a spec of two epochs of nine steps, as spec.json has it."""

    def resolved(*words: str, method: str = "rotnet") -> str:
        tiny = f"method={method}", "recipe=tiny", "method.epochs=2", "data.images=152"
        small = "method.global_batch=16", "method.checkpoint_every=1000"
        return json.dumps(
            resolve([*tiny, *small, *words, "method.workers=0", "nodes=1", f"runs={tmp_path}"])[0].to_json()
        )

    return resolved


def scores(run: RunDir) -> dict[tuple[str, int], dict]:
    return {(e["protocol"], e["step"]): e["scores"] for e in run.history().all("eval")}


def digest(run: RunDir) -> str:
    return manifest.read(run.checkpoints()[-1])["digest"]


@pytest.mark.parametrize("method", ["rotnet", "deepercluster"])
def test_a_run_ends_in_the_same_state_whatever_judges_it(planned, tmp_path, method):
    probes = "probes=[logistic,knn,linear]", *LINEAR, "linear.eval_every=0.4", "logistic.iterations=3"
    ways = {"never": ("probes=[]",), "usual": ("method.eval_every=1",), "often": (*probes, "logistic.eval_every=1")}
    found = {}
    for name, words in ways.items():
        train(ALONE, tmp_path / name, planned(*words, method=method))
        run = RunDir(tmp_path / name / "run")
        found[name] = digest(run), {key for key in scores(run) if key[0] != "clusters"}
        assert not (run.path / "features").exists()
    assert len({state for state, _ in found.values()}) == 1
    end = run.history().last("eval")["step"]
    assert {*found["never"][1]} <= {(method, end)}
    assert {("knn", end // 2), ("knn", end)} <= found["usual"][1]
    often = found["often"][1]
    assert {step for name, step in often if name == NAME} == {4, 7, 11, 14, 18}
    assert {step for name, step in often if name.startswith("logistic")} == {9, 18}


def test_a_stop_in_a_probe_saves_its_step_and_the_probe_goes_on_to_the_same_score(planned, tmp_path, ranks):
    wanted = planned("probes=[knn,linear]", *LINEAR, "linear.eval_every=0.5", "knn.eval_every=1")
    answers = ranks((1, 2), undisturbed_and_stopped, str(tmp_path), wanted)
    steps = {NAME: {5, 9, 14, 18}, "knn": {9, 18}}
    expected = {(name, step) for name, found in steps.items() for step in found}
    for size, ((_, starts), *_) in answers.items():
        whole, cut = (RunDir(tmp_path / str(size) / name / "run") for name in ("whole", "cut"))
        assert [seconds is None for seconds in starts] == [True, True, True, False]
        assert {key for key in scores(whole) if key[0] != "rotnet"} == expected
        assert scores(cut) == scores(whole) and digest(cut) == digest(whole)
        restored = [event["step"] for event in cut.history().all("restored")]
        assert restored == [step for step, _ in STOPS]  # what was judged was saved
        told = [(e["protocol"], e["step"]) for e in cut.history().all("eval")]
        assert len(told) == len(set(told))
        resumed = [e["resumed"]["linear"] for e in cut.history().all("work") if "linear" in e["resumed"]]
        assert len(resumed) == 3 and all(0 < step < ITS_STEPS for step in resumed)


def test_it_finds_what_an_evaluation_of_its_own_finds_at_that_step_and_books_its_time_so(planned, tmp_path):
    words = "probes=[linear,logistic]", "logistic.iterations=5", *LINEAR, "linear.eval_every=0.5"
    seconds = train(ALONE, tmp_path, planned(*words, "method.keep_checkpoints=9", "logistic.eval_every=0"))
    assert seconds["evaluation"] > 0 and not {"linear", "logistic"} & {*seconds}
    run = RunDir(tmp_path / "run")
    judged = scores(run)
    assert {step for name, step in judged if name.startswith("logistic")} == {18}
    for step in (5, 18):
        typed = ["protocol=linear", *LINEAR, f"step={step}"]
        asked, _ = evaluation.prepare(run, evaluation.want(run, typed))
        alone.evaluate(asked, ALONE, Ledger(asked.path, 1, "rank0"), StopFlag(), Heart(asked))
        assert asked.history().last("eval")["scores"] == judged[NAME, step]


def test_the_curves_of_a_run_have_its_steps_alone(planned, tmp_path):
    train(ALONE, tmp_path, planned("probes=[linear]", *LINEAR, "method.log_every=1"))
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert f"{NAME}/top1" in rows and "loss_of_best" not in rows


def test_features_in_cells_are_kept_as_work_of_the_step_that_is_judged(planned, tmp_path):
    words = "probes=[logistic]", "logistic.iterations=2", "logistic.pool=1", "logistic.eval_every=1"
    train(ALONE, tmp_path, planned(*words))
    run = RunDir(tmp_path / "run")
    assert {step for name, step in scores(run) if name.startswith("logistic")} == {9, 18}
    assert {event["step"] for event in run.history().all("work")} == {9, 18}


def test_k_nn_alone_saves_nothing_more_than_without(planned, tmp_path):
    train(ALONE, tmp_path, planned("method.eval_every=1"))
    history = RunDir(tmp_path / "run").history()
    assert [e["step"] for e in history.all("eval") if e["protocol"] == "knn"] == [9, 18]
    assert not history.all("work") and [e["step"] for e in history.all("checkpoint")] == [18]


def test_a_training_goes_on_without_the_score_of_a_probe_that_cannot_be_made(planned, tmp_path):
    words = "probes=[groups,linear,knn]", "groups.groups=1000", "linear.rates=[3e38]", "linear.epochs=2"
    train(ALONE, tmp_path, planned(*words))
    run = RunDir(tmp_path / "run")
    assert {name for name, _ in scores(run)} - {"rotnet"} == {"knn"}
    said = [line for line in run.progress()["notices"] if "is left out" in line]
    assert [line.partition(":")[0] for line in said] == [
        "groups is left out",
        "linear probe is left out",
    ]
    assert "groups.groups=1000: the images are" in said[0] and "at every rate" in said[1]


@pytest.mark.parametrize(
    ("every", "per_epoch", "expected"),
    [
        (0, 4, []),
        (1, 4, [4, 8, 12]),
        (2, 4, [8]),
        (0.5, 4, [2, 4, 6, 8, 10, 12]),
        (1.5, 3, [5, 9]),
        (0.1, 4, range(1, 13)),
    ],
)
def test_a_part_of_an_epoch_is_rounded_to_the_nearest_step(every, per_epoch, expected):
    assert [step for step in range(13) if is_due(every, step, per_epoch)] == list(expected)


def test_no_drift_comes_of_spans_that_are_no_whole_steps():
    steps = [step for step in range(10_001) if is_due(0.3, step, 100)]
    assert steps == [30 * number for number in range(1, 334)]


def test_what_is_drawn_behind_an_evaluation_is_what_would_have_been_drawn_without():
    job = SimpleNamespace(
        config=SimpleNamespace(name="toy", eval_every=1),
        spec=SimpleNamespace(probes={}),
        run=SimpleNamespace(history=lambda: SimpleNamespace(all=lambda _: [])),
        world=ALONE,
        clock=lambda _: contextlib.nullcontext(),
    )
    networks = [torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())]
    seen = []

    def evaluate(job, trainer, step, due, told):
        seen.append((step, due, networks[0][0].training))
        torch.manual_seed(7)

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    evaluations = Evaluations(job, SimpleNamespace(networks=networks, steps_per_epoch=4), evaluate, 0)
    for step in range(9):
        evaluations.catch_up(step)
    assert seen == [(4, ["toy"], False), (8, ["toy"], False)]
    assert torch.equal(torch.rand(2), expected)
    assert [module.training for module in networks[0].modules()] == [True, True, False]
