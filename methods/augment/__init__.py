"""Views of images: pure functions of an image and a random stream. No torch: it takes seconds to import."""

from methods.augment.crops import centre_view, crop_box, train_view
from methods.augment.rng import view_rng

__all__ = ["centre_view", "crop_box", "train_view", "view_rng"]
