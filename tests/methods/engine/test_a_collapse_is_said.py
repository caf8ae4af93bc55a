"""Outputs that become alike for all images are said in the ledger and on the screen, once, and can end the run."""

import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from launcher.compose.training import resolve
from launcher.errors import Diverged
from launcher.run.folder import RunDir
from launcher.run.ledger import History, Ledger
from launcher.runtime import shard
from launcher.runtime.checkpoint import Owners
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.runtime.stateful import ModuleState
from launcher.spec import registry
from methods import data
from methods.engine.collapse import Watched, entropy_of_use
from methods.engine.collapse_watch import LONGEST, CollapseWatch
from methods.engine.job import Job
from methods.engine.loop import train
from methods.engine.trainer import Trainer
from methods.evals.during import watch_rank
from methods.evals.knn.protocol import _rank
from methods.evals.knn.search import Bank
from methods.parts.losses import entropy

SINCE_4 = (
    "outputs collapsed since step 4: nearly all images fall to one of 100 classes (entropy of use 0.10 of ln K = 4.61)"
)
FINE, COLLAPSED = {"use": 4.0, "single": 2.0}, {"use": 0.1, "single": 2.0}


class Run:
    """What the watch asks of a job, and what it was told."""

    def __init__(self, on_collapse="notice", said=()):
        self.ledger_events, self.shown, self.notices = [], [], []
        self.config = SimpleNamespace(on_collapse=on_collapse)
        self.world = SimpleNamespace(is_main=True, broadcast=lambda value: value)
        self.before = [{"event": "health", "of": "outputs", "what": what} for what in said]
        self.run = SimpleNamespace(history=lambda: History(self.before))
        self.ledger = SimpleNamespace(write=lambda event, **fields: self.ledger_events.append((event, fields)))
        self.reporter = SimpleNamespace(progress=lambda force, notices: self.shown.append(list(notices)))


def watch(job, steps_per_epoch=100, watched=Watched(100, use="use", single="single")):  # noqa: B008
    job.owners = Owners(job.world)
    return CollapseWatch(job, SimpleNamespace(last=lambda: None), watched, steps_per_epoch)


def read(health, values, steps):
    for step in steps:
        health.note(step, values)


def test_it_is_said_once_it_has_lasted_an_epoch_and_again_when_it_is_over():
    job = Run()
    health = watch(job)
    read(health, FINE, range(10, 200, 10))
    read(health, COLLAPSED, range(200, 300, 10))
    assert not job.ledger_events
    read(health, COLLAPSED, range(300, 400, 10))
    ((event, said),) = job.ledger_events
    assert event == "health" and said["step"] == 300
    assert said["what"].startswith("outputs collapsed since step 200: nearly all images fall to one of 100 classes")
    assert job.shown == [[said["what"]]]
    read(health, FINE, [400, 410])
    assert job.ledger_events[1:] == [("health", {"step": 400, "of": "outputs", "what": ""})]
    assert job.shown[-1][-1] == "outputs no longer collapsed at step 400"


def test_a_moment_of_it_is_nothing():
    job = Run()
    health = watch(job)
    for start in range(0, 900, 90):
        read(health, COLLAPSED, range(start, start + 80, 10))
        read(health, FINE, [start + 80])
    assert not job.ledger_events


def test_uniform_outputs_are_one_too_and_a_long_epoch_is_not_waited_for():
    job = Run()
    health = watch(job, steps_per_epoch=100_000)
    read(health, {"use": 4.6, "single": 4.6}, range(0, LONGEST + 20, 20))
    assert "outputs are uniform" in job.ledger_events[0][1]["what"]


def test_few_readings_are_not_enough_however_far_apart():
    job = Run()
    read(watch(job), COLLAPSED, [1000, 2000])
    assert not job.ledger_events


def test_the_next_life_does_not_say_it_again_but_says_that_it_is_over():
    job = Run(said=["collapsed since step 3"])
    health = watch(job)
    read(health, COLLAPSED, range(0, 300, 10))
    assert not job.ledger_events
    read(health, FINE, [300])
    assert job.ledger_events == [("health", {"step": 300, "of": "outputs", "what": ""})]


def test_a_run_that_was_told_to_stops():
    job = Run(on_collapse="stop")
    with pytest.raises(Diverged, match=r"collapsed since step 0: nearly all .* the last checkpoint is none"):
        read(watch(job), COLLAPSED, range(0, 300, 10))
    assert len(job.ledger_events) == 1


SINCE_4 = (
    "outputs collapsed since step 4: nearly all images fall to one of 100 classes (entropy of use 0.10 of ln K = 4.61)"
)


class Collapsing(Trainer):
    """A trainer whose outputs collapse in step 4, and who is told to stop in each of the steps `stops`; it does so one
    step later."""

    steps_per_epoch, watched = 5, Watched(100, use="use")

    def __init__(self, job, stops=()):
        self.job, self.stops, self.backbone = job, stops, nn.Linear(2, 1)
        self.networks, self.optimizers = [self.backbone], [torch.optim.SGD(self.backbone.parameters(), lr=0.1)]
        job.owners.add("network", ModuleState(self.backbone))

    def steps(self, epoch, first):
        for step in range(5 * epoch + first + 1, 5 * epoch + 6):
            yield [SimpleNamespace(ids=torch.tensor([step]))]

    def loss(self, batch, step):
        if step + 1 in self.stops:
            self.job.stop.signal = signal.SIGTERM
        return self.backbone(torch.ones(1, 2)).sum(), {"use": torch.tensor(4.0 if step + 1 < 4 else 0.1)}


@pytest.fixture
def lives(tmp_path):
    """`lives(stops)`: a run of 15 steps, started as often as it takes: (what the ledger has of its health, what its
    newest checkpoint holds of it, how it ended, how many lives it had)."""

    def lived(stops, on_collapse="notice"):
        run = RunDir(tmp_path / f"{on_collapse} {stops}")
        for folder in ("events", "checkpoints"):
            (run.path / folder).mkdir(parents=True)
        (run.path / "plan.json").write_text('{"steps": 15, "signal_delay_s": 60, "save_seconds": 0}')
        tiny = "method=rotnet", "recipe=tiny", "method.epochs=3", "method.log_every=1", "method.checkpoint_every=100"
        spec, _ = resolve([*tiny, f"method.on_collapse={on_collapse}"])
        world, layout = World(0, 1, torch.device("cpu")), registry.method("rotnet").layout(spec.method, 1)
        for life in range(1, 20):
            job = Job(
                run, spec, world, layout, Ledger(run.path, life, "rank0"), StopFlag(), data.build(spec.data, "train")
            )
            try:
                train(job, Collapsing(job, stops), lambda *_: None)
                end = "done"
                break
            except Stopped:
                continue
            except Diverged as error:
                end = str(error)
                break
        health = [(event["step"], event["what"]) for event in run.history().all("health")]
        return health, shard.read(run.checkpoints()[-1] / "shared.safetensors")["health"], end, life

    return lived


def test_it_is_said_at_the_same_step_however_often_a_run_is_stopped(lives):
    undisturbed = [(9, SINCE_4)], {"since": 4, "readings": 12}, "done"
    assert lives(()) == (*undisturbed, 1)
    assert lives((2, 6, 10)) == (*undisturbed, 4)


def test_it_ends_a_run_at_the_same_step_however_often_that_was_stopped(lives):
    health, saved, end, life = lives((2, 4, 6), "stop")
    assert (health, saved, life) == ([(9, SINCE_4)], {"since": 4, "readings": 4}, 4)
    assert end.startswith(SINCE_4)


def test_a_trainer_that_watches_nothing_is_left_alone():
    job = Run(on_collapse="stop")
    read(watch(job, watched=None), COLLAPSED, range(0, 300, 10))
    assert not job.ledger_events


def bank(features):
    return Bank(features.astype(np.float32), np.zeros(len(features), np.int64))


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_the_rank_of_an_evaluation_is_the_effective_rank_whatever_is_longer(shape):
    features = np.random.default_rng(0).normal(size=shape)
    values = torch.linalg.svdvals(torch.from_numpy(features))
    expected = entropy(values / values.sum()).exp()
    assert _rank(bank(features)) == pytest.approx(float(expected), abs=0.01)


def test_features_that_differ_in_length_alone_are_said_once_and_when_it_is_over():
    job = Run()
    job.run.history = lambda: History({"event": name, **fields} for name, fields in job.ledger_events)
    alike = bank(np.outer(np.arange(1, 30), [1.0, 2.0, 3.0]))
    for _ in range(2):
        watch_rank(job, 50, _rank(alike))
    ((event, said),) = job.ledger_events
    assert event == "health" and said["what"].startswith(
        "features collapsed at step 50: features differ in their length alone"
    )
    watch_rank(job, 60, _rank(bank(np.eye(9))))
    assert job.ledger_events[-1] == ("health", {"step": 60, "of": "features", "what": ""})
    assert _rank(bank(np.zeros((5, 3)))) == 0.0


def test_outputs_and_features_do_not_speak_for_each_other():
    job = Run()
    job.run.history = lambda: History({"event": name, **fields} for name, fields in job.ledger_events)
    health = watch(job)
    read(health, COLLAPSED, range(0, 300, 10))
    watch_rank(job, 300, 1.0)
    watch_rank(job, 400, 20.0)
    assert [(said["of"], bool(said["what"])) for _, said in job.ledger_events] == [
        ("outputs", True), ("features", True), ("features", False),
    ]  # fmt: skip
    read(health, COLLAPSED, range(400, 700, 10))
    assert len(job.ledger_events) == 3  # it is still said, and not again
    watch_rank(job, 700, 1.0)
    read(watch(job), FINE, [710])  # of the next life
    assert job.ledger_events[-1] == ("health", {"step": 710, "of": "outputs", "what": ""})


def test_collapsed_features_stop_a_run_that_was_told_to():
    with pytest.raises(Diverged, match="features collapsed at step 5"):
        watch_rank(Run(on_collapse="stop"), 5, 1.0)


def test_swav_at_ln_k_is_seen():
    """All embeddings equal: labels and predictions are uniform, all prototypes are used alike, the loss stays there."""
    scores = torch.zeros(3, 4, 100)
    used = torch.softmax(scores / 0.1, dim=-1)
    scalars = {"prototype_entropy": float(entropy_of_use(used)), "prediction_entropy": float(entropy(used).mean())}
    watched = Watched(100, use="prototype_entropy", single="prediction_entropy")
    assert "uniform over 100 classes" in watched.says(scalars)
