"""What the launcher side of supervised training says: recipes as published, one line for what cannot work."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from methods import data
from methods.engine.job import Job
from methods.supervised.accuracy import top1
from methods.supervised.spec import METHOD, paper, tiny, vit_small_16
from methods.supervised.trainer import Supervised

REFUSED = [
    ("classes", 1, "give 2 or more"),
    ("label_noise", 1.5, "give a number from 0 to 1"),
    ("label_smoothing", 1.0, "give a number from 0 to below 1"),
    ("mixup", -0.1, "give 0 or more"),
    ("cutmix_share", 2.0, "give a number from 0 to 1"),
    ("rand_augment", 11, "give 0 to 10"),
    ("erasing", -0.5, "give a number from 0 to 1"),
    ("drop_path", 0.1, "use 0"),  # of a VGG
    ("global_batch", 31, "give an even number"),
    ("optimizer", "lars", "use sgd or adamw"),
    ("augment", "deit", "flip_bicubic"),
]


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_bad_input_is_one_line_with_the_field_and_the_fix(name, value, said):
    config = dataclasses.replace(tiny().method, **{name: value})
    with pytest.raises(InputError) as refusal:
        METHOD.validate(config, 304)
    assert str(refusal.value).startswith(f"method.{name}=") and said in str(refusal.value)


def test_the_transformers_recipe_is_deits():
    """Touvron et al. 2021, Table 9, and the defaults of the released code."""
    config = vit_small_16().method
    assert (config.epochs, config.global_batch, config.lr, config.warmup_lr, config.warmup_epochs) == (
        300, 1024, 5e-4 * 1024 / 512, 1e-6, 5,
    )  # fmt: skip
    assert (config.optimizer, config.weight_decay, config.final_lr, config.schedule) == ("adamw", 0.05, 1e-5, "cosine")
    assert (config.label_smoothing, config.drop_path, config.mixup, config.cutmix, config.cutmix_share) == (
        0.1, 0.1, 0.8, 1.0, 0.5,
    )  # fmt: skip
    assert (config.rand_augment, config.erasing, config.crop_scale) == (9, 0.25, [0.08, 1.0])
    assert (config.global_crops, config.local_crops, config.image_size) == (1, 0, 224)
    assert "repeated augmentation" in vit_small_16().source


def test_the_convnets_recipe_is_the_baseline_of_figure_4_2():
    config = paper().method
    assert (config.epochs, config.lr / config.global_batch, config.weight_decay) == (200, 0.1 / 256, 1e-4)
    assert (config.mixup, config.cutmix, config.label_smoothing, config.rand_augment, config.erasing) == (0,) * 5


def test_where_pairs_would_be_parted_the_worlds_that_fit_are_said():
    config = vit_small_16().method
    assert METHOD.layout(config, 512).per_gpu_batch == 2
    with pytest.raises(InputError, match=r"part 2 images that belong together; use 1, 2, .*, 512 ranks$"):
        METHOD.layout(config, 1024)
    plain = dataclasses.replace(config, mixup=0.0, cutmix=0.0)
    assert METHOD.layout(plain, 1024).per_gpu_batch == 1


@pytest.fixture
def job(tmp_path):
    def made(*overrides):
        spec, _ = resolve(["method=supervised", "recipe=tiny", *overrides])
        world, run = World(0, 1, torch.device("cpu")), RunDir(tmp_path)
        train, test = (data.build(spec.data, split) for split in ("train", "test"))
        layout = METHOD.layout(spec.method, 1)
        return Job(run, spec, world, layout, Ledger(run.path, 1, "rank0"), StopFlag(), train, labelled=(train, test))

    return made


def test_a_label_that_is_no_class_is_refused_before_anything_is_queued(tmp_path):
    for planning in (False, True):
        with pytest.raises(InputError, match=r"^method\.classes=18: the data have 19; set method\.classes=19$"):
            resolve(["method=supervised", "recipe=tiny", "method.classes=18"], planning=planning)
    for name in ("a", "b", "c", "empty"):
        (tmp_path / name).mkdir()
    for name in ("a", "b", "c"):
        Image.new("L", (32, 32)).save(tmp_path / name / "1.png")
    folder = ("method=supervised", "recipe=tiny", "data=image_folder", f"data.path={tmp_path}")
    with pytest.raises(InputError, match=r"^method\.classes=2: the data have 3; set method\.classes=3$"):
        resolve([*folder, "method.classes=2"])
    resolve([*folder, "method.classes=3"])


def test_a_label_that_is_no_class_is_refused_before_the_first_step(job):
    """As of shards, whose labels nobody reads before."""
    few = job("method.classes=19")
    few.dataset.labels = few.dataset.labels + 2
    with pytest.raises(InputError, match=r"^method\.classes=19: the data have 21; set method\.classes=21$"):
        Supervised(few)
    Supervised(job("method.classes=20"))  # one that no image has


def test_images_without_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match="learns from them"):
        resolve(["method=supervised", "data=image_folder", "data.path=/", "data.labels=none"], planning=True)


def test_the_accuracy_is_the_share_of_test_images_that_are_told_right(job):
    made = job()
    test = made.labelled[1]
    # What an oracle says of a third of them, by their pixels, and of the others the class after theirs.
    seen = iter(np.concatenate([test.labels[:25], (test.labels[25:] + 1) % 19]).tolist())

    def logits(images):
        return torch.eye(19)[[next(seen) for _ in images]]

    assert len(test) == 76
    assert top1(made, logits) == {"top1": pytest.approx(100 * 25 / 76, abs=0.01)}


def test_of_images_of_other_classes_the_classifier_says_nothing(job):
    made = job()
    other = data.build(made.spec.data, "test")
    other.classes = other.classes[::-1]
    made.labelled = (made.labelled[0], other)
    assert top1(made, lambda images: pytest.fail("asked")) == {}
    made.labelled = None
    assert top1(made, lambda images: pytest.fail("asked")) == {}
