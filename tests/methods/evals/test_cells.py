"""Protocols that are asked for more than one number a channel learn from the last map in cells."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from launcher.errors import InputError
from methods import backbones
from methods.evals import cells as cells_module
from methods.evals.cells import cells_within
from methods.evals.logistic import protocol as logistic
from methods.evals.sgd import protocol as sgd
from methods.evals.sgd.dense import Dense
from methods.evals.sgd.spec import Sgd
from methods.evals.subject import Subject
from methods.evals.subsets import chosen

DATA = "eval_data=photos", "eval_data.images=76"
QUICK = {"sgd": ("sgd.epochs=1", "sgd.batch=19"), "logistic": ("logistic.iterations=2",)}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, evaluated_in):
    """At 32 pixels the last map, of 128 channels, has 2 x 2 places."""
    return evaluated_in(tmp_path_factory.mktemp("evaluated"), "small_resnet", "method.image_size=32")


@pytest.fixture
def learnt_from(monkeypatch):
    """`learnt_from(evaluated, protocol, ...)`: (what it learns from, its scores, the notices)."""

    def asked(whose, protocol, *overrides):
        seen = []

        def chosen_ones(subject, settings):
            seen.append((chosen(subject, settings), subject))
            return seen[-1][0]

        for module in (sgd, logistic):
            monkeypatch.setattr(module, "chosen", chosen_ones)
        scores = whose.scores(f"protocol={protocol}", *QUICK[protocol], *DATA, *overrides)[protocol]
        ((taught, subject),) = seen
        return taught, scores, subject

    return asked


@pytest.mark.parametrize("protocol", ["sgd", "logistic"])
def test_they_learn_from_the_cells_of_the_last_map_and_by_default_from_the_usual_feature(
    evaluated, learnt_from, protocol
):
    usual, _, subject = learnt_from(evaluated, protocol)
    assert usual.features.shape == (76, 128) and type(subject) is Subject
    taught, _, subject = learnt_from(evaluated, protocol, f"{protocol}.pool=2")
    assert taught.features.shape == (76, 512) and torch.equal(taught.labels, usual.labels)
    # The mean over the cells is the mean over the map.
    torch.testing.assert_close(taught.features.view(76, 128, 4).mean(2), usual.features, rtol=1e-4, atol=1e-5)
    assert subject.features("test")[0].shape == (19, 512)


@pytest.mark.parametrize(("numbers", "width"), [(128, 128), (511, 128), (512, 512), (9000, 512)])
def test_as_many_cells_are_taken_as_make_so_many_numbers(evaluated, learnt_from, numbers, width):
    taught, _, _ = learnt_from(evaluated, "logistic", f"logistic.numbers={numbers}")
    assert taught.features.shape[1] == width


@pytest.mark.parametrize(("channels", "cells"), [(2048, 2), (4096, 1), (512, 4), (256, 5), (16384, 1)])
def test_nine_thousand_numbers_are_cells_by_the_channels(channels, cells, monkeypatch):
    """Kolesnikov et al.: 2 x 2 of ResNet-50, 4 x 4 of VGG."""
    monkeypatch.setattr(cells_module, "width_of", lambda job, encode: channels)
    told = []
    job = SimpleNamespace(config=SimpleNamespace(backbone="small_resnet"), notice=told.append)
    subject = SimpleNamespace(job=job, backbone=backbones.build("small_resnet"))
    assert cells_within(subject, Sgd(numbers=9000)) == cells
    assert bool(told) == (channels > 9000)


def test_the_penalty_is_that_of_so_many_numbers(evaluated, learnt_from, monkeypatch):
    decays, step = set(), Dense.step

    def took(self, given, *, rate, momentum, weight_decay):
        decays.add(weight_decay)
        step(self, given, rate=rate, momentum=momentum, weight_decay=weight_decay)

    monkeypatch.setattr(Dense, "step", took)
    learnt_from(evaluated, "sgd", "sgd.pool=2", "sgd.hidden=null")
    _, scores, _ = learnt_from(evaluated, "logistic", "logistic.pool=2", "logistic.iterations=1")
    assert decays == {2 * 100 / (512 * 19)} and scores["l2"] == 100 / (512 * 19)


def test_a_transformer_has_no_map_and_is_judged_by_its_usual_feature(evaluated_vit, learnt_from):
    usual, scores, _ = learnt_from(evaluated_vit, "logistic")
    taught, again, subject = learnt_from(evaluated_vit, "logistic", "logistic.numbers=9000")
    assert torch.equal(taught.features, usual.features) and again == scores
    assert any("logistic: small_vit has no map of channels to pool" in said for said in subject.job.notices)


def test_pooled_features_of_a_stop_are_there_afterwards(evaluated):
    wanted = "protocol=sgd", *QUICK["sgd"], *DATA, "sgd.pool=2", "sgd.epochs=8"
    asked = evaluated.asked(*wanted)
    undisturbed = evaluated.serve(asked)
    shutil.rmtree(asked.path)
    again = evaluated.asked(*wanted)
    assert evaluated.stopped(again, 12)
    assert evaluated.serve(again) == undisturbed
    resumed = [event["resumed"]["sgd"] for event in again.history().all("work") if "sgd" in event.get("resumed", {})]
    assert resumed and 0 < resumed[0] < 32


def test_cells_are_asked_for_in_one_way(evaluated):
    with pytest.raises(InputError, match=r"sgd\.numbers=9000: pool=2 is there too; leave one out"):
        evaluated.asked("protocol=sgd", "sgd.pool=2", "sgd.numbers=9000")
