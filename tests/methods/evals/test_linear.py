"""The linear probe: many rates in one pass are what each would be alone, on any number of ranks, stopped or not."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from launcher.errors import Diverged
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.evals import alone as evaluations
from methods.evals.alone import evaluate
from methods.evals.linear.protocol import Probes, _judged, _say, score
from methods.evals.linear.spec import Linear

RATES = [0.01, 0.3, 2.0]
SHORT = ("linear.epochs=4", "linear.batch=64", "linear.rates=[0.1,3,30]")


def test_every_classifier_is_what_torch_s_sgd_makes_of_it_alone():
    generator = torch.Generator().manual_seed(0)
    probes = Probes(RATES, 7, 5, torch.device("cpu"))
    alone = [torch.nn.Linear(7, 5).double() for _ in RATES]
    optimizers = []
    for rate, classifier in zip(RATES, alone, strict=True):
        torch.nn.init.zeros_(classifier.weight)
        torch.nn.init.zeros_(classifier.bias)
        groups = [{"params": [classifier.weight], "weight_decay": 0.02}, {"params": [classifier.bias]}]
        optimizers.append(torch.optim.SGD(groups, lr=rate, momentum=0.9))
    for step in range(6):
        x, y = torch.randn(12, 7, generator=generator), torch.randint(5, (12,), generator=generator)
        share = 1 / (1 + step)
        gradient, losses = probes.gradient(x, y)
        for number, (rate, classifier, optimizer) in enumerate(zip(RATES, alone, optimizers, strict=True)):
            loss = torch.nn.functional.cross_entropy(classifier(x.double()), y)
            assert float(losses[number]) / 12 == pytest.approx(float(loss.detach()), rel=1e-4)
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()
        probes.step(gradient / 12, share, momentum=0.9, weight_decay=0.02)
    for weight, classifier in zip(probes.weight, alone, strict=True):
        expected = torch.cat([classifier.weight, classifier.bias[:, None]], dim=1)
        torch.testing.assert_close(weight, expected.float(), rtol=1e-4, atol=1e-5)
    x = torch.randn(3, 7, generator=generator)
    expected = torch.stack([classifier(x.double()) for classifier in alone], dim=1).float()
    torch.testing.assert_close(probes(x), expected, rtol=1e-4, atol=1e-4)


def test_a_rate_that_diverged_does_not_hide_the_loss_of_the_others():
    said = []
    job = SimpleNamespace(
        reporter=SimpleNamespace(progress=lambda **_: None, log=lambda step, **values: said.append((step, values))),
        heart=SimpleNamespace(point=lambda: None),
        config=SimpleNamespace(log_every=1),
        keeping=SimpleNamespace(unkept_s=0.0),
    )
    _say(SimpleNamespace(job=job), 5, 9, torch.tensor([torch.nan, 6.0, torch.inf]), 2)
    assert said == [(5, {"linear/loss_of_best": 3.0})]


def judged(weights):
    """Scores of classifiers [R, 2, 2] of one feature, on three images of the first class."""
    settings, world = Linear(rates=[0.1, 3.0]), SimpleNamespace(device=torch.device("cpu"))
    probes = Probes(settings.rates, 1, 2, world.device)
    probes.weight.copy_(weights)
    found = torch.ones(3, 1), torch.zeros(3, dtype=torch.int64)
    subject = SimpleNamespace(
        job=SimpleNamespace(world=world), classes=2, features=lambda split: found, sum=lambda values: values
    )
    return _judged(subject, probes, settings)


def test_an_eighth_of_few_images_is_still_one_for_each_rank():
    class Enough(Exception):
        pass

    def notice(said):
        raise Enough(said)

    job = SimpleNamespace(world=SimpleNamespace(size=8), notice=notice)
    with pytest.raises(Enough, match=r"^linear: 7 steps are few to learn from 60 images"):
        score(SimpleNamespace(job=job, classes=2, splits={"train": range(60)}), Linear(epochs=1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_rate_that_diverged_is_right_about_no_image(bad):
    """Of scores that are no numbers the first class would come first (the kind of facebookresearch/dino#89)."""
    good = torch.tensor([[0.0, 0.0], [0.0, 1.0]])  # says the second class
    scores = judged(torch.stack([good, torch.full((2, 2), bad)]))
    assert scores["top1_by_rate"] == {"0.1": 0.0, "3": 0.0} and scores["rate"] == 0.1 and scores["top5"] == 100.0
    with pytest.raises(Diverged, match=r"at every rate .*; add some below 0\.1 to rates"):
        judged(torch.full((2, 2, 2), bad))


def test_a_probe_that_was_stopped_ends_as_one_that_was_not(evaluated):
    wanted = "protocol=linear", *SHORT
    asked = evaluated.asked(*wanted)
    undisturbed = evaluated.serve(asked)["linear"]
    assert set(undisturbed) == {"top1", "top5", "rate", "top1_by_rate", "steps"}
    assert undisturbed["top1"] == max(undisturbed["top1_by_rate"].values())
    assert undisturbed["top1"] == undisturbed["top1_by_rate"][f"{undisturbed['rate']:g}"]
    assert len(set(undisturbed["top1_by_rate"].values())) > 1
    shutil.rmtree(asked.path)
    again = evaluated.asked(*wanted)
    assert evaluated.stopped(again, 9)
    assert evaluated.serve(again)["linear"] == undisturbed
    assert any("linear" in event.get("resumed", {}) for event in again.history().all("work"))
    assert not (again.path / "features").exists()


def evaluate_on_a_rank(world, folder):
    run = RunDir(folder)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


def test_a_backbone_that_is_judged_stays_as_it_is_to_its_running_statistics(evaluated, monkeypatch):
    """What has no gradients may still learn: batch statistics in train mode (lightly-ai/lightly#1438)."""
    load, judged = evaluations._load, []
    monkeypatch.setattr(evaluations, "_load", lambda *given: judged.append(load(*given)) or judged[0])
    evaluated.scores("protocol=linear", "linear.epochs=1", "linear.batch=64")
    saved = evaluated.backbone.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in judged[0].state_dict().items())


def test_two_ranks_find_what_one_finds(evaluated, ranks):
    few = "groups.groups=10", "logistic.iterations=30", "layers.iterations=10"
    learnt = "sgd.epochs=10", "sgd.batch=48", "sgd.hidden=64", "sgd.rate=0.3", "sgd.l2=1e-4", "sgd.share=0.8"
    wanted = "protocol=linear,logistic,layers,groups,knn,sgd", *SHORT, *few, *learnt
    asked = evaluated.asked(*wanted)
    alone = evaluated.serve(asked)
    shutil.rmtree(asked.path)
    asked = evaluated.asked(*wanted)
    ranks(2, evaluate_on_a_rank, asked.path)
    found = [(event["protocol"], event["scores"]) for event in asked.history().all("eval")]
    assert {name.partition("(")[0]: scores for name, scores in found} == alone
