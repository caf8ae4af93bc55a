"""Average precision of boxes and masks, of each class: COCO's by pycocotools, and that of PASCAL VOC."""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from methods.evals.average_precision import POINTS
from methods.evals.detection.boxes import Boxes

OVERLAPS = np.linspace(0.5, 0.95, 10)  # that a box must have with an object to have found it
MOST = 100  # boxes of an image and a class that count, as COCO has it
WHOLE = [0.0, 1e10]  # square pixels: objects of any size


class CocoPrecision:
    """COCO's average precision (Lin et al. 2014), as its authors compute it. What is difficult is a crowd to it: a box
    that lies on it counts neither for nor against."""

    def __init__(self, there: Boxes, found: Boxes, classes: int, kind: str):
        """kind: "bbox" or "segm"."""
        self._kind = kind
        # One without an object is an image, too: boxes there are wrong.
        images = np.union1d(there.table[:, 0], found.table[:, 0]).astype(int).tolist()
        self._there = _as_coco(there, images, classes, crowds=True)
        self._found = _as_coco(found, images, classes, crowds=False)

    def of_class(self, number: int) -> np.ndarray:
        """float64 [10], at each of OVERLAPS, from 0 to 1; NaN where no object of the class is there."""
        with contextlib.redirect_stdout(io.StringIO()):
            judge = COCOeval(self._there, self._found, self._kind)
            judge.params.catIds, judge.params.maxDets = [number], [MOST]
            judge.params.areaRng, judge.params.areaRngLbl = [WHOLE], ["all"]
            judge.evaluate()
            judge.accumulate()
        precision = judge.eval["precision"].reshape(len(OVERLAPS), -1)
        return np.where((precision < 0).any(1), np.nan, precision.mean(1))


class VocPrecision:
    """PASCAL VOC's (Everingham et al. 2010, 4.2): boxes in order of their scores, each the object that it overlaps
    most if that is more than is asked; an object is found once. Difficult ones count neither for nor against."""

    def __init__(self, there: Boxes, found: Boxes, rule: str):
        """rule: "voc07" or "area", as in `average`."""
        self._there, self._found, self._rule = there.table, found.table, rule

    def of_class(self, number: int) -> np.ndarray:
        """As `CocoPrecision.of_class`."""
        there = self._there[self._there[:, 5] == number]
        found = self._found[self._found[:, 5] == number]
        found = found[np.argsort(-found[:, 6], kind="stable")]
        difficult, objects = there[:, 6] > 0, int((there[:, 6] == 0).sum())
        nearest, overlap = _nearest(there, found)
        return np.array([average(*_curve(nearest, overlap > o, difficult), objects, self._rule) for o in OVERLAPS])


def average(right: np.ndarray, counted: np.ndarray, objects: int, rule: str) -> float:
    """From 0 to 1; NaN without `objects`. right, counted: int [n], how many of the first boxes are right, and how many
    count. rule: "voc07", the mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or a higher one;
    "area", under the curve of that precision (VOC 2010 and later)."""
    if not objects:
        return float("nan")
    precision = np.append(right / np.maximum(counted, 1), 0.0)  # what is never found has none
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if rule == "area":
        return float((np.diff(right, prepend=0) / objects * best[:-1]).sum())
    # In whole numbers: 0.1 + 0.2 is more than 0.3.
    reached = [np.append((POINTS - 1) * right >= point * objects, True).argmax() for point in range(POINTS)]
    return float(best[reached].mean())


def scores_of(precision: np.ndarray, prefix: str = "") -> dict[str, float]:
    """`ap`, `ap50` and `ap75` from 0 to 1: means over the classes that are there. precision: [classes, 10]."""
    known = precision[~np.isnan(precision).any(1)]
    means = known.mean(0)
    found = {"ap": means.mean(), "ap50": means[0], "ap75": means[np.isclose(OVERLAPS, 0.75).argmax()]}
    return {prefix + key: float(value) for key, value in found.items()}


def _as_coco(boxes: Boxes, images: list[int], classes: int, *, crowds: bool) -> COCO:
    """pycocotools' object with these boxes as annotations. crowds: whether a value says that a box is difficult, or its
    score."""
    annotations: list[dict[str, Any]] = []
    for row, mask in zip(boxes.table.tolist(), boxes.masks, strict=True):
        image, left, top, right, bottom, label, value, _, height, width = row
        one = {"id": len(annotations) + 1, "image_id": int(image), "category_id": int(label)}
        one |= {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
        one |= {"iscrowd": int(value)} if crowds else {"score": value, "iscrowd": 0}
        if mask:
            one["segmentation"] = {"size": [int(height), int(width)], "counts": mask}
        annotations.append(one)
    sizes = [{"id": image, "height": 0, "width": 0} for image in images]  # masks bring their own
    made = COCO()
    made.dataset = {"images": sizes, "annotations": annotations, "categories": [{"id": n} for n in range(classes)]}
    with contextlib.redirect_stdout(io.StringIO()):
        made.createIndex()
    return made


def _nearest(there: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each box of `found`, the row in `there` of the object in its image that it overlaps most, and how much:
    intersection over union, 0 where there is none."""
    nearest, overlap = np.zeros(len(found), np.int64), np.zeros(len(found))
    for image in np.intersect1d(there[:, 0], found[:, 0]):
        objects, boxes = np.flatnonzero(there[:, 0] == image), np.flatnonzero(found[:, 0] == image)
        a, b = found[boxes][:, None, 1:5], there[objects][None, :, 1:5]
        sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0)
        common = sides.prod(-1)
        whole = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
        shares = common / whole
        nearest[boxes], overlap[boxes] = objects[shares.argmax(1)], shares.max(1)
    return nearest, overlap


def _curve(nearest: np.ndarray, hit: np.ndarray, difficult: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 [n] each: how many of the first boxes are right, and how many count."""
    right, counts = np.zeros(len(hit), bool), np.ones(len(hit), bool)
    if len(difficult):
        counts = ~(hit & difficult[nearest])
        sure = np.flatnonzero(hit & counts)
        _, first = np.unique(nearest[sure], return_index=True)
        right[sure[first]] = True
    return right.cumsum(), counts.cumsum()
