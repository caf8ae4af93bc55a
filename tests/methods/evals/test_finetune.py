"""Fine-tuning with all labels or a few: against SwAV's and DeiT's released recipes, stopped, and on two ranks."""

import copy
import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag, Stopped
from methods.augment.mixing import Mixing
from methods.backbones.dropout import DropPath
from methods.data import build
from methods.data.sets.photos.spec import PhotosData
from methods.evals.alone import evaluate
from methods.evals.finetune import protocol
from methods.evals.finetune.protocol import _network, _optimizer, _share
from methods.evals.finetune.spec import DEIT, SWAV, SWAV_FEW, Finetune
from methods.evals.fit import Fit
from methods.evals.settings import Steps
from methods.evals.subject import Subject

SHORT = ("protocol=finetune", "finetune.epochs=2", "finetune.batch=32", "eval_data=photos", "eval_data.images=152")
DEITS = (*SHORT, "finetune.recipe=deit")


def test_rates_are_those_of_the_released_script_for_a_share_of_the_labels():
    assert Finetune(share=0.01).chosen(0.01) == SWAV_FEW and (SWAV_FEW.rate, SWAV_FEW.head_rate) == (0.02, 5.0)
    assert Finetune().chosen(0.1) == SWAV
    assert (SWAV.rate, SWAV.head_rate, SWAV.epochs, SWAV.batch) == (0.01, 0.2, 20, 256)
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


def test_deits_rate_warms_up_for_5_epochs_from_a_thousandth_and_ends_at_a_hundredth():
    shares = [_share(DEIT, step, 10) for step in range(3000)]
    assert shares[0] == 0.001 and shares[50] == 1.0 and max(shares) == 1.0
    assert shares[25] == pytest.approx(0.5005) and shares[50 + 1475] == pytest.approx(0.505)
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


def drawn(images, channels):
    return torch.randint(
        0, 256, (images, channels, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def apart(network, other, start, kinds):
    """How far two networks are from each other, as a share of how far one came from where both began."""

    def flat(state):
        return torch.cat([state[name].double().flatten() for name in start if name.endswith(kinds)])

    began, one, two = flat(start), flat(network), flat(other)
    return float((one - two).norm() / (one - began).norm())


LEARNT, SEEN = ("weight", "bias"), ("running_mean", "running_var")


def test_steps_of_swavs_recipe_are_the_scripts_in_double_precision(subjects):
    subject, images = subjects(*SHORT, "finetune.share=0.5"), drawn(8, 1)
    network, labels = _network(subject, SWAV), torch.arange(8)
    start, theirs = copy.deepcopy(network.state_dict()), copy.deepcopy(network).double()
    optimizer = _optimizer(network, SWAV, 8)
    rates = [{"params": theirs.trunk.parameters(), "lr": 0.01}, {"params": theirs.head.parameters(), "lr": 0.2}]
    published = torch.optim.SGD(rates, lr=0.01, momentum=0.9, weight_decay=0)
    for _ in range(3):
        optimizer.zero_grad()
        (torch.nn.functional.cross_entropy(network(images), labels, reduction="none").sum() / 8).backward()
        optimizer.step()
        published.zero_grad()
        pixels = protocol._normalised(images).double()
        torch.nn.functional.cross_entropy(theirs.head(theirs.trunk(pixels)), labels).backward()
        published.step()
    mine, other = network.state_dict(), theirs.state_dict()
    trunk = {name: value for name, value in start.items() if name.startswith("trunk")}
    assert apart(mine, other, trunk, LEARNT) < 0.01 and apart(mine, other, start, LEARNT) < 0.01
    assert apart(mine, other, start, SEEN) < 0.01


@pytest.fixture
def vit(evaluated_vit, monkeypatch):
    """The subject of an evaluation of a vision transformer."""
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(protocol, "score", lambda subject, settings: seen.append(subject) or {"top1": 0.0})
        evaluated_vit.scores(*SHORT)
    return seen[0]


def test_deits_recipe_mixes_smooths_and_decays_as_timm_does(vit):
    from timm.data.mixup import mixup_target
    from timm.loss import SoftTargetCrossEntropy
    from timm.optim import param_groups_weight_decay

    network, batch = _network(vit, DEIT), 6
    dataset, pixels = vit.splits["train"], drawn(batch, 3)
    data = SimpleNamespace(images=pixels, ids=torch.arange(batch))
    seen = []
    network.register_forward_hook(lambda module, given, logits: seen.append((*given, logits.detach())))
    loss = protocol._loss(vit, DEIT, network, batch, data, 3)
    ((mixed, logits),) = seen
    _, kept = Mixing(vit.job.seed_for("finetune mixing"), 0.8, 1.0, 0.5)([mixed], 3, range(3))
    labels, wanted = torch.from_numpy(dataset.labels[:batch]), []
    for pair in (slice(0, 2), slice(2, 4), slice(4, 6)):
        wanted.append(mixup_target(labels[pair], vit.classes, float(kept[0, pair][0]), DEIT.smoothing))
    assert float(loss.detach()) == pytest.approx(float(SoftTargetCrossEntropy()(logits, torch.cat(wanted))), rel=1e-5)

    theirs = param_groups_weight_decay(
        network, 0.05, no_weight_decay_list=("trunk.trunk.pos_embed", "trunk.trunk.cls_token")
    )
    decay = {id(p): group["weight_decay"] for group in theirs for p in group["params"]}
    groups = _optimizer(network, DEIT, 1024).param_groups
    assert {id(p): group["weight_decay"] for group in groups for p in group["params"]} == decay
    assert all(group["lr"] == pytest.approx(1e-3) for group in groups)


def test_paths_are_dropped_in_deits_recipe_alone_and_all_weights_are_those_of_the_run(vit):
    for recipe, last in ((SWAV, 0.0), (DEIT, 0.1)):
        trunk = _network(vit, recipe).trunk
        assert [module.p for module in trunk.modules() if isinstance(module, DropPath)][-1] == last
        mine, judged = trunk.state_dict(), vit.backbone.state_dict()
        assert mine.keys() == judged.keys() and all(torch.equal(mine[name], judged[name]) for name in mine)
    assert not any(module.p for module in vit.backbone.modules() if isinstance(module, DropPath))


def test_the_backbone_that_is_judged_stays_as_it_is(evaluated, monkeypatch):
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
    """The weights that a rank begins and ends with."""
    kept = []

    class Watched(Fit):
        def run(self, *args, **kwargs):
            before = copy.deepcopy(self.network.state_dict())
            super().run(*args, **kwargs)
            kept.append((before, copy.deepcopy(self.network.state_dict())))

    protocol.Fit, before = Watched, protocol.Fit
    try:
        run = RunDir(folder)
        evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))
    finally:
        protocol.Fit = before
    return kept[0]


@pytest.mark.parametrize(("on", "how"), [("evaluated", SHORT), ("evaluated_vit", DEITS)])
def test_on_two_ranks_it_learns_what_it_learns_on_one(on, how, request, ranks):
    network = request.getfixturevalue(on)
    wanted = *how, "finetune.epochs=1", "finetune.share=0.5"
    asked = network.asked(*wanted)
    ((start, alone),) = ranks(1, tune_on_a_rank, asked.path)
    shutil.rmtree(asked.path)
    (_, first), (_, second) = ranks(2, tune_on_a_rank, network.asked(*wanted).path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert apart(alone, first, start, (*LEARNT, "token", "embed")) < 0.01  # the order of sums in float32
    if how is SHORT:
        assert apart(alone, first, start, SEEN) < 0.01


def test_answers_that_are_kept_are_of_the_weights_that_gave_them(evaluated, monkeypatch):
    keys, asked = [], evaluated.asked(*SHORT, "finetune.share=0.4")

    def answered(self, split, network, key, **_):
        keys.append(json.dumps(key))
        raise Stopped

    monkeypatch.setattr(Subject, "extracted", answered)
    monkeypatch.setattr(Fit, "run", lambda self, *_, **__: None)
    assert evaluated.stopped(asked, questions=100) and evaluated.stopped(asked, questions=100)
    monkeypatch.setattr(Fit, "run", lambda self, *_, **__: self.network.head.bias.data.add_(1))
    assert evaluated.stopped(asked, questions=100)
    assert keys[0] == keys[1] != keys[2]


def test_more_images_a_step_than_there_are_are_not_planned():
    assert Finetune(share=0.1).planned(300) == Steps(30, 20)
    assert Finetune(epochs=3).planned(1000) == Steps(256, 9)


def test_it_learns_what_labels_teach(evaluated):
    taught = evaluated.scores(*SHORT, "eval_data.images=608", "finetune.epochs=6", "finetune.rate=0.05")["finetune"]
    assert taught["top1"] > 20  # chance: 5 %


def test_the_list_of_images_is_what_it_learns_from(evaluated, tmp_path, monkeypatch):
    taught, loss = [], protocol._loss

    def seen(*given):
        taught.append(given[4].ids.tolist())
        return loss(*given)

    monkeypatch.setattr(protocol, "_loss", seen)
    names = tmp_path / "few.txt"
    images = build(PhotosData(images=152), "train")
    names.write_text("\n".join(images.name_of(place) for place in (5, 1, 4)))
    evaluated.scores(*SHORT, f"finetune.subset={names}")
    assert len(taught) == 2 and all(sorted(ids) == [1, 4, 5] for ids in taught)


def test_what_cannot_be_is_refused_in_one_line(evaluated, tmp_path):
    names = tmp_path / "none.txt"
    names.write_text("no such image")
    with pytest.raises(InputError, match=r"^finetune.subset="):
        evaluated.scores(*SHORT, f"finetune.subset={names}")
    with pytest.raises(InputError, match=r"^finetune.recipe=dino: no such recipe; use swav or deit"):
        evaluated.asked(*SHORT, "finetune.recipe=dino")
    with pytest.raises(InputError, match=r"^finetune.batch=1: 1 images a step do not share out to 1 ranks; use fewer"):
        evaluated.scores(*SHORT, "finetune.batch=1")


def test_each_rank_takes_as_many_images_and_whole_pairs_of_mixtures():
    plain, mixed = Finetune(batch=100), Finetune(batch=100, recipe="deit")
    assert [s.shared(s.chosen(1.0), 8, 1000) for s in (plain, mixed)] == [96, 96]
    assert [s.shared(s.chosen(1.0), 8, 60) for s in (plain, mixed)] == [56, 48]
    plain.refuse_unshared(100)
    mixed.refuse_unshared(50)
    for settings, ranks in ((plain, 101), (mixed, 51)):
        with pytest.raises(
            InputError, match=f"^finetune.batch=100: 100 images a step do not share out to {ranks} ranks"
        ):
            settings.refuse_unshared(ranks)
