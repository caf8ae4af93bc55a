"""Logistic regression by L-BFGS against scikit-learn's, which minimises C sum loss + |W|^2 / 2."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from launcher.runtime.dist import World
from methods.evals.logistic import protocol as logistic
from methods.evals.subject import Subject

CLASSES, D = 4, 9


def subject():
    """As much of one as a fit needs."""
    job = SimpleNamespace(world=World(0, 1, torch.device("cpu")), safe_point=lambda *_: None)
    return SimpleNamespace(job=job, classes=CLASSES, sum=lambda values: values)


def blobs(count=240, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(CLASSES, D))
    labels = rng.integers(CLASSES, size=count)
    features = (centres[labels] + 1.3 * rng.normal(size=(count, D))) * np.linspace(0.2, 5, D) + 0.7
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_it_finds_what_scikit_learn_finds(l2):
    features, labels = blobs()
    ours = logistic.fit(subject(), features, labels, l2=l2, iterations=800)
    theirs = LogisticRegression(C=1 / (2 * l2 * len(labels)), tol=1e-10, max_iter=5000)
    theirs.fit(features.double().numpy(), labels.numpy())
    np.testing.assert_allclose(ours.weight.numpy(), theirs.coef_, rtol=1e-3, atol=1e-4)
    shift = theirs.intercept_ - theirs.intercept_.mean()  # the same to all classes changes nothing
    np.testing.assert_allclose((ours.bias - ours.bias.mean()).numpy(), shift, rtol=1e-3, atol=1e-3)
    test, truth = blobs(90, seed=1)
    top1, top5 = logistic.accuracy(subject(), ours, test, truth)
    assert top1 == pytest.approx(100 * theirs.score(test.double().numpy(), truth.numpy()), abs=0.01)
    assert 40 < top1 < 100 and top5 == 100
    assert ours.iterations < 800


def test_the_objective_is_the_mean_loss_and_the_penalty():
    features, labels = blobs()
    found = logistic.fit(subject(), features, labels, l2=0.01, iterations=7)
    logits = features.double() @ found.weight.T + found.bias
    loss = torch.nn.functional.cross_entropy(logits, labels) + 0.01 * found.weight.square().sum()
    assert found.iterations == 7 and found.objective == pytest.approx(float(loss), rel=1e-9)


class Slot:
    """What a store keeps."""

    def __init__(self):
        self.kept = None

    def load(self):
        return self.kept

    def note(self, number, tensors, values):
        self.kept = number, {**tensors, **values}


def test_a_fit_that_goes_on_ends_as_one_that_was_not_interrupted(monkeypatch):
    monkeypatch.setattr(logistic, "SLICE", 5)
    features, labels = blobs()
    whole = logistic.fit(subject(), features, labels, l2=1e-3, iterations=23)
    slot = Slot()
    logistic.fit(subject(), features, labels, l2=1e-3, iterations=10, slot=slot)
    rest = logistic.fit(subject(), features, labels, l2=1e-3, iterations=23, slot=slot)
    assert torch.equal(rest.weight, whole.weight) and torch.equal(rest.bias, whole.bias)
    assert rest.iterations == whole.iterations == 23


def test_the_paper_s_penalty_shrinks_with_the_size_of_the_classifier():
    assert logistic.strength_of(None, 2048, 1000) == pytest.approx(100 / 2_048_000)
    assert logistic.strength_of(0.0, 2048, 1000) == 0


def test_of_a_share_it_is_another_score_beside_the_usual_one(evaluated):
    few = "protocol=logistic", "logistic.iterations=5"
    everything = evaluated.scores(*few)["logistic"]
    half = evaluated.scores(*few, "logistic.share=0.5")["logistic"]
    found = evaluated.run.summary()["evals"]
    assert found["logistic(iterations=5)"] == everything and found["logistic(share=0.5,iterations=5)"] == half
    assert half["train"] != everything["train"]


def test_an_evaluation_from_before_there_was_a_choice_of_images_is_the_same_one(evaluated):
    first = evaluated.asked("protocol=logistic", "logistic.iterations=3")
    evaluated.serve(first)
    file = first.path / "eval.json"
    said = json.loads(file.read_text())
    for name in ("share", "subset"):
        del said["settings"]["logistic"][name]
    file.write_text(json.dumps(said))
    assert evaluated.asked("protocol=logistic", "logistic.iterations=3").path == first.path
    assert evaluated.asked("protocol=logistic", "logistic.iterations=3", "logistic.share=0.5").path != first.path


def test_what_is_kept_of_a_fit_to_all_images_is_what_it_was_before_there_was_a_choice(evaluated, monkeypatch):
    kept, keeping = {}, Subject.keeping

    def asked(self, work, key, **options):
        kept[work] = key
        return keeping(self, work, key, **options)

    monkeypatch.setattr(Subject, "keeping", asked)
    evaluated.scores("protocol=logistic", "logistic.iterations=4")
    assert kept["logistic"] == {"iterations": 4, "l2": None}
    evaluated.scores("protocol=logistic", "logistic.iterations=4", "logistic.share=0.5")
    assert kept["logistic"].keys() == {"iterations", "l2", "images"}
