"""Support vector machines against scikit-learn's, written out as VISSL calls them, and an evaluation by them."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.data.sets.made_objects.reader import MadeObjects
from methods.evals import alone, during
from methods.evals import remarks as evaluation_remarks
from methods.evals.alone import evaluate
from methods.evals.svm import protocol
from methods.evals.svm.classifier import OneAgainstAll, steps
from methods.evals.svm.spec import SVM

COSTS = [0.001, 0.1, 2.0, 50.0]
SHORT = ("protocol=svm", "svm.costs=[0.1,10]", "svm.iterations=200", "eval_data=photos", "eval_data.images=304")


def made(count=90, seed=0, share=0.3):
    rng = np.random.default_rng(seed)
    there = rng.random(count) < share
    rows = rng.normal(size=(count, 12)) + 0.6 * there[:, None]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), there


def fitted(rows, there, costs=COSTS, folds=3):
    one = OneAgainstAll(rows, there, costs, folds=folds, iterations=2000, seed=5)
    assert one.steps == steps(costs, folds) == len(costs) * folds + 1
    for number in range(one.steps):
        one.step(number)
    return one


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
def test_the_cost_and_the_machine_are_those_of_scikit_learn():
    chosen = set()
    for seed in range(3):
        rows, there = made(seed=seed)
        truth = np.where(there, 1, -1)
        how = {"class_weight": {1: 2, -1: 1}, "penalty": "l2", "loss": "squared_hinge", "dual": True, "max_iter": 2000}
        machines = [LinearSVC(C=cost, random_state=5, **how) for cost in COSTS]
        expected = [cross_val_score(machine, rows, truth, cv=3, scoring="average_precision") for machine in machines]
        one = fitted(rows, there)
        np.testing.assert_allclose(one.precision, expected, rtol=1e-12)
        best = int(np.argmax([each.mean() for each in expected]))
        theirs = machines[best].fit(rows, truth)
        assert one.cost == COSTS[best]
        np.testing.assert_allclose(one.weight[:-1], theirs.coef_[0], rtol=1e-12)
        assert one.weight[-1] == pytest.approx(theirs.intercept_[0], rel=1e-12)
        chosen.add(one.cost)
    assert len(chosen) > 1


@pytest.mark.parametrize("images", [0, 1, 2, 4, 5])
def test_a_class_with_few_images_has_a_machine(images):
    rows, _ = made(5)
    one = fitted(rows, np.arange(5) < images)
    scores = rows @ one.weight[:-1] + one.weight[-1]
    assert np.isfinite(one.weight).all() and one.cost in COSTS
    if images in (0, 5):
        assert set(scores) == {1.0 if images else -1.0}
    else:
        # One image on either side cannot be held out and learnt from, too: there the smallest cost is taken.
        assert one.cost == COSTS[0] if images in (1, 4) else scores[:images].min() > scores[images:].max()


def test_costs_are_the_grid_or_draws_between_1e_5_and_1e5_by_the_seed():
    def job(seed):
        return SimpleNamespace(seed_for=lambda purpose: seed)

    assert protocol.costs_of(job(1), SVM(costs=[3.0, 1.0])) == [1.0, 3.0]
    drawn = protocol.costs_of(job(1), SVM(trials=400))
    assert len(drawn) == 400 and drawn == protocol.costs_of(job(1), SVM(trials=400))
    assert drawn != protocol.costs_of(job(2), SVM(trials=400))
    assert 1e-5 < min(drawn) < 1e-4 and 1e4 < max(drawn) < 1e5
    assert 150 < sum(cost < 1 for cost in drawn) < 250


def test_the_scores_are_those_of_scikit_learn_on_the_same_features(evaluated, monkeypatch):
    """Of an evaluation as a person asks for one, with one label an image."""
    seen = {}

    def looked_at(subject, settings, found, features, ids):
        seen["test"] = features.double().numpy(), subject.splits["test"].labels[ids]
        return judged(subject, settings, found, features, ids)

    def learnt(subject, settings, features, ids, store):
        seen["train"] = features.double().numpy(), subject.splits["train"].labels[ids]
        seen["seed"] = [subject.job.seed_for("svm", number) % 2**32 for number in range(subject.classes)]
        return fit(subject, settings, features, ids, store)

    judged, fit = protocol._judged, protocol._fitted
    monkeypatch.setattr(protocol, "_judged", looked_at)
    monkeypatch.setattr(protocol, "_fitted", learnt)
    found = evaluated.scores(*SHORT, "svm.rule=area", "svm.costs=[1]")["svm"]
    (train, truth), (test, labels) = seen["train"], seen["test"]
    assert train.shape == (304, 128)  # at 16 pixels the last map has one cell
    train, test = (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5) for rows in (train, test))
    columns = []
    for number, seed in enumerate(seen["seed"]):
        machine = LinearSVC(C=1, class_weight={1: 2, -1: 1}, dual=True, max_iter=200, random_state=seed)
        columns.append(machine.fit(train, np.where(truth == number, 1, -1)).decision_function(test))
    expected = [average_precision_score(labels == number, column) for number, column in enumerate(columns)]
    assert found["map"] == pytest.approx(100 * np.mean(expected), abs=0.02)
    assert list(found["ap_by_class"].values()) == pytest.approx([100 * each for each in expected], abs=0.006)
    assert found["top1"] == pytest.approx(100 * np.mean(np.argmax(columns, axis=0) == labels), abs=0.006)
    assert 10 < found["map"] < 100 and set(found["cost_by_class"].values()) == {1.0}


def evaluate_on_a_rank(world, folder):
    run = RunDir(folder)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


def test_stopped_and_on_two_ranks_it_finds_what_it_finds_undisturbed_on_one(evaluated, ranks):
    short = *SHORT, "svm.pool=1", "eval_data.images=152"
    asked = evaluated.asked(*short)
    alone_found = evaluated.serve(asked)["svm"]
    assert set(alone_found) == {"map", "top1", "ap_by_class", "cost_by_class"}
    assert len(set(alone_found["cost_by_class"].values())) == 2
    shutil.rmtree(asked.path)
    again = evaluated.asked(*short)
    assert evaluated.stopped(again, 40)
    assert evaluated.serve(again)["svm"] == alone_found
    work = [event for event in again.history().all("work") if "classes_restored" in event]
    assert 0 < work[-1]["classes_restored"] < work[-1]["classes"]
    assert not (again.path / "features").exists()
    shutil.rmtree(again.path)
    asked = evaluated.asked(*short)
    ranks(2, evaluate_on_a_rank, asked.path)
    (found,) = (event["scores"] for event in asked.history().all("eval"))
    assert found == alone_found


class Tagged:
    """Photographs of which each is of its class and of the next one, or not surely of that; without labels."""

    labels = None

    def __init__(self, photos):
        self._photos, self.channels, self.classes = photos, photos.channels, photos.classes
        own, width = photos.labels, len(photos.classes)
        self.tags = np.full((len(photos), width), -1, np.int8)
        self.tags[np.arange(len(own)), own] = 1
        self.tags[np.arange(len(own)), (own + 1) % width] = np.arange(len(own)) % 2

    def __len__(self):
        return len(self._photos)

    def image(self, index):
        return self._photos.image(index)

    def name_of(self, index):
        return self._photos.name_of(index)


@pytest.fixture
def tagged(monkeypatch):
    """Has every data set that an evaluation builds have several labels an image."""
    for module in (alone, during, evaluation_remarks):
        build = module.build
        monkeypatch.setattr(module, "build", lambda config, split, build=build: Tagged(build(config, split)))


def test_of_images_with_several_labels_each_class_is_judged_by_those_that_count(evaluated, tagged, monkeypatch):
    seen = {}

    def by_class(truth, scores, rule):
        seen["counted"], seen["rule"] = (truth != 0).mean(), rule
        return judged(truth, scores, rule)

    class Learning(OneAgainstAll):
        def __init__(self, rows, there, costs, **how):
            seen["learnt"] = seen.get("learnt", 0) + int(there.sum())
            super().__init__(rows, there, costs, **how)

    judged = protocol.by_class
    monkeypatch.setattr(protocol, "by_class", by_class)
    monkeypatch.setattr(protocol, "OneAgainstAll", Learning)
    found = evaluated.scores(*SHORT, "svm.pool=1", "eval_data.images=228")["svm"]
    assert "top1" not in found and 10 < found["map"] < 100
    assert found["map"] == pytest.approx(np.mean(list(found["ap_by_class"].values())), abs=0.01)
    assert 0.9 < seen["counted"] < 1 and seen["rule"] == "voc07"
    assert seen["learnt"] == 228 + 114  # those that may be there are no examples of their class


def test_a_class_that_no_image_judges_is_not_counted_and_said(evaluated, tagged, monkeypatch):
    def some_hidden(truth, scores, rule):
        return by_class(np.where(np.arange(truth.shape[1]) < 5, -1, truth), scores, rule)

    by_class = protocol.by_class
    monkeypatch.setattr(protocol, "by_class", some_hidden)
    asked = evaluated.asked(*SHORT, "svm.pool=1", "svm.costs=[1]", "eval_data.images=76")
    found = evaluated.serve(asked)["svm"]
    assert len(found["ap_by_class"]) == len(found["cost_by_class"]) - 5
    assert found["map"] == pytest.approx(np.mean(list(found["ap_by_class"].values())), abs=0.01)
    (said,) = json.loads((asked.path / "progress.json").read_text())["notices"]
    assert said.startswith("svm: 5 of ") and said.endswith("and not counted: astronaut, brick, camera, ...")


MADE = ("eval_data=made/objects", "eval_data.images=152")


@pytest.mark.parametrize("protocols", ["knn", "svm,linear", "logistic", "layers", "groups"])
def test_who_needs_one_label_an_image_says_so_before_anything_is_queued(evaluated, protocols):
    with pytest.raises(InputError) as caught:
        evaluated.asked(f"protocol={protocols}", *MADE)
    name = protocols.rpartition(",")[2]
    said = f"protocol={name}: it needs one label an image, and made/objects has several labels an image"
    assert str(caught.value).startswith(said)
    assert "; use eval_data=NAME, of images with one label an image, or protocol=svm" in str(caught.value)
    assert evaluated.asked("protocol=svm", *MADE, "svm.trials=3").path.exists()


def test_images_made_here_are_judged_as_a_person_asks_for_it(evaluated):
    found = evaluated.scores(*SHORT[:3], *MADE)["svm"]
    assert list(found["ap_by_class"]) == list(MadeObjects.classes) and "top1" not in found
    assert 20 < found["map"] < 100


def test_a_training_is_told_why_it_has_no_k_nn(tagged):
    from launcher.compose.training import resolve

    spec, _ = resolve(["method=rotnet", "recipe=tiny", "eval_data=photos", "eval_data.images=76"])
    assert during.labelled(spec, None) is None
    (said,) = evaluation_remarks.remarks(spec, None, None)
    assert said == "k-NN is left out: the images have several labels each, and it needs one"


def test_features_that_do_not_fit_on_every_rank_are_refused_before_they_are_extracted(evaluated, monkeypatch):
    monkeypatch.setattr("methods.evals.room.memory", lambda: 6 * 4 * 128 * 380)  # where k-NN's four times would fit
    asked = evaluated.asked(*SHORT, "svm.folds=2")
    with pytest.raises(InputError, match=r"protocol=svm: it gathers .* takes 8 times that"):
        evaluated.serve(asked)
    assert not (asked.path / "features").exists()
