"""What k-NN has scored stands whatever ends its baselines, and its search stops between two chunks, on all ranks."""

import signal
from types import SimpleNamespace

import pytest
import torch

from launcher.report.life import _scores
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag, Stopped
from methods.evals import alone, during
from methods.evals.knn import banks, search
from methods.evals.knn import protocol as knn

ALONE = World(0, 1, torch.device("cpu"))
PHOTOS = ("protocol=knn", "eval_data=photos", "eval_data.images=76")


def killed(*_):
    raise KeyboardInterrupt


def test_the_trained_score_stands_when_a_baseline_fails_and_is_joined_by_them_later(evaluated, monkeypatch):
    asked = evaluated.asked(*PHOTOS, "knn.neighbours=[3]")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(knn, "_adapt_statistics", killed)
        evaluated.serve(asked)
    for run in (evaluated.run, asked):
        (scores,) = run.summary()["evals"].values()
        assert set(scores) == {"trained", "k3", "rank"}
        assert [numbers for _, _, numbers in _scores(run.history())] == [scores]
    whole = evaluated.serve(asked)["knn"]
    assert whole == whole | scores and whole["raw_pixels"]
    for run in (evaluated.run, asked):
        assert list(run.summary()["evals"].values()) == [whole]


def test_so_it_does_while_a_run_trains_and_the_evaluation_is_not_taken_for_done(evaluated, monkeypatch):
    asked = evaluated.asked(*PHOTOS, "knn.neighbours=[4]")
    told = asked, ALONE, Ledger(asked.path, 1, "rank0"), StopFlag(), Heart(asked)
    trainer = SimpleNamespace(
        backbone=evaluated.backbone, figures=lambda step: {"clusters": {"nmi": 0.5}, "spread": 2.0}
    )
    monkeypatch.setattr(knn, "_adapt_statistics", killed)
    with pytest.raises(KeyboardInterrupt), alone.job_of(*told, {"knn": {}}) as job:
        during.evaluate(job, trainer, 12)
    events = asked.history().all("eval", "scored")
    expected = [("scored", each, 12) for each in ("knn", "clusters", asked.spec().method.name)]
    assert [(e["event"], e["protocol"], e["step"]) for e in events] == expected
    assert [e["scores"] for e in events[1:]] == [{"nmi": 0.5}, {"spread": 2.0}]
    assert {"trained", "k10"} <= set(events[0]["scores"]) and not during.first_scores(asked.history().all("eval"))


def test_a_complete_evaluation_is_not_replaced_by_one_that_is_not(evaluated):
    ledger = Ledger(evaluated.run.path, 7, "later")
    for event, protocol, scores in (("eval", "k", {"a": 1, "b": 2}), ("scored", "k", {"a": 1}), ("scored", "l", {})):
        ledger.write(event, protocol=protocol, step=99, scores=scores)
    found = evaluated.run.summary()["evals"]
    assert (found["k"], found["l"]) == ({"a": 1, "b": 2}, {})


def test_a_search_that_is_told_to_stop_stops_behind_its_chunk(evaluated, monkeypatch):
    asked, stop, searched = evaluated.asked(*PHOTOS, "knn.neighbours=[5]"), StopFlag(), []

    def told(*given, **how):
        for right in search.search(*given, **how):
            searched.append(right)
            if len(searched) == 3:
                stop.signal = signal.SIGTERM
            yield right

    monkeypatch.setattr(search, "WORK", 1)
    monkeypatch.setattr(banks, "search", told)
    with pytest.raises(Stopped):
        alone.evaluate(asked, ALONE, Ledger(asked.path, 1, "rank0"), stop, Heart(asked))
    assert len(searched) == 3 and not asked.history().all("eval", "scored")


def test_a_rank_that_does_not_search_meets_the_one_that_does_at_each_chunk():
    met, said = [], iter([3, [0.25]])
    world = SimpleNamespace(is_main=False, broadcast=lambda _: next(said))
    job = SimpleNamespace(world=world, safe_point=lambda *where: met.append(where))
    assert banks.searched(job, (None, None), [20], stage="search") == [25.0]
    assert met == [("search", n, 3) for n in range(3)]
