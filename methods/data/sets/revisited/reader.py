"""Revisited Oxford and Paris: images that are searched, queries, and what is relevant to each."""

import os
from typing import Any

import numpy as np

from methods.data.dataset import Query
from methods.data.sets.listed import ListedImages, content_of, is_inside, refuse_unless
from methods.data.sets.revisited import ground_truth
from methods.data.sets.revisited.spec import IMAGES, OxfordData, ParisData

MOST_BYTES = 64 << 20  # of the ground truth
MOST_NUMBER = 2**53  # up to which a float64 holds each whole number
GRADES = ("easy", "hard", "junk")
SAYS = "it does not say {imlist, qimlist, gnd: [{bbx, easy, hard, junk}, ...]}"


class Landmarks(ListedImages):
    """RGB images: those that are searched, then those of the queries; the train split has none.

    Raises InputError where the ground truth is missing, does anything else than hold values, or says something else
    than the published one.
    """

    def __init__(self, config: OxfordData | ParisData, split: str):
        file = config.file
        database, queries = _told(file, config.laid)
        names = [f"{name}.jpg" for name in (*database, *(name for name, _ in queries))] if split == "test" else []
        root = os.path.join(config.root, IMAGES)
        super().__init__(root, names, [], (), max_pixels=config.max_pixels)
        self.labels = self.classes = None
        self.database = len(database) if split == "test" else 0
        graded = [truth for _, truth in queries] if split == "test" else []
        self.queries = tuple(Query(self.database + n, *truth) for n, truth in enumerate(graded))


def _told(file: str, laid: str) -> tuple[list[str], list[tuple[str, tuple]]]:
    """(names that are searched, (name, (box, easy, hard, junk)) of each query)."""
    content = content_of(file, MOST_BYTES, laid)
    try:
        said = ground_truth.read(content)
    except ValueError as error:
        refuse_unless(False, file, f"no ground truth: {error}", laid)
    refuse_unless(isinstance(said, dict) and {"imlist", "qimlist", "gnd"} <= said.keys(), file, SAYS, laid)
    lists = []
    for key in ("imlist", "qimlist"):
        found = said[key].tolist() if isinstance(said[key], np.ndarray) else said[key]
        refuse_unless(isinstance(found, list | tuple) and found and all(map(is_inside, found)), file, SAYS, laid)
        lists.append([*found])
    database, queries = lists
    truths = said["gnd"]
    refuse_unless(isinstance(truths, list | tuple) and len(truths) == len(queries), file, SAYS, laid)
    graded = []
    for name, truth in zip(queries, truths, strict=True):
        refuse_unless(isinstance(truth, dict) and {*GRADES} <= truth.keys(), file, SAYS, laid)
        places = [_places(truth[grade], len(database)) for grade in GRADES]
        box = _numbers(truth.get("bbx"))
        fits = box is None or len(box) == 4
        refuse_unless(fits and not any(each is None for each in places), file, f"{name}: {SAYS}", laid)
        graded.append((name, (None if box is None else tuple(box), *places)))
    return database, graded


def _places(value: Any, most: int) -> np.ndarray | None:
    """int64; None for what are no positions among `most` images."""
    numbers = _numbers(value)
    if numbers is None or any(each != int(each) or not 0 <= each < most for each in numbers):
        return None
    return np.array(numbers, np.int64)


def _numbers(value: Any) -> list[float] | None:
    """Finite numbers, of a list of them or an array of any shape; None for anything else."""
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if not isinstance(value, list | tuple) or not all(type(each) in (int, float) for each in value):
        return None
    return [*value] if all(abs(each) < MOST_NUMBER for each in value) else None  # nor is NaN


def read(config: OxfordData | ParisData, split: str) -> Landmarks:
    return Landmarks(config, split)
