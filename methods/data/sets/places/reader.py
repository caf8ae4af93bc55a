"""Places205 and Places365-Standard, by their own lists.

torchvision's Places365 refuses lists whose checksum is another and keeps millions of Python strings; ours reads the
same files, and tests hold it to theirs.
"""

import os

from methods.data.listing import absolute
from methods.data.sets.listed import ListedImages, named_and_labelled, refuse_unless
from methods.data.sets.places.spec import (
    CLASSES_365,
    IMAGES_205,
    LAID_205,
    LAID_365,
    LISTS_205,
    LISTS_365,
    Places205Data,
    Places365Data,
    images_365,
)

LIST_BYTES = 512 << 20  # of a list, at most; the longest published one has some 120 MB


def read(config: Places205Data | Places365Data, split: str) -> ListedImages:
    """Raises InputError as `named_and_labelled`, and where a class has no name."""
    root, how = absolute(config.path), {"max_pixels": config.max_pixels}
    if isinstance(config, Places205Data):
        names, labels = named_and_labelled(os.path.join(root, LISTS_205[split]), LIST_BYTES, LAID_205, 205)
        # Nothing in the archives names the classes but their folders. Both splits have all of them.
        found = {label: os.path.dirname(name) for label, name in zip(labels, names, strict=True)}
        classes = [found.get(label) or str(label) for label in range(205)]
        return ListedImages(os.path.join(root, IMAGES_205), names, labels, classes, **how)
    listed, numbers = named_and_labelled(file := os.path.join(root, CLASSES_365), LIST_BYTES, LAID_365, 365)
    refuse_unless(sorted(numbers) == [*range(365)], file, "it does not name classes 0 to 364, each once", LAID_365)
    classes = [name for _, name in sorted(zip(numbers, listed, strict=True))]
    names, labels = named_and_labelled(os.path.join(root, LISTS_365[split]), LIST_BYTES, LAID_365, 365)
    return ListedImages(images_365(root, split), names, labels, classes, **how)
