"""Fine-tuning with all labels or a few: against SwAV's and DeiT's released recipes, stopped, and on two ranks."""

import copy
import shutil

import pytest
import torch

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.evals.alone import evaluate
from methods.evals.finetune import protocol
from methods.evals.finetune.protocol import _network, _optimizer, _share
from methods.evals.finetune.spec import DEIT, SWAV, SWAV_FEW, Finetune
from methods.evals.fit import Fit

SHORT = ("protocol=finetune", "finetune.epochs=2", "finetune.batch=32", "eval_data=photos", "eval_data.images=152")
DEITS = (*SHORT, "finetune.recipe=deit")


def test_rates_are_those_of_the_released_script_for_a_share_of_the_labels():
    assert Finetune(share=0.01).chosen(0.01) == SWAV_FEW and (SWAV_FEW.rate, SWAV_FEW.head_rate) == (0.02, 5.0)
    assert Finetune().chosen(0.1) == SWAV and (SWAV.rate, SWAV.head_rate, SWAV.epochs, SWAV.batch) == (
        0.01,
        0.2,
        20,
        256,
    )
    given = Finetune(recipe="deit", epochs=1000, batch=768, rate=5e-6, head_rate=5e-6).chosen(1.0)
    assert (given.epochs, given.batch, given.rate, given.weight_decay) == (1000, 768, 5e-6, DEIT.weight_decay)


def test_swavs_rates_fall_after_12_and_16_epochs_of_20_as_torchs_schedule_has_it():
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(theirs, [12, 16], gamma=0.2)
    for epoch in range(20):
        for step in (3 * epoch, 3 * epoch + 2):
            assert _share(SWAV, step, 3) == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()


def test_deits_rate_warms_up_for_5_epochs_and_ends_at_a_hundredth():
    shares = [_share(DEIT, step, 10) for step in range(3000)]
    assert shares[0] == 0.01 and shares[50] == 1.0 and max(shares) == 1.0
    assert shares[25] == pytest.approx(0.505) and shares[50 + 1475] == pytest.approx(0.505)
    assert shares[-1] == pytest.approx(0.01, abs=1e-5)


@pytest.fixture
def subjects(evaluated, monkeypatch):
    """The subject of an evaluation by some overrides, as its protocol sees it."""

    def of(*overrides):
        seen = []
        with monkeypatch.context() as patch:
            patch.setattr(protocol, "score", lambda subject, settings: seen.append(subject) or {"top1": 0.0})
            evaluated.serve(evaluated.asked(*overrides))
        return seen[0]

    return of


def test_a_step_of_swavs_recipe_is_the_scripts_in_double_precision(subjects):
    subject, images = subjects(*SHORT, "finetune.share=0.5"), torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    network, labels = _network(subject, SWAV), torch.arange(8)
    theirs = copy.deepcopy(network).double()
    optimizer = _optimizer(network, SWAV, 8)
    rates = [{"params": theirs.trunk.parameters(), "lr": 0.01}, {"params": theirs.head.parameters(), "lr": 0.2}]
    published = torch.optim.SGD(rates, lr=0.01, momentum=0.9, weight_decay=0)
    for _ in range(2):
        optimizer.zero_grad()
        (torch.nn.functional.cross_entropy(network(images), labels, reduction="none").sum() / 8).backward()
        optimizer.step()
        published.zero_grad()
        pixels = protocol._normalised(images).double()
        torch.nn.functional.cross_entropy(theirs.head(theirs.trunk(pixels)), labels).backward()
        published.step()
    mine, other = network.state_dict(), theirs.state_dict()
    assert all(torch.allclose(mine[k].double(), other[k].double(), rtol=1e-3, atol=1e-5) for k in mine)


def test_the_backbone_that_is_judged_stays_as_it_is_and_its_own_frozen_parameters_do_not_learn(evaluated, monkeypatch):
    before, after = [], []
    learnt = protocol.Fit

    class Watched(Fit):
        def run(self, *args, **kwargs):
            before.append(copy.deepcopy(self.subject.backbone.state_dict()))
            learnt.run(self, *args, **kwargs)
            after.append((self.subject.backbone.state_dict(), self.network.trunk.state_dict()))

    monkeypatch.setattr(protocol, "Fit", Watched)
    evaluated.scores(*SHORT, "finetune.share=0.25")
    (judged, tuned), kept = after[0], before[0]
    assert all(torch.equal(kept[name], judged[name]) for name in kept)
    changed = [name for name in kept if not torch.equal(kept[name], tuned[name])]
    assert any("weight" in name for name in changed) and any("running_mean" in name for name in changed)


@pytest.mark.parametrize("how", [SHORT, DEITS])
def test_stopped_it_comes_to_the_same_score(evaluated, how):
    wanted = (*how, "finetune.rate=0.02", "finetune.head_rate=0.05")
    asked = evaluated.asked(*wanted)
    whole = evaluated.serve(asked)["finetune"]
    assert set(whole) == {"top1", "top5"} and 0 <= whole["top1"] <= whole["top5"] <= 100
    shutil.rmtree(asked.path)
    asked, starts = evaluated.asked(*wanted), 0
    while evaluated.stopped(asked, questions=4):
        starts += 1
        assert starts < 20
    assert starts > 1 and evaluated.serve(asked)["finetune"] == whole


def tune_on_a_rank(world, folder):
    """The weights that a rank ends with."""
    kept = []

    class Watched(Fit):
        def run(self, *args, **kwargs):
            super().run(*args, **kwargs)
            kept.append({name: value.clone() for name, value in self.network.state_dict().items()})

    protocol.Fit, before = Watched, protocol.Fit
    try:
        run = RunDir(folder)
        evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))
    finally:
        protocol.Fit = before
    return kept[0]


@pytest.mark.parametrize("how", [SHORT, DEITS])
def test_on_two_ranks_it_learns_what_it_learns_on_one(evaluated, ranks, how):
    asked = evaluated.asked(*how, "finetune.epochs=1", "finetune.share=0.5")
    (alone,) = ranks(1, tune_on_a_rank, asked.path)
    shutil.rmtree(asked.path)
    first, second = ranks(2, tune_on_a_rank, evaluated.asked(*how, "finetune.epochs=1", "finetune.share=0.5").path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in alone:  # but for the order of sums in float32
        assert torch.allclose(alone[name], first[name], rtol=1e-2, atol=1e-3), name


def test_it_learns_what_labels_teach(evaluated):
    taught = evaluated.scores(*SHORT, "eval_data.images=608", "finetune.epochs=6", "finetune.rate=0.05")["finetune"]
    assert taught["top1"] > 20  # chance: 5 %


def test_a_list_of_images_teaches_and_too_few_for_the_ranks_are_refused(evaluated, tmp_path):
    names = tmp_path / "few.txt"
    subject_names = [f"photos[{n}]" for n in range(3)]
    names.write_text("\n".join(subject_names))
    with pytest.raises(InputError, match=r"^finetune.subset="):
        evaluated.scores(*SHORT, f"finetune.subset={names}")
    with pytest.raises(InputError, match=r"^finetune.recipe=dino: no such recipe; use swav or deit"):
        evaluated.asked(*SHORT, "finetune.recipe=dino")
