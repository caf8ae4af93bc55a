"""Which folders hold the images to train on, and which those to judge with: told by their names."""

import itertools
import os
import re
import shlex

from launcher.errors import InputError
from methods.data.listing import holds_image, listing

HELD_OUT = ("val", "valid", "validation", "test")  # beside train/, the one to judge with first
SPLITS = ("auto", "none")
_LOOKED_INTO = 100  # folders, for splits that are not taken for such
_LOOKED_AT = 1000  # images directly in a folder before its sub-folders are thought to be no splits

_SPLIT = re.compile(
    r"(?<![a-z])(?:(?P<train>train(?:ing)?)|val(?:id(?:ation)?)?|test(?:ing)?|eval(?:uation)?|dev|hold_?out|held_?out"
    r"|unlabell?ed)(?=(?:set|data|images?|imgs?)?(?![a-z]))"
)


def split_folders(root, chosen="auto"):
    """(train, test) folders: `root/train` and the first of HELD_OUT that lies beside it; (`root/train`, None) where
    there is none, and all images lie in it; (root, None) otherwise, and with chosen="none"."""
    train = os.path.join(root, "train")
    if chosen == "none" or not os.path.isdir(train):
        return root, None
    for name in HELD_OUT:
        test = os.path.join(root, name)
        if os.path.isdir(test):
            return train, test
    for name, is_folder in listing(root):
        if not is_folder or (name != "train" and holds_image(os.path.join(root, name))):
            return root, None
    return (train if holds_image(train) else root), None


def hidden_splits(root):
    """(folder, (train, held out)): two sub-folders of one in `root` that look like splits, and are not taken for them;
    None where none are found in it and in some folders below it that hold no images themselves."""
    pending = [root]
    for folder in itertools.islice(pending, _LOOKED_INTO):  # which grows meanwhile
        try:
            names, images = _sub_folders(folder, _LOOKED_AT if folder == root else 1)
            if images and folder != root:
                continue
            suspects = list(filter(names_split, names))
            alone = 2 * len(suspects) > len(names)  # else they are a few of many classes: not all are looked into
            if alone:
                suspects = [name for name in names if holds_image(os.path.join(folder, name))]
            found = pair(suspects, alone=alone and not images)
            if found and all(holds_image(os.path.join(folder, name)) for name in found):
                return folder, found
        except OSError:  # what cannot be listed hides nothing that could be trained on
            continue
        pending += [os.path.join(folder, name) for name in sorted(names)]
    return None


def refuse_hidden_splits(folder, *, field, value, none):
    """Raise InputError where `folder` holds splits that are not taken for them: held-out images would be trained on.

    none: what a person types where these are classes.
    """
    hidden = hidden_splits(folder)
    if not hidden:
        return
    inside, (train, held) = hidden
    where = "it" if inside == folder else f"its {os.path.relpath(inside, folder)}/"
    reason = f"{train!r} and {held!r} in {where} look like splits, and the images of both would be trained on"
    if split_folders(inside)[1]:
        better = f"give {shlex.quote(inside)}"
    else:
        better = f"call them train and {HELD_OUT[0]}, or give {shlex.quote(os.path.join(inside, train))}"
    raise InputError.of(field, value, reason, f"{better}, or say {none} where these are classes")


def pair(names, *, alone=False):
    """(train, held out): two of `names` that differ only in which split they name; None where no two do.

    Thousands of classes may have a bullet_train and a test_tube among them. Where `names` are all that there is
    (`alone`), it is enough that each of them names a split in its own way.

    >>> pair(["annotations", "train2017", "val2014"])
    ('train2017', 'val2014')
    >>> pair(["bullet_train", "test_tube", "wok"])
    >>> pair(["train_large", "val_256"]), pair(["train_large", "val_256"], alone=True)
    (None, ('train_large', 'val_256'))
    """
    training, held = {}, {}
    for name in sorted(names):
        text, found = _found(name)
        if found:
            rest = re.sub(r"\d+", "0", f"{text[: found.start()]}*{text[found.end() :]}")
            (training if found["train"] else held).setdefault(rest, name)
    for rest in sorted(training.keys() & held.keys()):
        return training[rest], held[rest]
    if alone and training and held and all(map(names_split, names)):
        return min(training.values()), min(held.values())
    exact = sorted(names)
    if alone and len(exact) > 1 and set(exact) <= set(HELD_OUT):
        return exact[0], exact[1]
    return None


def names_split(name):
    """Whether a split's name is part of the name: train, Val, trainset, img_test, TestImages, val2017."""
    return bool(_found(name)[1])


def _found(name):
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()
    return text, _SPLIT.search(text)


def _sub_folders(folder, most):
    """(names of the sub-folders, how many images lie beside them), as far as `most` images."""
    names, images = [], 0
    for name, is_folder in listing(folder):
        if is_folder:
            names.append(name)
        else:
            images += 1
            if images >= most:
                break
    return names, images


def check_splits(field, chosen):
    """Raises InputError where `chosen` is none of SPLITS. field: "data" or "eval_data"."""
    if chosen not in SPLITS:
        raise InputError.of(f"{field}.splits", repr(chosen), "unknown", f"choose one of {', '.join(SPLITS)}")


def unknown_labels(field, given, known):
    """What is said of a way to label that is not among the `known`."""
    return InputError.of(f"{field}.labels", repr(given), "unknown", f"choose one of {', '.join(known)}")


def unlabelled_reason(folder):
    """Why the first-level sub-folders of `folder` cannot be the labels, or None where they can."""
    folders = 0
    for name, is_folder in listing(folder):
        if not is_folder:
            return f"{name!r} lies directly in {folder!r}, outside every class"
        folders += 1
    return None if folders else f"{folder!r} has no sub-folders"
