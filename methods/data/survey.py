"""What the deep images of a folder hold: looked up once, when it is indexed."""

from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from methods.data.decoding import forgiving, look
from methods.data.depth import UNIT, DeepImage, Extremes, kind_of

LOOKED_AT = 1000  # files of a folder whose heads are read,
DECODED = 32  # and images of each kind that are decoded
SUFFIXES = (b".png", b".tif", b".tiff", b".pgm", b".pnm")  # of files that may be deep


def survey(count: int, name: Callable[[int], bytes], opened: Callable[[int], BinaryIO]) -> dict[str, list]:
    """{kind: [lowest, highest, whether all are whole numbers, images]} of the values in the deep images of a folder
    that do not say their range. name, opened: of image 0 to count - 1. Those that cannot be read are passed over."""
    seen: dict[str, Extremes] = {}

    def span_of(stream: BinaryIO) -> tuple[str, Extremes] | None:
        image = look(stream)
        if not isinstance(image, DeepImage) or image.ends is not None:
            return None
        enough = [seen.get(kind) for kind in (image.kind, image.kind + UNIT)]
        if sum(span.images for span in enough if span) >= DECODED:
            return None
        span = Extremes.of(image.colours(image.read()))
        return kind_of(image, span), span

    for position in sorted({int(i) for i in np.linspace(0, count - 1, LOOKED_AT)}) if count else ():
        if not name(position).lower().endswith(SUFFIXES):
            continue
        try:
            with opened(position) as stream:
                found = forgiving(stream, span_of)
        except Exception:  # whoever meets it says so
            continue
        if found:
            kind, span = found
            seen[kind] = seen[kind] | span if kind in seen else span
    return {kind: list(seen[kind]) for kind in sorted(seen)}
