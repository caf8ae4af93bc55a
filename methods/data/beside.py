"""What travels beside the images of a batch where a method asks for it by name, in the order of its rows. A row that
stands in for a broken image brings its own.

    label      int64 [B]: what the data set says of each image
    position   int64 [B]: of each row in the step's global batch, 0 to global_batch - 1, whatever the number of ranks
    text       a list of B str: all that the data set has in words of each image; several captions are its lines
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from methods.data.broken import PROBED
from methods.data.dataset import BrokenImage, ImageDataset
from methods.data.loader import Request
from methods.data.spec import COLUMNS, no_labels, without_labels, without_texts


def check(dataset: ImageDataset, columns: Collection[str], config: Any) -> None:
    """Raises InputError where `dataset`, made of `config`, lacks one of the `columns`, and ValueError for a
    name that is none of COLUMNS."""
    strange = sorted(set(columns) - set(COLUMNS))
    if strange:
        raise ValueError(f"columns={strange[0]!r}: there is no such column; choose from {', '.join(COLUMNS)}")
    if "label" in columns and dataset.labels is None:
        raise without_labels(config, no_labels(config) or "none were found beside its images")
    if "text" in columns:
        _check_texts(dataset, config)


def _check_texts(dataset: ImageDataset, config: Any) -> None:
    """One that lacks a few is no less captioned: they count as broken images."""
    if not hasattr(dataset, "text"):
        raise without_texts(config, "such a data set keeps none")
    tried = sorted({int(i) for i in np.linspace(0, len(dataset) - 1, PROBED)})
    reasons = []
    for index in tried:
        try:
            dataset.text(index)
            return
        except BrokenImage as error:
            reasons.append(str(error))
    raise without_texts(config, f"{len(tried)} images were tried, the first {reasons[0]}")


def request(
    dataset: ImageDataset, columns: Collection[str], ids: np.ndarray, positions: np.ndarray, epoch: int
) -> Request:
    """What to ask the loader for. ids, positions: int64 [B]. Texts are read where images are, in the workers."""
    made = {}
    if "label" in columns:
        made["label"] = dataset.labels[ids]
    if "position" in columns:
        made["position"] = positions
    return Request(ids, epoch, made, text="text" in columns)
