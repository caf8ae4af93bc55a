"""What the launcher reads about data: which data sets there are, and whether one can be used. Imports neither torch nor
PIL.

A data set is a folder in `sets/`, which is found by itself: `sets/base.py` says what it has.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import InputError
from launcher.spec.registry import ByName
from methods.data import splits as splits
from methods.data import tars as tars
from methods.data.listing import MAX_PIXELS as MAX_PIXELS
from methods.data.listing import absolute as absolute
from methods.data.listing import told_not_read as told_not_read  # for `sslrun shards`
from methods.data.sets.base import TRUTHS as TRUTHS
from methods.data.sets.base import DataSet
from methods.data.sets.base import told as told

# What a folder has that is called otherwise than its data set; made_objects/ has made/objects.
SEVERAL = {
    "attributes": ("cub", "awa2"),
    "places": ("places205", "places365"),
    "revisited": ("roxford5k", "rparis6k"),
}
_FOLDERS = sorted(file.parent.name for file in Path(__file__).parent.glob("sets/*/spec.py"))
_PLACES = {
    name: f"{__package__}.sets.{folder}.spec"
    for folder in _FOLDERS
    for name in SEVERAL.get(folder, (re.sub("^made_", "made/", folder),))
}
DATA: Mapping[str, type[DataSet]] = ByName(_PLACES, DataSet)

# What a batch may bring beside its images: `methods.data.beside` tells what each is.
COLUMNS = ("label", "position", "text")


def check(config, field="data", *, at_hand=True):
    """Raise InputError where `config` (of a class in DATA) cannot be used.

    With at_hand=False the data themselves may be missing or elsewhere: only the values are checked.
    `field` is the name under which the user set it: "data" or "eval_data".
    """
    if not 0 <= config.max_broken <= 1:
        fix = "give a number from 0 to 1"
        raise InputError.of(f"{field}.max_broken", config.max_broken, "a share of the images", fix)
    if getattr(config, "max_pixels", 1) < 1:
        raise InputError.of(f"{field}.max_pixels", config.max_pixels, "no image has so few", "give a number of pixels")
    config.check(field, at_hand=at_hand)


def no_labels(config):
    """Why the images of `config` have no labels, or None where they seem to. Looks at names of folders alone."""
    return config.no_labels()


def check_columns(config, columns, *, at_hand=True, classes=None):
    """Raise InputError where the data set of `config` lacks what a method wants beside its images, of COLUMNS, or has
    labels of more classes than `classes`, a number or None. As `no_labels`, it looks at names of folders alone;
    at_hand: whether there are any to look at."""
    if "label" in columns:
        known = at_hand or "label" not in config.truth or getattr(config, "labels", "") == "none"
        if known and (reason := config.no_labels()):
            raise without_labels(config, reason)
        if classes is not None and (there := config.more_classes_than(classes, at_hand=at_hand)):
            raise too_few_classes(classes, there)
    if "text" in columns and not config.captioned:
        raise without_texts(config, "such a data set keeps none")


def too_few_classes(classes, there):
    """What is said where a method tells fewer classes apart than the labels have."""
    return InputError.of("method.classes", classes, f"the data have {there}", f"set method.classes={there}")


def without_labels(config, reason):
    """What is said where a method learns from labels and there are none."""
    fix = "give labelled images: data=image_folder data.path=/path/to/them"
    return InputError.of("data", config.name, f"it has no labels ({reason}), and the method learns from them", fix)


def without_texts(config, reason):
    """As `without_labels`."""
    fix = "give images with a KEY.txt beside each KEY.jpg: data=image_folder data.path=/path/to/them"
    return InputError.of("data", config.name, f"it has no texts ({reason}), and the method learns from them", fix)
