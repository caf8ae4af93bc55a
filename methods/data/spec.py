"""What the launcher reads about data: the config schema, and a check of its values that imports neither torch nor PIL.

The dataclasses are plain and mutable because OmegaConf wants its schemas so. `check` finds before a job is queued what
would otherwise be found hours later on 64 nodes; it opens no image and stops at the first one it finds.
"""

import os
import shlex
from dataclasses import dataclass, field
from typing import ClassVar

from launcher.errors import InputError
from launcher.spec.fields import check_ranges, choice, later
from methods.data import splits, tars
from methods.data.listing import IMAGE_SUFFIXES, MAX_PIXELS, absolute, holds_image, listing
from methods.data.listing import told_not_read as told_not_read  # for `sslrun shards`
from methods.data.spec_tagged import TAGS_ALONE, MadeObjectsData, VocData, check_made, check_voc, check_voc_year
from methods.data.splits import refuse_hidden_splits, split_folders

LABELS = ("auto", "folders", "none")
SHARD_LABELS = ("auto", "cls", "none")

PHOTOGRAPHS = 19  # in methods.data.photos, which cuts four patches of each at least
# A side in pixels, by what is held out: half a tile; half of what both leave of the lowest photograph.
LARGEST_PATCH = {"test": 48, "validation": 36}
CIFAR10_CLASSES = 10
CIFAR10_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR10_TEST = ("test_batch.bin",)
CIFAR10_ROW = 1 + 3 * 32 * 32  # bytes: the label, then the red, green and blue planes


@dataclass
class PhotosData:
    """Patches of the photographs that come with installed Python packages: real images without a download."""

    name: str = "photos"
    images: int = 6080  # train patches; the test split has a quarter of them
    patch: int = 32  # side in pixels
    colour: bool = False
    # What k-NN and its like are measured on: "validation" is cut from the train area, to choose recipes by.
    held_out: str = later(choice("test", "validation"))
    max_broken: float = 0.01  # share of broken images that stops a run; so on every dataset


@dataclass
class ImageFolderData:
    """Any folder of images; `split_folders` says which are its splits, `methods.data.folder` what `labels` makes of
    sub-folders. An image of more than `max_pixels` is a broken one."""

    name: str = "image_folder"
    path: str | None = None
    labels: str = "auto"
    splits: str = later("auto")  # none: folders that are called as splits are (train, val, test) are classes
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})


@dataclass
class Cifar10Data:
    """CIFAR-10 in its published binary version (https://www.cs.toronto.edu/~kriz/cifar.html)."""

    images: ClassVar[int] = 50_000
    name: str = "cifar10"
    path: str | None = None
    max_broken: float = 0.01


@dataclass
class ShardsData:
    """Images in tars of WebDataset's layout, with an index beside them; `methods.data.shards` says what are its labels.
    `stage`: a folder of each node's own, such as $TMPDIR, to which the tars are copied first."""

    name: str = "shards"
    path: str | None = None
    labels: str = "auto"
    splits: str = later("auto")
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})
    stage: str | None = field(default=None, metadata={"science": False})


# What a batch may bring beside its images: `methods.data.beside` tells what each is.
COLUMNS = ("label", "position", "text")

DATA = {
    "photos": PhotosData,
    "image_folder": ImageFolderData,
    "cifar10": Cifar10Data,
    "shards": ShardsData,
    "voc": VocData,
    "made/objects": MadeObjectsData,
}


def check(config, field="data", *, at_hand=True):
    """Raise InputError where `config` (of a class in DATA) cannot be used.

    With at_hand=False the data themselves may be missing or elsewhere: only the values are checked.
    `field` is the name under which the user set it: "data" or "eval_data".
    """
    if not 0 <= config.max_broken <= 1:
        raise InputError.of(
            f"{field}.max_broken", config.max_broken, "a share of the images", "give a number from 0 to 1"
        )
    if getattr(config, "max_pixels", 1) < 1:
        raise InputError.of(f"{field}.max_pixels", config.max_pixels, "no image has so few", "give a number of pixels")
    if isinstance(config, PhotosData):
        _check_photos(config, field)
    elif at_hand and isinstance(config, ImageFolderData):
        _check_image_folder(config, field)
    elif at_hand and isinstance(config, Cifar10Data):
        _check_cifar10(config, field)
    elif isinstance(config, ShardsData):
        _check_shards(config, field, at_hand)
    elif isinstance(config, MadeObjectsData):
        check_made(config, field)
    elif isinstance(config, VocData):
        check_voc_year(config, field)
        if at_hand:
            _check_folder(config.path, field, "the folder with VOCdevkit/")
            check_voc(config, field)


def cifar10_folder(path):
    """The folder with the binary files: `path`, or the sub-folder that the published archive unpacks to."""
    inner = os.path.join(absolute(path), "cifar-10-batches-bin")
    return inner if os.path.isdir(inner) else absolute(path)


def _check_photos(config, field):
    check_ranges(config, prefix=f"{field}.")
    for name, smallest, largest in (("images", 4 * PHOTOGRAPHS, 10**6), ("patch", 8, LARGEST_PATCH[config.held_out])):
        value = getattr(config, name)
        if not smallest <= value <= largest:
            raise InputError.of(f"{field}.{name}", value, "out of range", f"give {smallest} to {largest}")


def _check_image_folder(config, field):
    if config.labels not in LABELS:
        raise _unknown_labels(field, config, LABELS)
    _check_splits(field, config)
    path = _check_folder(config.path, field, "a folder of images")
    try:
        train, test = split_folders(path, config.splits)
    except OSError as error:
        raise _unlisted(field, config, error) from None
    for folder in filter(None, (train, test)):
        try:
            found = holds_image(folder)
        except OSError as error:
            raise _unlisted(field, config, error) from None
        if not found:
            where = "" if folder == path else f" in its {os.path.basename(folder)}/"
            fix = f"give a folder with {' '.join(IMAGE_SUFFIXES)} files"
            raise _invalid(field, config.path, f"no image found{where}", fix)
    if test is None and config.splits == "auto":
        refuse_hidden_splits(train, field=f"{field}.path", value=repr(config.path), none=f"{field}.splits=none")
    if config.labels == "folders":
        problem = unlabelled_reason(train)
        if problem:
            fix = f"give every class a sub-folder, or set {field}.labels=none"
            raise InputError.of(f"{field}.labels", "'folders'", problem, fix)


def unlabelled_reason(folder):
    """Why the first-level sub-folders of `folder` cannot be the labels, or None where they can."""
    folders = 0
    for name, is_folder in listing(folder):
        if not is_folder:
            return f"{name!r} lies directly in {folder!r}, outside every class"
        folders += 1
    return None if folders else f"{folder!r} has no sub-folders"


def no_labels(config):
    """Why the images of `config` have no labels, or None where they seem to. Looks at names of folders alone."""
    if not isinstance(config, ImageFolderData | ShardsData):
        return None
    if config.labels == "none" or not config.path:
        return f"labels={config.labels}"
    if isinstance(config, ShardsData):
        try:
            found = tars.fitting(split_folders(absolute(config.path), config.splits)[0])[0]
        except OSError:
            return f"{config.path!r} cannot be read"
        return "not every image has a .cls member" if found and not found[0][1]["labelled"] else None
    try:
        return unlabelled_reason(split_folders(absolute(config.path), config.splits)[0])
    except OSError as error:
        return f"{config.path!r} cannot be listed ({error.strerror})"


def several_labels(config):
    """Whether each image of `config` has several labels, as `dataset.TaggedDataset` has them: a class in DATA says so
    with `tagged`."""
    return getattr(config, "tagged", False)


def check_columns(config, columns, *, at_hand=True, classes=None):
    """Raise InputError where the data set of `config` lacks what a method wants beside its images, of COLUMNS, or has
    labels of more classes than `classes`, a number or None. As `no_labels`, it looks at names of folders alone;
    at_hand: whether there are any to look at."""
    if "label" in columns and several_labels(config):
        raise without_labels(config, TAGS_ALONE)
    if "label" in columns and (at_hand or getattr(config, "labels", "") == "none") and (reason := no_labels(config)):
        raise without_labels(config, reason)
    if "text" in columns and not isinstance(config, ImageFolderData):
        raise without_texts(config, "such a data set keeps none")
    if "label" in columns and classes is not None and (there := _more_classes(config, classes, at_hand)):
        raise too_few_classes(classes, there)


def _more_classes(config, classes, at_hand):
    """How many classes the data set of `config` has, where they are more than `classes`; None where they are not, or
    that is unknown: the labels of shards are in an index, which is read when a run begins."""
    if isinstance(config, ImageFolderData):
        if not at_hand or not config.path:
            return None
        try:
            train = split_folders(absolute(config.path), config.splits)[0]
            folders = [os.path.join(train, name) for name, is_folder in listing(train) if is_folder]
            # Those without an image are no classes. They are looked into only where it matters: there may be thousands.
            there = len(folders) > classes and sum(map(holds_image, folders))
        except OSError:
            return None
    else:
        there = {PhotosData: PHOTOGRAPHS, Cifar10Data: CIFAR10_CLASSES}.get(type(config), 0)
    return there if there > classes else None


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


def _check_cifar10(config, field):
    fix = "unpack cifar-10-binary.tar.gz (the binary version) there"
    _check_folder(config.path, field, "the folder of CIFAR-10's binary files")
    folder = cifar10_folder(config.path)
    for name in CIFAR10_TRAIN + CIFAR10_TEST:
        file = os.path.join(folder, name)
        if not os.path.isfile(file):
            raise _invalid(field, config.path, f"{name} is missing", fix)
        size = os.path.getsize(file)
        if size == 0 or size % CIFAR10_ROW:
            reason = f"{name} has {size} bytes, not a multiple of {CIFAR10_ROW} (published: {10_000 * CIFAR10_ROW})"
            raise _invalid(field, config.path, reason, f"{fix} again")
        if not os.access(file, os.R_OK):
            raise _invalid(field, config.path, f"{name} is not readable by you", f"chmod +r {file!r}")


def _check_shards(config, field, at_hand):
    if config.labels not in SHARD_LABELS:
        raise _unknown_labels(field, config, SHARD_LABELS)
    _check_splits(field, config)
    if config.stage is not None and not config.stage.startswith(("/", "$")):
        reason = "it is relative, and is to be a folder of every node"
        raise InputError.of(f"{field}.stage", repr(config.stage), reason, "give it from the root on, or as '$TMPDIR'")
    if not at_hand:
        return
    path, unknown = _check_folder(config.path, field, "a folder of .tar files"), 0
    train, test = split_folders(path, config.splits)
    for folder in filter(None, (train, test)):
        try:
            found, problem = tars.fitting(folder)
            if not (found or problem):
                unknown += sum(os.stat(os.path.join(folder, name)).st_size for name in tars.names(folder))
        except OSError as error:
            problem = f"cannot read {error.filename!r} ({error.strerror})", "make it readable"
        if problem:
            reason, fix = problem
            where = "" if folder == path else f" (in its {os.path.basename(folder)}/)"
            raise _invalid(field, config.path, reason + where, fix)
    mixed = splits.pair(tars.names(train)) if test is None and config.splits == "auto" else None
    if mixed:
        reason = f"{mixed[0]!r} and {mixed[1]!r} look like two splits, and the images of both would be trained on"
        fix = f"move them into train/ and {splits.HELD_OUT[0]}/, or say {field}.splits=none where all are to train"
        raise _invalid(field, config.path, reason, fix)
    if unknown > tars.INDEXED_ALONE:
        reason = f"no index yet, and {unknown / 1e9:,.0f} GB of tars would keep all ranks waiting"
        raise _invalid(field, config.path, reason, f"run `sslrun shards {shlex.quote(path)}` first")


def _check_folder(path, field, what):
    if not path:
        fix = f"give {what}: {field}.path=/path/to/it"
        raise InputError.of(f"{field}.path", "null", "this dataset is read from disk", fix)
    folder = absolute(path)
    if not os.path.exists(folder):
        raise _invalid(field, path, "does not exist on this machine", f"give {what}")
    if not os.path.isdir(folder):
        raise _invalid(field, path, "is not a folder", f"give {what}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise _invalid(field, path, "is not readable by you", f"chmod u+rx {folder!r}, or ask its owner")
    return folder


def _invalid(field, path, reason, fix):
    return InputError.of(f"{field}.path", repr(path), reason, fix)


def _unlisted(field, config, error):
    return _invalid(field, config.path, f"cannot list {error.filename!r} ({error.strerror})", "make it readable")


def _check_splits(field, config):
    if config.splits not in splits.SPLITS:
        fix = f"choose one of {', '.join(splits.SPLITS)}"
        raise InputError.of(f"{field}.splits", repr(config.splits), "unknown", fix)


def _unknown_labels(field, config, known):
    return InputError.of(f"{field}.labels", repr(config.labels), "unknown", f"choose one of {', '.join(known)}")
