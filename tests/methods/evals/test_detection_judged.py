"""Average precision of boxes that were written by hand: pycocotools run on its own, and VOC's by its formula."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as runs
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from launcher.runtime.dist import World
from methods.evals.detection.boxes import Boxes
from methods.evals.detection.judged import OVERLAPS, CocoPrecision, VocPrecision, average, scores_of

SIDE = 60
ALONE = World(0, 1, torch.device("cpu"))
# (image, class, x1, y1, x2, y2, difficult), and (image, class, x1, y1, x2, y2, score)
THERE = [
    (0, 0, 0, 0, 20, 20, 0), (0, 0, 30, 30, 50, 50, 0), (0, 1, 5, 30, 25, 55, 0), (1, 0, 10, 10, 30, 40, 0),
    (1, 1, 40, 0, 60, 20, 1), (2, 1, 0, 0, 30, 30, 0), (3, 2, 0, 0, 10, 10, 1),
]  # fmt: skip
FOUND = [
    (0, 0, 1, 0, 21, 20, 0.9), (0, 0, 0, 2, 20, 22, 0.8), (0, 0, 33, 33, 52, 52, 0.7), (0, 1, 5, 32, 25, 55, 0.95),
    (1, 0, 10, 10, 30, 28, 0.6), (1, 0, 40, 40, 60, 60, 0.65), (1, 1, 40, 2, 60, 20, 0.85), (1, 1, 0, 0, 9, 9, 0.99),
    (2, 1, 2, 2, 30, 31, 0.5), (4, 0, 0, 0, 9, 9, 0.75), (4, 1, 3, 3, 40, 40, 0.4), (3, 2, 0, 0, 10, 10, 0.3),
]  # fmt: skip


def drawn(boxes):
    """bool [n, SIDE, SIDE]: ellipses in the boxes, so that a mask is another thing than its box."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    found = []
    for left, top, right, bottom in boxes:
        across, down = (2 * columns - left - right) / (right - left), (2 * rows - top - bottom) / (bottom - top)
        found.append(across**2 + down**2 <= 1)
    return np.array(found).reshape(-1, SIDE, SIDE)


def gathered(table):
    """As the protocol adds them, an image at a time, not in order."""
    made = Boxes()
    for image in (4, 2, 0, 3, 1):
        rows = np.array([row for row in table if row[0] == image], float).reshape(-1, 7)
        made.add(image, rows[:, 2:6], rows[:, 1], rows[:, 6], drawn(rows[:, 2:6]))
    return made.collected(ALONE)


def theirs(kind, path):
    """pycocotools' own summary of the same, from a file as COCO has it."""

    def box(row):
        return [row[2], row[3], row[4] - row[2], row[5] - row[3]]

    def mask(row):
        packed = runs.encode(np.asfortranarray(drawn([row[2:6]])[0].astype(np.uint8)))
        return {**packed, "counts": packed["counts"].decode()}

    annotations = [
        {"id": n, "image_id": r[0], "category_id": r[1], "bbox": box(r), "iscrowd": r[6], "segmentation": mask(r)}
        for n, r in enumerate(THERE, 1)
    ]
    for each in annotations:
        each["area"] = each["bbox"][2] * each["bbox"][3]
    images = [{"id": n, "height": SIDE, "width": SIDE} for n in range(5)]
    whole = {"images": images, "annotations": annotations, "categories": [{"id": n, "name": str(n)} for n in range(3)]}
    (path / "instances.json").write_text(json.dumps(whole))
    with contextlib.redirect_stdout(io.StringIO()):
        there = COCO(str(path / "instances.json"))
        found = [{"image_id": r[0], "category_id": r[1], "score": r[6]} for r in FOUND]
        for row, one in zip(FOUND, found, strict=True):
            one |= {"bbox": box(row)} if kind == "bbox" else {"segmentation": mask(row)}
        judge = COCOeval(there, there.loadRes(found), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_coco_s_average_precision_is_that_of_pycocotools_on_its_own(kind, tmp_path, capsys):
    ours = CocoPrecision(gathered(THERE), gathered(FOUND), 3, kind)
    precision = np.stack([ours.of_class(number) for number in range(3)])
    judge = theirs(kind, tmp_path)
    expected = judge.eval["precision"][:, :, :, 0, -1].mean(1).T  # of all sizes, up to 100 boxes
    np.testing.assert_allclose(precision[:2], expected[:2], rtol=1e-12)
    assert np.isnan(precision[2]).all() and (expected[2] == -1).all()  # all there is of it is difficult
    found = scores_of(precision, "mask_")
    assert list(found) == ["mask_ap", "mask_ap50", "mask_ap75"]
    assert list(found.values()) == pytest.approx(judge.stats[:3].tolist(), rel=1e-12)
    assert 0 < found["mask_ap"] < found["mask_ap50"] < 1
    assert capsys.readouterr().out == ""


def by_hand(number, overlap):
    """(right, counted) of each box, from the highest score on, as the development kit goes through them."""
    taken, lines = set(), []
    for row in sorted((row for row in FOUND if row[1] == number), key=lambda row: -row[6]):
        best, nearest = 0.0, None
        for place, there in enumerate(THERE):
            if there[:2] != row[:2]:
                continue
            width = min(row[4], there[4]) - max(row[2], there[2])
            height = min(row[5], there[5]) - max(row[3], there[3])
            if width > 0 and height > 0:
                areas = [(each[4] - each[2]) * (each[5] - each[3]) for each in (row, there)]
                share = width * height / (sum(areas) - width * height)
                best, nearest = max((best, nearest), (share, place), key=lambda pair: pair[0])
        if nearest is not None and best > overlap:
            if THERE[nearest][6]:
                continue
            lines.append(nearest not in taken)
            taken.add(nearest)
        else:
            lines.append(False)
    return lines


@pytest.mark.parametrize("rule", ["voc07", "area"])
def test_voc_s_average_precision_is_its_formula(rule):
    ours = VocPrecision(gathered(THERE), gathered(FOUND), rule)
    values = []
    for number in range(3):
        objects = sum(row[1] == number and not row[6] for row in THERE)
        found = ours.of_class(number)
        if not objects:
            assert np.isnan(found).all()
            continue
        for overlap, value in zip(OVERLAPS, found, strict=True):
            lines = by_hand(number, overlap)
            points = [(sum(lines[: n + 1]) / objects, sum(lines[: n + 1]) / (n + 1)) for n in range(len(lines))]
            if rule == "voc07":
                at = [max([p for r, p in points if r >= tenth / 10 - 1e-9], default=0.0) for tenth in range(11)]
                expected = sum(at) / 11
            else:
                expected, reached = 0.0, 0.0
                for recall, _ in points:
                    expected += (recall - reached) * max(p for r, p in points if r >= recall)
                    reached = recall
            assert value == pytest.approx(expected, abs=1e-12)
            values.append(value)
    assert len(set(np.round(values, 6))) > 4


def test_an_average_in_numbers():
    right, counted = np.array([1, 1, 2, 2]), np.array([1, 2, 3, 4])
    assert average(right, counted, 4, "voc07") == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)  # recalls to 0.2, to 0.5
    assert average(right, counted, 4, "area") == pytest.approx(0.25 + 0.25 * 2 / 3)
    none = np.array([], int)
    assert average(none, none, 4, "voc07") == average(none, none, 4, "area") == 0
    assert np.isnan(average(none, none, 0, "area"))


def test_what_is_found_where_nothing_is_there_counts_against():
    there, right = gathered(THERE), [row for row in FOUND if row[0] != 4]
    for judge in (
        lambda found: CocoPrecision(there, found, 3, "bbox"),
        lambda found: VocPrecision(there, found, "voc07"),
    ):
        with_more, without = (judge(gathered(found)).of_class(0)[0] for found in (FOUND, right))
        assert with_more < without
    nothing = Boxes().collected(ALONE)
    for judge in (CocoPrecision(there, nothing, 3, "segm"), VocPrecision(there, nothing, "area")):
        assert judge.of_class(0).tolist() == [0] * 10
