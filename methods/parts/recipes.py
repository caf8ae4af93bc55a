"""What recipes share: the papers' data sets, and the settings of every demo and tiny. No torch."""

from typing import Any

from launcher.spec.contract import Rate, Recipe
from launcher.spec.schema import TrainConfig
from methods.data.sets.image_folder.spec import ImageFolderData
from methods.data.sets.photos.spec import PhotosData


def on_imagenet(config: type[TrainConfig], source: str, expect: str, rate: Rate | None, **given: Any) -> Recipe:
    """A paper's setting on ImageNet. given, here and below: fields of the method's config."""
    return Recipe(config(**given), ImageFolderData(), 1_281_167, source, expect, rate)


def on_yfcc100m(config: type[TrainConfig], source: str, expect: str, **given: Any) -> Recipe:
    """On what could be downloaded of YFCC100M (released main.sh of DeeperCluster). Its folders are no classes."""
    return Recipe(config(**given), ImageFolderData(labels="none"), 95_920_149, source, expect)


def on_photos(config: type[TrainConfig], source: str, expect: str, rate: Rate | None = None, **given: Any) -> Recipe:
    """A demo, in minutes: a method on the embedded photographs, 32 pixels square. Crops keep 0.3 of the area or more,
    the schedule is a cosine, weight decay 1e-4, and there is no dropout, unless `given` says otherwise."""
    usual = {"image_size": 32, "crop_scale": [0.3, 1.0], "schedule": "cosine", "weight_decay": 1e-4, "dropout": 0.0}
    usual |= {"workers": 0, "checkpoint_every": 200, "log_every": 20}
    return Recipe(config(**{**usual, **given}), PhotosData(), 6080, source, expect, rate, here=True)


def in_seconds(demo: Recipe, **given: Any) -> Recipe:
    """All of a method, for tests and drills: its demo, smaller. It learns nothing."""
    small = demo.but(image_size=16, epochs=2, global_batch=32, checkpoint_every=3, log_every=2, rate=None)
    photos = {"data": PhotosData(images=304), "images": 304}
    crops = {"local_size": 8} if hasattr(demo.method, "local_size") else {}
    return small.but(**photos, source="ours", expect="nothing but speed", **{**crops, **given})
