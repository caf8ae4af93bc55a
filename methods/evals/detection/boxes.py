"""Boxes of many images, as they are found and as they are there, and how they come to the first rank."""

from dataclasses import dataclass, field

import numpy as np
import torch
from pycocotools import mask as runs

from launcher.runtime.dist import World

COLUMNS = 10  # image, x1, y1, x2, y2, class, value, bytes of the mask, its height, its width


@dataclass
class Boxes:
    """Boxes with their class (int from 0 on), a value each: of what is found its score, of what is there 1 where it is
    difficult and 0 where it is not; and masks, or none. Of several images, by their numbers in the data set."""

    rows: list[np.ndarray] = field(default_factory=list)  # float64 [n, COLUMNS] each
    masks: list[bytes] = field(default_factory=list)  # run lengths as pycocotools writes them; empty: none

    def add(
        self, image: int, boxes: np.ndarray, labels: np.ndarray, values: np.ndarray, masks: np.ndarray | None = None
    ) -> None:
        """boxes: [n, 4], x1, y1, x2, y2; labels, values: [n]; masks: bool [n, H, W]."""
        rows = np.zeros((len(boxes), COLUMNS))
        rows[:, 0], rows[:, 1:5], rows[:, 5], rows[:, 6] = image, boxes, labels, values
        found = [b""] * len(boxes)
        if masks is not None and len(boxes):
            packed = np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))
            found = [each["counts"] for each in runs.encode(packed)]
            rows[:, 7], rows[:, 8:] = [len(each) for each in found], masks.shape[1:]
        self.rows.append(rows)
        self.masks += found

    def collected(self, world: World) -> "Boxes":
        """Those of all ranks, in order of the images, on rank 0; none elsewhere. Collective."""
        mine = np.concatenate([np.empty((0, COLUMNS)), *self.rows])
        text = torch.from_numpy(np.frombuffer(b"".join(self.masks), np.uint8).copy())
        rows, text = world.collect(torch.from_numpy(mine)), world.collect(text)
        if rows is None or text is None:
            return Boxes()
        ends = np.cumsum(rows[:, 7].numpy()).astype(np.int64)
        whole = text.numpy().tobytes()
        masks = [whole[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if len(rows) else []
        order = np.argsort(rows[:, 0].numpy(), kind="stable")
        return Boxes([rows.numpy()[order]], [masks[place] for place in order])

    @property
    def table(self) -> np.ndarray:
        """float64 [n, COLUMNS], of all images."""
        return np.concatenate([np.empty((0, COLUMNS)), *self.rows])
