"""Protocols on one backbone: under which names their scores stand, and what is refused once the images are known."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from launcher.errors import Diverged, InputError
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.engine.features import refuse_unless_finite
from methods.evals import alone, room
from methods.evals.groups import protocol as groups
from methods.evals.groups.spec import GroupEntropy
from methods.evals.knn import banks

ALONE = World(0, 1, torch.device("cpu"))


def test_scores_of_other_settings_stand_beside_the_usual_ones(evaluated):
    usual = evaluated.scores("protocol=knn")["knn"]
    few = evaluated.scores("protocol=knn", "knn.neighbours=[3]")["knn"]
    found = evaluated.run.summary()["evals"]
    assert found == {"knn": usual, "knn(neighbours=[3])": few} and "k3" not in usual
    events = evaluated.run.history().all("eval")
    assert [event.get("settings") for event in events] == [None, {"neighbours": [3]}]


def test_of_two_scores_of_one_step_the_later_evaluations_stands_whatever_the_clocks_say(evaluated):
    for number, top1, time in ((2, 1.0, 10.0), (10, 2.0, 15.0), (9, 3.0, 20.0)):
        found = {"protocol": "linear", "step": 12, "scores": {"top1": top1}, "by": f"evals/linear-{number}"}
        Ledger(evaluated.run.path, 7, f"eval-linear-{number}").write("eval", **found, time=time)
    assert evaluated.run.summary()["evals"]["linear"] == {"top1": 2.0}


class Killed(Ledger):
    """Ends when it is to hold a score."""

    def write(self, event, **fields):
        if event == "eval":
            raise KeyboardInterrupt
        super().write(event, **fields)


def test_a_score_reaches_the_run_whenever_the_evaluation_is_killed(evaluated):
    asked = evaluated.asked("protocol=knn", "knn.neighbours=[5]")
    with pytest.raises(KeyboardInterrupt):
        alone.evaluate(asked, ALONE, Killed(asked.path, 1, "rank0"), StopFlag(), Heart(asked))
    assert "knn(neighbours=[5])" in evaluated.run.summary()["evals"]


@pytest.mark.parametrize("wanted", [("protocol=linear,knn",), ("protocol=linear,layers", "layers.probe=knn")])
def test_features_that_do_not_fit_one_machine_are_refused_before_anything_is_judged(evaluated, monkeypatch, wanted):
    monkeypatch.setattr(room, "memory", lambda: 10_000)
    asked = evaluated.asked(*wanted)
    with pytest.raises(InputError, match=r"it gathers \S+ GB of features on one rank, .* its machine has 1e-05 GB"):
        evaluated.serve(asked)
    assert not asked.history().all("eval", "work")


@pytest.mark.parametrize("protocol", ["knn", "linear", "layers"])
def test_features_that_are_no_numbers_are_not_scored(evaluated, monkeypatch, protocol):
    broken = copy.deepcopy(evaluated.backbone)
    torch.nn.init.constant_(next(broken.parameters()), torch.nan)
    monkeypatch.setattr(alone, "_load", lambda *_: broken)
    asked = evaluated.asked(f"protocol={protocol}", "eval_data=photos", "eval_data.images=76")
    with pytest.raises(Diverged, match=r"the features of (\d+) of \1 images are not finite numbers"):
        evaluated.serve(asked)
    assert not asked.history().all("eval")


def test_nor_while_a_run_trains_and_all_ranks_agree(monkeypatch):
    job = SimpleNamespace(labelled=("train", "test"), world=ALONE)
    monkeypatch.setattr(banks, "extract", lambda *_, **__: (torch.tensor([[1.0, torch.inf]]), np.arange(1)))
    with pytest.raises(Diverged, match="k-NN: the features of 1 of 1 images"):
        banks.collected(job, torch.nn.Identity(), "k-NN")
    job.world = SimpleNamespace(gather=lambda mine: [mine, (3, 5)])
    with pytest.raises(Diverged, match="of 3 of 7 images"):
        refuse_unless_finite(job, torch.zeros(2, 4), "k-NN")


def test_more_groups_than_images_are_refused(evaluated):
    with pytest.raises(InputError, match=r"groups.groups=100000: the images are \d+; give 2 to \d+"):
        evaluated.scores("protocol=groups", "groups.groups=100000")
    one = SimpleNamespace(
        features=lambda _: (torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)),
        sum=lambda values: values,
        job=SimpleNamespace(world=ALONE),
    )
    with pytest.raises(InputError, match=r"groups.groups=2: the images are 1; give more images"):
        groups.score(one, GroupEntropy())
