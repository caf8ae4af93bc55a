"""What a file of Annotations/ says of an image's objects."""

from xml.etree import ElementTree

import numpy as np

from methods.data.sets.voc.spec import CLASSES

LARGEST = 100_000  # pixels of a coordinate


class WrongBoxes(ValueError):
    """A file that tells no boxes; why."""


def boxes_of(text: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(float32 [n, 4], x1, y1, x2, y2; int64 [n], positions in CLASSES; bool [n], which are difficult).

    A file counts pixels from 1, and the last ones belong to the box (development kit of VOC 2007, section 8.1); here
    coordinates are those of borders, from 0, so that x2 - x1 is the number of columns. Parts of persons (`part`) are
    left out. Raises WrongBoxes.
    """
    if b"<!" in text or b"\0" in text:  # no entities, in UTF-16 neither: by them a file grows, or names other files
        raise WrongBoxes("it has a declaration, and those of the data set have none")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise WrongBoxes(f"it is no XML ({error})") from None
    boxes, labels, difficult = [], [], []
    for each in root.iterfind("object"):
        name = (each.findtext("name") or "").strip()
        if name not in CLASSES:
            raise WrongBoxes(f"{name[:40]!r} is none of the classes")
        labels.append(CLASSES.index(name))
        difficult.append((each.findtext("difficult") or "0").strip() == "1")
        boxes.append([_number(each, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")])
        if not (boxes[-1][0] <= boxes[-1][2] and boxes[-1][1] <= boxes[-1][3]):
            raise WrongBoxes(f"the {name} ends before it begins")
    found = np.array(boxes, np.float32).reshape(-1, 4) - np.array([1, 1, 0, 0], np.float32)
    return found, np.array(labels, np.int64), np.array(difficult, bool)


def _number(each: ElementTree.Element, place: str) -> float:
    text = each.findtext(place)
    try:
        value = float(text or "")  # some of 2012 have decimals
    except ValueError:
        value = -1.0
    if not 0 <= value <= LARGEST:
        raise WrongBoxes(f"{place} is {(text or '').strip()[:40]!r}, no number of pixels")
    return value
