"""What the recipes that run on the machine at hand have in common. No torch."""

from typing import Any

from launcher.spec.contract import Rate, Recipe
from launcher.spec.schema import TrainConfig
from methods.data.spec import PhotosData


def on_photos(config: type[TrainConfig], source: str, expect: str, rate: Rate | None = None, **given: Any) -> Recipe:
    """A demo, in minutes: a method on the embedded photographs. given: fields of its config."""
    usual = {"image_size": 32, "schedule": "cosine", "workers": 0, "checkpoint_every": 200, "log_every": 20}
    return Recipe(config(**{**usual, **given}), PhotosData(), 6080, source, expect, rate, here=True)


def in_seconds(demo: Recipe, **given: Any) -> Recipe:
    """All of a method, for tests and drills: its demo, smaller. It learns nothing."""
    small = demo.but(image_size=16, epochs=2, global_batch=32, checkpoint_every=3, log_every=2, rate=None)
    photos = {"data": PhotosData(images=304), "images": 304}
    return small.but(**photos, source="ours", expect="nothing but speed", **given)
