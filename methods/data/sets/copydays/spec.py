"""INRIA Copydays (Douze et al. 2009), as far as the launcher knows it."""

import os
from dataclasses import dataclass, field
from typing import ClassVar

from launcher.errors import InputError
from methods.data.listing import MAX_PIXELS, absolute
from methods.data.sets.base import DataSet, folder_of, unlisted, wrong

ORIGINAL, STRONG = "original", "strong"
LAID = (
    "unpack copydays_original.tar.gz and copydays_strong.tar.gz, which makes original/200000.jpg and strong/200001.jpg"
)
PREFIX = 4  # characters of a name that an image has in common with its copies


@dataclass
class CopydaysData(DataSet):
    """157 photographs and 229 strong attacks on them: print and scan, blur, paint and more. distractors: a folder of
    images that are searched, too (thesis: 10,000 of YFCC100M); whitening: one of other images, to learn a whitening
    from (20,000)."""

    truth: ClassVar = ("copies",)
    name: str = "copydays"
    path: str | None = None
    distractors: str | None = None
    whitening: str | None = None
    max_broken: float = 0.01
    max_pixels: int = field(default=MAX_PIXELS, metadata={"science": "given"})

    def __post_init__(self) -> None:
        for name in ("distractors", "whitening"):  # the job runs in another folder than who asks for it
            if getattr(self, name):
                setattr(self, name, absolute(getattr(self, name)))

    def check(self, field: str, *, at_hand: bool) -> None:
        if not at_hand:
            return
        root = folder_of(self.path, field, f"the folder with {ORIGINAL}/ and {STRONG}/")
        for name in (ORIGINAL, STRONG):
            folder = os.path.join(root, name)
            if not os.path.isdir(folder):
                raise wrong(field, self.path, f"{folder!r} is missing", LAID)
            try:
                with os.scandir(folder) as entries:
                    found = any(entry.name.endswith(".jpg") for entry in entries)
            except OSError as error:
                raise unlisted(field, self.path, error) from None
            if not found:
                raise wrong(field, self.path, f"{folder!r} holds no .jpg", LAID)
        for name in ("distractors", "whitening"):
            value = getattr(self, name)
            if value and not (os.path.isdir(value) and os.access(value, os.R_OK | os.X_OK)):
                raise InputError.of(f"{field}.{name}", value, "no folder that you can read", "give a folder of images")
