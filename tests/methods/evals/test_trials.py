"""Rates and penalties that are searched for: on images held out, the same whatever stops it and on any number of
ranks."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from launcher.errors import Diverged, InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.engine.job import Job
from methods.evals.alone import evaluate
from methods.evals.logistic import protocol as logistic
from methods.evals.logistic.spec import Logistic
from methods.evals.sgd import protocol as sgd
from methods.evals.sgd.spec import Sgd
from methods.evals.subject import Subject
from methods.evals.subsets import chosen, parted

DATA = "eval_data=photos", "eval_data.images=152"
LINEAR = "protocol=sgd", *DATA, "sgd.hidden=null", "sgd.epochs=4", "sgd.batch=38", "sgd.trials=4"
FIT = "protocol=logistic", *DATA, "logistic.iterations=60", "logistic.trials=4"


def rows(labels, among=None):
    """A subject of one rank whose features are the numbers of its images."""
    subject = Subject.__new__(Subject)
    data = SimpleNamespace(labels=labels, classes=tuple("abcde"))
    world = World(0, 1, torch.device("cpu"))
    subject.job = SimpleNamespace(world=world, labelled=(data, None), seed_for=lambda *given: abs(hash(given)) % 2**32)
    ids = np.arange(len(labels)) if among is None else among
    subject._made = {"train": (torch.from_numpy(ids).float()[:, None], ids)}
    return subject


def test_a_fifth_of_each_class_is_held_out_of_what_is_learnt_from():
    labels = np.array([0] * 50 + [1] * 10 + [2] * 5 + [3] * 2 + [4])
    subject = rows(labels)
    learn, held_out = parted(subject, Sgd())
    assert learn.labels.bincount(minlength=5).tolist() == [40, 8, 4, 2, 1]
    assert held_out.labels.bincount(minlength=5).tolist() == [10, 2, 1, 0, 0]
    both = torch.cat([learn.features, held_out.features])[:, 0]
    assert both.sort().values.tolist() == list(range(68))
    share = Sgd(share=0.5)
    learn, held_out = parted(subject, share)
    both = torch.cat([learn.features, held_out.features])[:, 0].sort().values
    assert torch.equal(both, chosen(subject, share).features[:, 0])
    assert held_out.labels.bincount().tolist() == [5, 1, 1]


def test_what_is_held_out_follows_from_the_seed_and_the_class_alone():
    labels = np.array([0, 1] * 20)
    subject = rows(labels)
    _, first = parted(subject, Sgd())
    _, without = parted(rows(np.where(labels == 1, 2, 0)), Logistic())
    zeros = [held.features[held.labels == 0, 0].tolist() for held in (first, without)]
    assert zeros[0] == zeros[1]
    subject.job.seed_for = lambda *given: abs(hash((1, *given))) % 2**32
    _, other = parted(subject, Sgd())
    assert not torch.equal(other.features, first.features)


def test_classes_of_two_images_leave_none_to_choose_by():
    with pytest.raises(InputError, match=r"sgd\.trials=3: of no class there are images enough to hold 20% out"):
        parted(rows(np.array([0, 0, 1, 1])), Sgd(trials=3))


def test_what_is_drawn_lies_in_the_papers_ranges_and_more_trials_begin_with_fewer():
    few, many = sgd.drawn(Sgd(trials=25), 0), sgd.drawn(Sgd(trials=400), 0)
    assert np.array_equal(many.rates[:25], few.rates) and np.array_equal(many.l2s[:25], few.l2s)
    assert 0.1 <= many.rates.min() < 0.12 and 80 < many.rates.max() <= 100
    assert 0 <= many.l2s.min() < 1e-7 and 4.9e-6 < many.l2s.max() <= 5e-6  # weight decays of 0 to 1e-5
    # Log-uniform: a third in each power of ten; uniform: a half in each half. Five standard deviations.
    assert all(abs((np.floor(np.log10(many.rates)) == power).sum() - 400 / 3) < 48 for power in (-1, 0, 1))
    assert abs((many.l2s < 2.5e-6).sum() - 200) < 50
    strengths = np.array(logistic.drawn(Logistic(trials=400), 0))
    assert strengths[:25].tolist() == logistic.drawn(Logistic(trials=25), 0)
    assert strengths.min() >= 1e-8 and strengths.max() <= 1 and abs((strengths < 1e-4).sum() - 200) < 50


def test_sgd_takes_the_best_of_its_trials_and_learns_from_all_with_it(evaluated, monkeypatch):
    learnt, learn, judged, accuracy = [], sgd._learn, [], sgd.accuracy

    def learns(subject, settings, dense, taught, *rest):
        learnt.append((settings.rate, settings.l2, taught.total))
        learn(subject, settings, dense, taught, *rest)

    def judges(subject, dense, *given):
        judged.append(accuracy(subject, dense, *given)[0])
        return accuracy(subject, dense, *given)

    monkeypatch.setattr(sgd, "_learn", learns)
    monkeypatch.setattr(sgd, "accuracy", judges)
    scores = evaluated.scores(*LINEAR)["sgd"]
    assert [total for _, _, total in learnt] == [114] * 4 + [152] and len(set(learnt[:4])) == 4
    best = int(np.argmax(judged[:4]))
    assert len(set(judged[:4])) > 1 and scores["held_out"] == judged[best]
    assert (scores["rate"], scores["l2"]) == learnt[best][:2] == learnt[4][:2]
    given = f"sgd.rate={scores['rate']!r}", f"sgd.l2={scores['l2']!r}", "sgd.trials=0"
    alone = evaluated.scores(*LINEAR, *given)["sgd"]
    assert alone == {name: scores[name] for name in ("top1", "top5", "train", "steps")}


def test_logistic_regression_takes_the_best_of_its_trials_as_scikit_learn_finds_them(evaluated, monkeypatch):
    parts, judged, accuracy = [], [], logistic.accuracy

    def parts_of(subject, settings):
        parts.extend(parted(subject, settings))
        return parts

    def judges(subject, fitted, *given):
        judged.append(accuracy(subject, fitted, *given)[0])
        return accuracy(subject, fitted, *given)

    monkeypatch.setattr(logistic, "parted", parts_of)
    monkeypatch.setattr(logistic, "accuracy", judges)
    wanted = *FIT, "logistic.iterations=800", "logistic.l2_range=[1e-4,0.1]"
    scores = evaluated.scores(*wanted)["logistic"]
    learn, held_out = parts
    strengths = logistic.drawn(Logistic(trials=4, l2_range=[1e-4, 0.1]), _seed(evaluated, wanted))
    for strength, found in zip(strengths, judged[:4], strict=True):
        theirs = LogisticRegression(C=1 / (2 * strength * learn.total), tol=1e-8, max_iter=5000)
        theirs.fit(learn.features.double().numpy(), learn.labels.numpy())
        right = theirs.score(held_out.features.double().numpy(), held_out.labels.numpy())
        assert found == pytest.approx(100 * right, abs=100 / held_out.total + 0.01)  # one image on the border
    best = int(np.argmax(judged[:4]))
    assert scores["held_out"] == judged[best] and scores["l2"] == strengths[best]
    alone = evaluated.scores(*wanted[:-1], "logistic.trials=0", f"logistic.l2={strengths[best]!r}")["logistic"]
    assert alone == {name: value for name, value in scores.items() if name != "held_out"}


def _seed(evaluated, wanted):
    """Of what is drawn by an evaluation."""
    job = Job.__new__(Job)
    job.spec = evaluated.asked(*wanted).spec()
    return job.seed_for("logistic trials")


def evaluate_on_a_rank(world, folder):
    run = RunDir(folder)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


@pytest.mark.parametrize(
    ("wanted", "slot", "stops"), [((*LINEAR, "sgd.rate_range=[0.01,1]"), "trial", (9, 40)), (FIT, "trials", (150, 80))]
)
def test_stopped_twice_and_on_two_ranks_it_is_what_it_is_undisturbed_on_one(evaluated, ranks, wanted, slot, stops):
    wanted = (*wanted, f"{wanted[0].partition('=')[2]}.share=0.9")
    name = wanted[0].partition("=")[2]
    asked = evaluated.asked(*wanted)
    undisturbed = evaluated.serve(asked)[name]
    assert {"held_out", "l2"} <= set(undisturbed)
    shutil.rmtree(asked.path)
    again = evaluated.asked(*wanted)
    assert all(evaluated.stopped(again, questions) for questions in stops)
    assert evaluated.serve(again)[name] == undisturbed
    resumed = [event["resumed"][slot] for event in again.history().all("work") if slot in event.get("resumed", {})]
    assert len(resumed) == 2 and 0 < resumed[0] < resumed[1]
    assert not (again.path / "features").exists()
    shutil.rmtree(again.path)
    asked = evaluated.asked(*wanted)
    ranks(2, evaluate_on_a_rank, asked.path)
    (found,) = (event["scores"] for event in asked.history().all("eval"))
    assert found == undisturbed


def test_a_trial_whose_weights_are_no_numbers_is_none_of_the_best(evaluated, monkeypatch):
    rates = np.array([1e30, 0.05, 1e32])
    trials = sgd.Trials(rates, np.zeros(3), torch.full((3,), sgd.NONE, dtype=torch.float64))
    monkeypatch.setattr(sgd, "drawn", lambda settings, seed: trials)
    scores = evaluated.scores(*LINEAR, "sgd.trials=3", "sgd.hidden=64")["sgd"]
    assert scores["rate"] == 0.05 and scores["held_out"] > 0
    assert trials.reached.tolist() == [0, scores["held_out"], 0]


def test_a_search_that_finds_no_rate_says_which_range_to_give(evaluated, monkeypatch):
    trials = sgd.Trials(np.array([1e30]), np.zeros(1), torch.full((1,), sgd.NONE, dtype=torch.float64))
    monkeypatch.setattr(sgd, "drawn", lambda settings, seed: trials)
    with pytest.raises(Diverged, match="give a range of rates that ends below 1e"):
        evaluated.scores(*LINEAR, "sgd.trials=1", "sgd.hidden=64")


def test_the_rate_falls_as_a_cosine():
    settings = Sgd(rate=2.0, epochs=8, schedule="cosine")
    assert [sgd.rate_at(settings, epoch) for epoch in (0, 2, 4, 8)] == pytest.approx([2, 1 + 0.5**0.5, 1, 0])


@pytest.mark.parametrize("protocol", ["sgd", "logistic"])
def test_without_trials_what_is_kept_is_what_it_was_before_there_were_any(evaluated, monkeypatch, protocol):
    kept, keeping = {}, Subject.keeping

    def asked(self, work, key, **options):
        kept[work] = key
        return keeping(self, work, key, **options)

    monkeypatch.setattr(Subject, "keeping", asked)
    quick = {"sgd": ("sgd.epochs=1",), "logistic": ("logistic.iterations=3",)}[protocol]
    evaluated.scores(f"protocol={protocol}", *DATA, *quick)
    before = {"iterations": 3, "l2": None}
    if protocol == "sgd":
        names = "share subset hidden dropout epochs batch rate drops momentum l2"
        before = [{name: getattr(Sgd(epochs=1, batch=152 // 8), name) for name in names.split()}, None]
    assert kept[protocol] == before
    evaluated.scores(f"protocol={protocol}", *DATA, *quick, f"{protocol}.trials=2")
    assert kept[protocol] != before


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("protocol=sgd", "sgd.trials=5", "sgd.rate=0.1"), "sgd.rate=0.1: trials=5 search for it; leave one out"),
        (("protocol=logistic", "logistic.trials=5", "logistic.l2=0.1"), "logistic.l2=0.1: trials=5 search for it"),
        (("protocol=sgd", "sgd.rate_range=[1,10]"), "nothing is searched for; give sgd.trials=25, too"),
        (("protocol=sgd", "sgd.trials=2", "sgd.rate_range=[10,1]"), "no range; give its two ends, the smaller first"),
        (("protocol=sgd", "sgd.trials=2", "sgd.rate_range=[0,1]"), "sgd.rate_range=[0.0, 1.0]: out of range"),
        (("protocol=sgd", "sgd.trials=-1"), "sgd.trials=-1: out of range; give 0 or more"),
        (("protocol=sgd", "sgd.schedule=steps"), "sgd.schedule=steps: no such schedule; use drops or cosine"),
        (("protocol=sgd", "sgd.schedule=cosine", "sgd.drops=[3]"), "schedule=cosine has none; leave one out"),
    ],
)
def test_a_search_that_cannot_be_is_refused_when_it_is_asked_for(evaluated, overrides, said):
    with pytest.raises(InputError) as caught:
        evaluated.asked(*overrides)
    assert said in str(caught.value)
