"""A folder of images, as far as the launcher knows it."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from launcher.errors import InputError
from launcher.spec.fields import later
from methods.data.listing import IMAGE_SUFFIXES, MAX_PIXELS, absolute, holds_image, listing
from methods.data.sets.base import DataSet, folder_of, unlisted, wrong
from methods.data.splits import check_splits, refuse_hidden_splits, split_folders, unknown_labels, unlabelled_reason

LABELS = ("auto", "folders", "none")


@dataclass
class ImageFolderData(DataSet):
    """Any folder of images; `split_folders` says which are its splits, `methods.data.folder` what `labels` makes of
    sub-folders. An image of more than `max_pixels` is a broken one."""

    captioned: ClassVar = True
    name: str = "image_folder"
    path: str | None = None
    labels: str = "auto"
    splits: str = later("auto")  # none: folders that are called as splits are (train, val, test) are classes
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def check(self, field: str, *, at_hand: bool) -> None:
        if not at_hand:
            return
        if self.labels not in LABELS:
            raise unknown_labels(field, self.labels, LABELS)
        check_splits(field, self.splits)
        path = folder_of(self.path, field, "a folder of images")
        try:
            train, test = split_folders(path, self.splits)
        except OSError as error:
            raise unlisted(field, self.path, error) from None
        for folder in filter(None, (train, test)):
            try:
                found = holds_image(folder)
            except OSError as error:
                raise unlisted(field, self.path, error) from None
            if not found:
                where = "" if folder == path else f" in its {os.path.basename(folder)}/"
                fix = f"give a folder with {' '.join(IMAGE_SUFFIXES)} files"
                raise wrong(field, self.path, f"no image found{where}", fix)
        if test is None and self.splits == "auto":
            refuse_hidden_splits(train, field=f"{field}.path", value=repr(self.path), none=f"{field}.splits=none")
        problem = unlabelled_reason(train) if self.labels == "folders" else None
        if problem:
            fix = f"give every class a sub-folder, or set {field}.labels=none"
            raise InputError.of(f"{field}.labels", "'folders'", problem, fix)

    def no_labels(self) -> str | None:
        if self.labels == "none" or not self.path:
            return f"labels={self.labels}"
        try:
            return unlabelled_reason(split_folders(absolute(self.path), self.splits)[0])
        except OSError as error:
            return f"{self.path!r} cannot be listed ({error.strerror})"

    def more_classes_than(self, classes: int, *, at_hand: bool) -> int | None:
        if not at_hand or not self.path:
            return None
        try:
            train = split_folders(absolute(self.path), self.splits)[0]
            folders = [os.path.join(train, name) for name, is_folder in listing(train) if is_folder]
            # Those without an image are no classes. They are looked into only where it matters: there may be thousands.
            there = len(folders) > classes and sum(map(holds_image, folders))
        except OSError:
            return None
        return there if there > classes else None
