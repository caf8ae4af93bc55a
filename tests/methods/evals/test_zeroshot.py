"""The bilinear function is the one of Equations 1 to 4, what it says of each class is counted as scikit-learn counts
it, and nothing of it changes by a stop or another number of ranks."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.metrics import recall_score

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.evals.alone import evaluate
from methods.evals.logistic import protocol as logistic
from methods.evals.logistic.protocol import Fitted, fit
from methods.evals.zeroshot import protocol
from methods.evals.zeroshot.protocol import Extracted, counts, held_out, learn, mean, unit
from methods.evals.zeroshot.spec import Zeroshot

CLASSES, WIDTH = 12, 6
SHORT = ("protocol=zeroshot", "eval_data=made/attributes", "eval_data.images=256", "zeroshot.iterations=40")


def subject():
    """As much of one as learning needs."""
    world = World(0, 1, torch.device("cpu"))
    job = SimpleNamespace(world=world, safe_point=lambda *_: None, seed_for=lambda purpose: 7)
    return SimpleNamespace(job=job, classes=CLASSES, sum=lambda values: values)


def bilinear_world(images=360, noise=0.05, seed=0):
    """(codes of unit length, images of classes whose features are a linear function of their attributes, and noise)."""
    rng = np.random.default_rng(seed)
    codes = unit(np.random.default_rng(99).normal(size=(CLASSES, 5)))
    labels = rng.integers(CLASSES, size=images)
    features = codes[labels] @ np.random.default_rng(98).normal(size=(5, WIDTH)) + 0.3
    features += noise * rng.normal(size=features.shape)
    return torch.from_numpy(codes), Extracted(torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels))


class Kept:
    """A store that nothing was kept in."""

    def slot(self, name):
        return SimpleNamespace(load=lambda: None, note=lambda *_: None)


SEEN, UNSEEN = np.arange(8), np.arange(8, CLASSES)


@pytest.mark.parametrize("softmax", ["seen", "all"])
@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_it_minimises_equation_3_as_scipy_does_with_the_formula_in_float64(l2, softmax):
    codes, images = bilinear_world(images=90, noise=0.5)
    train = images.of(SEEN)
    summed = SEEN if softmax == "seen" else np.arange(CLASSES)
    a, x, y = codes[torch.from_numpy(summed)], train.features.double(), train.labels

    def objective(flat):
        values = torch.from_numpy(flat).requires_grad_()
        sigma, b = values[: 5 * WIDTH].view(5, WIDTH), values[5 * WIDTH :]
        f = torch.stack([torch.stack([code @ (sigma @ row + b) for code in a]) for row in x])  # Equation 1
        p = f.exp() / f.exp().sum(1, keepdim=True)  # Equation 4
        loss = -p[torch.arange(len(y)), y].log().mean() + l2 * sigma.square().sum()  # Equation 3, and the penalty
        loss.backward()
        return float(loss.detach()), values.grad.numpy()

    start = np.zeros(5 * WIDTH + 5)
    vectorised = _objective(a, x, y, l2)
    for at in (start, start + 0.3):
        slow, fast = objective(at), vectorised(at)
        assert slow[0] == pytest.approx(fast[0], rel=1e-12)
        np.testing.assert_allclose(slow[1], fast[1], rtol=1e-9, atol=1e-12)
    theirs = minimize(vectorised, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    settings = Zeroshot(l2=[l2], softmax=softmax, iterations=800)
    ours, strength = learn(subject(), settings, codes, SEEN, train, Kept())
    assert strength == l2 and ours.objective == pytest.approx(theirs.fun, rel=1e-6)
    np.testing.assert_allclose(ours.weight.numpy(), theirs.x[: 5 * WIDTH].reshape(5, WIDTH), rtol=1e-3, atol=1e-4)


def _objective(a, x, y, l2):
    """The same, for all images at once."""

    def objective(flat):
        values = torch.from_numpy(flat).requires_grad_()
        sigma, b = values[: 5 * WIDTH].view(5, WIDTH), values[5 * WIDTH :]
        loss = torch.nn.functional.cross_entropy((x @ sigma.T + b) @ a.T, y) + l2 * sigma.square().sum()
        loss.backward()
        return float(loss.detach()), values.grad.numpy()

    return objective


def test_with_a_class_of_its_own_for_each_attribute_it_is_logistic_regression():
    _, images = bilinear_world(noise=0.5)
    how = {"l2": 0.01, "iterations": 300}
    plain = fit(subject(), *images, **how)
    coded = fit(subject(), *images, codes=torch.eye(CLASSES, dtype=torch.float64), **how)
    torch.testing.assert_close(coded.weight, plain.weight)
    torch.testing.assert_close(coded.bias, plain.bias)


def test_where_features_follow_attributes_classes_that_were_never_seen_are_told_apart():
    codes, train = bilinear_world()
    _, test = bilinear_world(seed=1)
    settings = Zeroshot(iterations=400)
    found, _ = learn(subject(), settings, codes, SEEN, train.of(SEEN), Kept())
    right, total = counts(subject(), found, codes, UNSEEN, test.of(UNSEEN))
    assert total[UNSEEN].min() > 10 and mean(right, total) == 1.0
    others = codes[torch.from_numpy(np.r_[SEEN, UNSEEN[::-1]])]  # each unseen class by another's attributes
    assert mean(*counts(subject(), found, others, UNSEEN, test.of(UNSEEN))) == 0.0


def test_the_penalty_is_the_one_by_which_held_out_classes_are_told_apart_best(monkeypatch):
    codes, train = bilinear_world(noise=1.5)
    train, seen = train.of(SEEN), [*SEEN]
    settings, asked, judged = Zeroshot(l2=[1e-4, 10.0, 0.1], folds=2, iterations=50), [], protocol.counts

    def spied(subject, found, codes, among, split):
        asked.append(
            (among.tolist(), sorted({*split.labels.tolist()}), mean(*judged(subject, found, codes, among, split)))
        )
        return judged(subject, found, codes, among, split)

    learnt, fitting = [], protocol.fit

    def fitted(subject, features, labels, **how):
        learnt.append((how["l2"], len(how["codes"]), len(labels)))
        return fitting(subject, features, labels, **how)

    monkeypatch.setattr(protocol, "counts", spied)
    monkeypatch.setattr(protocol, "fit", fitted)
    _, strength = learn(subject(), settings, codes, SEEN, train, Kept())
    assert [each[0] for each in learnt] == [10.0, 10.0, 0.1, 0.1, 1e-4, 1e-4, strength]
    assert [each[1] for each in learnt] == [4] * 6 + [8] and learnt[-1][2] == len(train.labels)
    assert sum(each[2] for each in learnt[:2]) == len(train.labels)  # what one part learns from the other holds out
    for first, second in zip(asked[::2], asked[1::2], strict=True):
        assert sorted(first[0] + second[0]) == seen and first[0] == first[1] and second[0] == second[1]
    means = {l2: (asked[2 * n][2] + asked[2 * n + 1][2]) / 2 for n, l2 in enumerate((10.0, 0.1, 1e-4))}
    assert strength == max(means, key=means.get) and len({*means.values()}) > 1


class Remembering:
    """A store whose process is killed behind its n-th note."""

    def __init__(self, notes):
        self.left, self.kept = notes, None

    def slot(self, name):
        return SimpleNamespace(load=lambda: self.kept, note=self.note)

    def note(self, number, tensors, values):
        self.left, self.kept = self.left - 1, (number, {**tensors, **values})
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("notes", [1, 6, 8, 20, 27])
def test_killed_in_any_fit_it_goes_on_in_its_middle_to_the_same_function(monkeypatch, notes):
    monkeypatch.setattr(logistic, "SLICE", 5)
    codes, train = bilinear_world(noise=1.5)
    settings, train = Zeroshot(l2=[1e-3, 1e-2], folds=2, iterations=30), train.of(SEEN)
    whole, strength = learn(subject(), settings, codes, SEEN, train, Kept())
    store, fits, fitting = Remembering(notes), [], protocol.fit
    with pytest.raises(KeyboardInterrupt):
        learn(subject(), settings, codes, SEEN, train, store)
    monkeypatch.setattr(protocol, "fit", lambda *a, **how: fits.append(how["l2"]) or fitting(*a, **how))
    before = store.kept[0] // 31
    again, chosen = learn(subject(), settings, codes, SEEN, train, store)
    assert torch.equal(again.weight, whole.weight) and torch.equal(again.bias, whole.bias) and chosen == strength
    assert len(fits) == 5 - before and store.left < 0


def test_parts_that_are_held_out_are_even_and_drawn_by_the_seed():
    parts = held_out(np.arange(3, 17), 3, 5)
    assert sorted(np.concatenate(parts).tolist()) == list(range(3, 17)) and sorted(map(len, parts)) == [4, 5, 5]
    assert [p.tolist() for p in parts] == [p.tolist() for p in held_out(np.arange(3, 17), 3, 5)]
    assert [p.tolist() for p in parts] != [p.tolist() for p in held_out(np.arange(3, 17), 3, 6)]
    with pytest.raises(InputError, match=r"^zeroshot\.l2: 5 seen classes cannot be held out in 3 parts of two or more"):
        held_out(np.arange(5), 3, 0)


def test_images_are_counted_by_class_among_the_classes_that_are_chosen_from():
    codes = torch.eye(3, dtype=torch.float64)
    found = Fitted(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0, 0.0)
    split = Extracted(torch.tensor([[3.0, 2, 1], [1, 2, 3], [2, 3, 1], [0, 2, 1]]), torch.tensor([0, 1, 0, 1]))
    assert [each.tolist() for each in counts(subject(), found, codes, np.arange(3), split)] == [[1, 1, 0], [2, 2, 0]]
    assert [each.tolist() for each in counts(subject(), found, codes, np.array([0, 1]), split)] == [
        [1, 2, 0],
        [2, 2, 0],
    ]
    assert mean(np.array([1, 2, 0]), np.array([2, 2, 0])) == 0.75 and mean(np.zeros(2), np.zeros(2)) == 0.0


def test_the_scores_are_those_of_scikit_learn_on_the_same_predictions(evaluated, monkeypatch):
    seen, judged = [], protocol.counts

    def spied(subject, found, codes, among, split):
        logits = found(split.features) @ codes[torch.from_numpy(among)].T
        seen.append((split.labels.numpy(), among[logits.argmax(1).numpy()]))
        return judged(subject, found, codes, among, split)

    monkeypatch.setattr(protocol, "counts", spied)
    found = evaluated.scores(*SHORT, "zeroshot.l2=[1e-4]")["zeroshot"]
    (truth, predicted), (alone, among) = seen
    labels = {"known": np.unique(truth)[np.isin(np.unique(truth), alone, invert=True)], "new": np.unique(alone)}
    assert len(truth) == 64 and [len(each) for each in labels.values()] == [24, 8]
    by = {name: recall_score(truth, predicted, labels=of, average="macro") for name, of in labels.items()}
    assert found["seen"] == pytest.approx(100 * by["known"], abs=0.006)
    assert found["unseen"] == pytest.approx(100 * by["new"], abs=0.006)
    harmonic = 2 * by["known"] * by["new"] / (by["known"] + by["new"] or 1)
    assert found["harmonic"] == pytest.approx(100 * harmonic, abs=0.006)
    both = recall_score(alone, among, labels=labels["new"], average="macro")
    assert found["zero_shot"] == pytest.approx(100 * both, abs=0.006)
    assert found["top1"] == pytest.approx(100 * (truth == predicted).mean(), abs=0.006) and found["l2"] == 1e-4


def evaluate_on_a_rank(world, folder):
    run = RunDir(folder)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


def test_stopped_and_on_two_ranks_it_finds_what_it_finds_undisturbed_on_one(evaluated, ranks, monkeypatch):
    ends, fitting = [], protocol.fit
    monkeypatch.setattr(protocol, "fit", lambda *a, **how: ends.append(fitting(*a, **how)) or ends[-1])
    short = *SHORT, "zeroshot.l2=[1e-3,1e-2]", "zeroshot.folds=2"
    asked = evaluated.asked(*short)
    alone = evaluated.serve(asked)["zeroshot"]
    assert set(alone) == {"top1", "seen", "unseen", "harmonic", "zero_shot", "l2"} and alone["l2"] in (1e-3, 1e-2)
    undisturbed, ends[:] = [*ends], []
    assert len(undisturbed) == 5
    shutil.rmtree(asked.path)
    again = evaluated.asked(*short)
    assert evaluated.stopped(again, 120)
    before = len(ends)
    assert evaluated.serve(again)["zeroshot"] == alone
    assert 1 < before < 5 and len(ends) - before < 5  # the fits that were done are not done again
    assert torch.equal(ends[-1].weight, undisturbed[-1].weight) and torch.equal(ends[-1].bias, undisturbed[-1].bias)
    assert not (again.path / "features").exists()
    shutil.rmtree(again.path)
    asked = evaluated.asked(*short)
    ranks(2, evaluate_on_a_rank, asked.path)
    (found,) = (event["scores"] for event in asked.history().all("eval"))
    assert found == alone


def test_data_without_attributes_are_refused_before_anything_is_queued(evaluated):
    with pytest.raises(InputError) as caught:
        evaluated.asked("protocol=zeroshot", "eval_data=photos")
    said = "protocol=zeroshot: it needs attributes of classes, and photos has one label an image; use eval_data="
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)
    for wrong, why in (("l2=[]", "it is empty"), ("l2=[1,1]", "one comes twice"), ("softmax=none", "no such classes")):
        with pytest.raises(InputError, match=rf"^zeroshot\.{wrong.split('=')[0]}=.*{why}"):
            evaluated.asked(*SHORT, f"zeroshot.{wrong}")
