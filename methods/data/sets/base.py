"""What every data set says of itself to the launcher. Imports neither torch nor PIL, and opens no image.

A subclass is a plain, mutable dataclass in the spec.py of its own folder, because OmegaConf wants its schemas so;
beside it reader.py has `read(config, split)`, which gives an `ImageDataset` of the split "train" or "test".
"""

import os
from collections.abc import Collection
from typing import ClassVar

from launcher.errors import InputError
from methods.data.listing import absolute

# What may be known of images beside the images, and how a person is told of it.
TRUTHS = {
    "label": "one label an image",
    "tags": "several labels an image",
    "boxes": "boxes",
    "masks": "a mask of each object",
    "pixels": "a class of each pixel",
    "queries": "queries and what is relevant to them",
    "copies": "copies and their originals",
    "clips": "clips with masks",
    "attributes": "attributes of classes",
}


class DataSet:
    """A data set's config: `name`, as people type it, `max_broken`, the share of broken images that stops a run, and
    whatever else it takes."""

    truth: ClassVar[tuple[str, ...]] = ("label",)  # of TRUTHS: what it has
    class_count: ClassVar[int | None] = None  # of its labels, where that is known without looking
    captioned: ClassVar[bool] = False  # whether there may be words beside its images
    listed: ClassVar[bool] = True  # whether its files are, by one rank, which keeps what the others then read

    def check(self, field: str, *, at_hand: bool) -> None:
        """Raises InputError where it cannot be used. field: the name it was set under, "data" or "eval_data"; at_hand:
        the files are here, and are looked for. What is wrong is found before a job is queued, and not hours later on 64
        nodes."""

    def no_labels(self) -> str | None:
        """Why its images have no labels, or None where they seem to. Looks at names of folders alone."""
        return None if "label" in self.truth else f"it has {told(self.truth)}"

    def more_classes_than(self, classes: int, *, at_hand: bool) -> int | None:
        """How many classes its labels have, where that is known to be more than `classes`."""
        return self.class_count if (self.class_count or 0) > classes else None


def told(truths: Collection[str], last: str = " and ") -> str:
    """Some of TRUTHS in words."""
    words = [TRUTHS.get(each, each) for each in truths]
    return last.join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def folder_of(path: str | None, field: str, what: str) -> str:
    """`path` made absolute: a folder that can be listed. what: the folder that is wanted, in words. Raises InputError
    where it is none."""
    if not path:
        fix = f"give {what}: {field}.path=/path/to/it"
        raise InputError.of(f"{field}.path", "null", "this dataset is read from disk", fix)
    folder = absolute(path)
    if not os.path.exists(folder):
        raise wrong(field, path, "does not exist on this machine", f"give {what}")
    if not os.path.isdir(folder):
        raise wrong(field, path, "is not a folder", f"give {what}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise wrong(field, path, "is not readable by you", f"chmod u+rx {folder!r}, or ask its owner")
    return folder


def file_of(file: str, field: str, path: str, laid: str) -> str:
    """`file`: a plain file that can be read. laid: how the data set lays it, as a fix. Raises InputError where it is
    not there; path: what the person gave."""
    if not os.path.isfile(file):
        raise wrong(field, path, f"{file!r} is missing", laid)
    if not os.access(file, os.R_OK):
        raise wrong(field, path, f"{file!r} cannot be read", f"chmod +r {file!r}")
    return file


def wrong(field: str, path: str | None, reason: str, fix: str) -> InputError:
    """What is said of the path of a data set that was given as `path`; None: as it was found in the job."""
    return InputError.of(f"{field}.path", ... if path is None else repr(path), reason, fix)


def unlisted(field: str, path: str, error: OSError) -> InputError:
    return wrong(field, path, f"cannot list {error.filename!r} ({error.strerror})", "make it readable")
