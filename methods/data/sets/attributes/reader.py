"""Images of classes that are known by their attributes, in the proposed splits of Xian et al. 2018 (xlsa17)."""

import os

import numpy as np

from methods.data.listing import absolute
from methods.data.sets.attributes.spec import FILES, SPLITS, Awa2Data, CubData
from methods.data.sets.listed import ListedImages, is_inside, refuse_unless
from methods.data.sets.matlab import numbers, variables

MOST = 10**6  # images and classes, at most
PARTS = {"train": ("trainval_loc",), "test": ("test_seen_loc", "test_unseen_loc")}


class AttributedImages(ListedImages):
    """Split "train" has images of seen classes alone, "test" others of these, and all of the unseen ones.

    attributes: float32 [classes, a], of unit length, as xlsa17 has them; seen: bool [classes].
    """

    attributes: np.ndarray
    seen: np.ndarray


def read(config: CubData | Awa2Data, split: str) -> AttributedImages:
    """Raises InputError as `variables`, and where these do not fit together."""
    root, laid = absolute(config.path), config.laid()
    splits, listed = (os.path.join(root, config.splits, name) for name in (SPLITS, FILES))
    said = variables(splits, ("att", *(name for part in PARTS.values() for name in part)), laid)
    attributes = said["att"]
    fits = isinstance(attributes, np.ndarray) and attributes.ndim == 2 and attributes.dtype.kind == "f"
    refuse_unless(fits and np.isfinite(attributes).all(), splits, "`att` is no matrix of numbers", laid)
    found = variables(listed, ("image_files", "labels"), laid)
    labels = numbers(listed, found["labels"], 1, attributes.shape[1], laid) - 1
    # The paths are those of the authors' machine; a class's folder and the file in it are everybody's.
    files = ["/".join(str(name).split("/")[-2:]) for name in np.atleast_1d(found["image_files"])]
    refuse_unless(all(map(is_inside, files)), listed, "it names something else than images", laid)
    refuse_unless(len(files) == len(labels), listed, f"{len(files)} images have {len(labels)} labels", laid)
    chosen = {name: numbers(splits, said[name], 1, len(files), laid) - 1 for part in PARTS.values() for name in part}
    seen = np.isin(np.arange(attributes.shape[1]), labels[chosen["trainval_loc"]])
    mixed = ~seen[labels[chosen["test_seen_loc"]]].all() or seen[labels[chosen["test_unseen_loc"]]].any()
    refuse_unless(not mixed, splits, f"its seen classes are others than {listed!r} says", laid)
    folders = {label: name.split("/")[0] for label, name in zip(labels.tolist(), files, strict=True)}
    classes = [folders.get(label, str(label)) for label in range(attributes.shape[1])]
    places = np.concatenate([chosen[name] for name in PARTS[split]])
    names = [files[place] for place in places.tolist()]
    made = AttributedImages(
        os.path.join(root, config.shots), names, labels[places], classes, max_pixels=config.max_pixels
    )
    made.attributes, made.seen = attributes.T.astype(np.float32), seen
    return made
