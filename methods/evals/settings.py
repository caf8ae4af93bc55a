"""What the settings of every protocol have in common. Imports no torch."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from launcher.errors import InputError
from launcher.spec import paths
from launcher.spec.fields import refuse

EPOCH_STEPS = 8  # of an epoch at least, where nobody asked for another batch
FEW_STEPS = 500  # fewer teach a classifier on frozen features little, at any rate


@dataclass(frozen=True)
class Steps:
    """`batch` images each, over all ranks, and how many; None where that follows from a number of images that is not
    known."""

    batch: int
    count: int | None

    @classmethod
    def of(cls, batch: int, images: int | None, *, steps: int | None = None, epochs: int | None = None) -> Self:
        """So many steps, or epochs, which leave out what fills no batch."""
        if epochs is None:
            return cls(batch, steps)
        return cls(batch, epochs * max(1, images // batch) if images else None)


class Settings:
    """What can be asked of a protocol. Each has a subclass: a dataclass, with the papers' settings as defaults."""

    name: ClassVar[str]  # of its folder, or of its entry point
    title: ClassVar[str]  # on a screen
    # {key: name there}, first the one that a table of runs has of it; where none is given all are shown.
    scores: ClassVar[Mapping[str, str]] = {}
    no_percent: ClassVar[tuple[str, ...]] = ()  # the scores that are other numbers
    # In lists that people read; new ones come last, as work kept on disk is numbered by it, and other packages', which
    # have none, behind them.
    place: ClassVar[int]
    # What must be known of the images, of `methods.data.sets.base.TRUTHS`: any one of these will do; () for nothing.
    needs: ClassVar[tuple[str, ...]] = ("label",)
    # Whether it trains the network itself, by `batch` images a step, of which each rank takes as many, and keeps it.
    trains: ClassVar[bool] = False
    zero: ClassVar[tuple[str, ...]] = ()  # the numbers among its settings that may be 0; all others are positive
    empty: ClassVar[tuple[str, ...]] = ()  # the lists among its settings that may be empty
    usual_batch: ClassVar[int | None] = None  # images a step where its `batch` is null; see `batch_of`
    later: ClassVar[tuple[str, ...]] = ()  # its settings that came when there were scores, and kept work, already
    drawn: ClassVar[tuple[str, ...]] = ()  # the settings of its pictures, which change no score and not its name

    @classmethod
    def shown(cls, scores: Mapping[str, Any]) -> Mapping[str, str]:
        """{key: what it is called on a screen} of the scores that a screen has room for."""
        return cls.scores or {key: key for key in scores}

    def gathers(self) -> bool:
        """Whether one rank comes to hold the features of all images."""
        return False

    def batch_of(self, images: int | None, least: int = 1) -> int | None:
        """How many images a step takes, of so many that there are: those asked for, else `usual_batch`, or an eighth of
        the images where that is fewer, but `least`. A training of an epoch of one step learns next to nothing."""
        asked = getattr(self, "batch", None)
        if asked is not None or self.usual_batch is None:
            return asked
        return self.usual_batch if images is None else max(least, min(self.usual_batch, images // EPOCH_STEPS))

    def planned(self, images: int | None, ranks: int = 1) -> "Steps | None":
        """What it learns in, of so many images, on so many ranks; None where there are no such steps."""
        images = self.learnt_of(images)
        batch = self.batch_of(images)
        if batch is None:
            return None
        return Steps.of(batch, images, steps=getattr(self, "steps", None), epochs=getattr(self, "epochs", None))

    def learnt_of(self, images: int | None) -> int | None:
        """How many of so many images it learns from, but for the last one of a class; None where a list says which."""
        if images is None or getattr(self, "subset", None):
            return None
        return round(images * getattr(self, "share", 1.0))

    def refuse_unshared(self, ranks: int) -> None:
        """Raises InputError where the images of a step do not share out to so many ranks."""
        if not self.trains or self.batch % ranks == 0:
            return
        *most, last = [str(each) for each in range(1, self.batch + 1) if self.batch % each == 0]
        fix = f"use {', '.join(most)} or {last} ranks" if most else "use one rank"
        reason = f"{self.batch} images a step do not share out to {ranks} ranks"
        raise InputError.of(f"{self.name}.batch", self.batch, reason, fix)

    def check_images(self, data: Any) -> None:
        """Raises InputError where a setting needs what is not known of the images of `data`, a data set's config."""

    def check(self, backbone: str) -> None:
        """Raises InputError naming the first setting that cannot be, of any kind or for this backbone."""
        for name, value in vars(self).items():
            numbers = value if isinstance(value, list | tuple) else [value]
            self.refuse_unless(name, numbers or name in self.empty, "it is empty", "give one value or more")
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
        self.refuse_unless("share", 0 < self.share <= 1, "a share of the images", "give a number above 0, up to 1")
        super().check(backbone)
        if self.subset is not None:
            fix = "give a list of images"
            self.refuse_unless("subset", os.path.isfile(self.subset), "there is no such file", fix)
            self.refuse_unless("subset", self.share == 1, f"share={self.share:g} is there too", "leave one out")
            try:
                with open(self.subset, "rb") as lines:
                    self.refuse_unless("subset", any(map(bytes.strip, lines)), "it names no image", fix)
            except OSError as error:
                self.refuse_unless("subset", False, error.strerror or str(error), fix)


@dataclass
class SomeCells:
    """Settings of protocols that can have more than one number a channel; see `cells.py`. Transformers have no map."""

    pool: int = 0  # cells a side that the last map is averaged over; 0: the backbone's usual feature
    numbers: int = 0  # in place of `pool`: as many cells as give so many numbers an image at most

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless(
            "numbers", not (self.pool and self.numbers), f"pool={self.pool} is there too", "leave one out"
        )


@dataclass
class SomeTrials:
    """Settings of protocols that can search for some of their own, on images held out; see `subsets.parted`."""

    trials: int = 0  # drawn by the seed; the best learns from all images. 0: no search

    def check(self, backbone: str) -> None:
        super().check(backbone)
        usual = type(self)()
        for name in ("rate", "l2"):
            given = self.trials and getattr(self, name, None) != getattr(usual, name, None)
            self.refuse_unless(name, not given, f"trials={self.trials} search for it", "leave one out")
        for name in ("rate_range", "l2_range"):
            ends = getattr(self, name, None)
            if ends is not None:
                ordered = len(ends) == 2 and ends[0] < ends[1]
                self.refuse_unless(name, ordered, "no range", "give its two ends, the smaller first")
                unused = not self.trials and ends != getattr(usual, name)
                self.refuse_unless(name, not unused, "nothing is searched for", f"give {self.name}.trials=25, too")


def key_of(settings: Settings) -> dict[str, Any]:
    """Settings as kept work, and the identity of who is judged by them, depend on them: the same as before there were
    those that came `later`, where these are as they are by default."""
    usual = vars(type(settings)())
    return {name: value for name, value in vars(settings).items() if name not in settings.later or value != usual[name]}
