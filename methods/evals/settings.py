"""What the settings of every protocol have in common. Imports no torch."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from launcher.spec import paths
from launcher.spec.fields import refuse


class Settings:
    """What can be asked of a protocol. Each has a subclass: a dataclass, with the papers' settings as defaults."""

    name: ClassVar[str]  # of its folder, or of its entry point
    title: ClassVar[str]  # on a screen
    scores: ClassVar[Mapping[str, str]] = {}  # {key: name there}; where none is given all are shown
    no_percent: ClassVar[tuple[str, ...]] = ()  # the scores that are other numbers
    # In lists that people read; new ones come last, as work kept on disk is numbered by it, and other packages', which
    # have none, behind them.
    place: ClassVar[int]
    # What must be known of the images, of `methods.data.sets.base.TRUTHS`: any one of these will do; () for nothing.
    needs: ClassVar[tuple[str, ...]] = ("label",)
    zero: ClassVar[tuple[str, ...]] = ()  # the numbers among its settings that may be 0; all others are positive

    @classmethod
    def shown(cls, scores: Mapping[str, Any]) -> Mapping[str, str]:
        """{key: what it is called on a screen} of the scores that a screen has room for."""
        return cls.scores or {key: key for key in scores}

    def gathers(self) -> bool:
        """Whether one rank comes to hold the features of all images."""
        return False

    def check(self, backbone: str) -> None:
        """Raises InputError naming the first setting that cannot be, of any kind or for this backbone."""
        for name, value in vars(self).items():
            numbers = value if isinstance(value, list | tuple) else [value]
            self.refuse_unless(name, numbers, "it is empty", "give one value or more")
            zero = name in self.zero
            fix = f"give {'0 or more' if zero else 'a positive number'}"
            for number in numbers:
                free = isinstance(number, bool) or not isinstance(number, int | float)
                fits = free or 0 < number < math.inf or (zero and number == 0)
                self.refuse_unless(name, fits, "out of range", fix)

    def refuse_unless(self, field: str, holds: Any, reason: str, fix: str) -> None:
        if not holds:
            refuse(self, field, reason, fix, prefix=f"{self.name}.")


@dataclass
class SomeImages:
    """Settings of protocols that can learn from some of the training images; see `subsets.py`."""

    share: float = 1.0  # of the training images of each class, at least one of each
    subset: str | None = None  # a text file with the names of the images, one a line, in place of a share

    def __post_init__(self) -> None:
        if self.subset:  # the job runs in another folder than who asks for it
            self.subset = str(paths.absolute(self.subset))

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("share", self.share <= 1, "a share of the images", "give a number up to 1")
        if self.subset is not None:
            self.refuse_unless("subset", os.path.isfile(self.subset), "there is no such file", "give a list of images")
            self.refuse_unless("subset", self.share == 1, f"share={self.share:g} is there too", "leave one out")
