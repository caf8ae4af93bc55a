"""A picture of the clusters found: one row a cluster, a few of its images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from methods.data.dataset import BrokenImage, ImageDataset

CELL, GAP, MARGIN = 64, 3, 150  # pixels


def montage(
    dataset: ImageDataset, assignments: np.ndarray, *, seed: int, rows: int = 14, columns: int = 12
) -> Image.Image:
    """RGB picture of `rows` clusters drawn at random among those with at least two images.

    assignments: int64 [N], -1 where a sample has no cluster. Beside each row its size and, where there are labels, the
    commonest class with its share. The same seed draws the same picture.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(assignments[assignments >= 0])
    clusters = np.flatnonzero(sizes >= min(2, sizes.max(initial=0)))
    clusters = np.sort(rng.choice(clusters, size=min(rows, len(clusters)), replace=False))
    width, height = MARGIN + columns * (CELL + GAP), GAP + len(clusters) * (CELL + GAP)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for row, cluster in enumerate(clusters):
        top = GAP + row * (CELL + GAP)
        members = np.flatnonzero(assignments == cluster)
        for line, text in enumerate(_caption(dataset, cluster, members)):
            draw.text((6, top + 6 + 17 * line), text, fill="black", font_size=13)
        for column, sample in enumerate(rng.permutation(members)[:columns]):
            canvas.paste(cell(dataset, int(sample)), (MARGIN + column * (CELL + GAP), top))
    return canvas


def _caption(dataset: ImageDataset, cluster: int, members: np.ndarray) -> Sequence[str]:
    lines = [f"cluster {cluster}", f"{len(members)} images"]
    if dataset.labels is not None and dataset.classes is not None:
        counts = np.bincount(dataset.labels[members])
        lines.append(f"{counts.max() / len(members):.0%} {dataset.classes[counts.argmax()][:12]}")
    return lines


def cell(dataset: ImageDataset, sample: int) -> Image.Image:
    """A square of CELL pixels; grey where the image is broken."""
    try:
        image = dataset.image(sample).convert("RGB")
    except BrokenImage:
        return Image.new("RGB", (CELL, CELL), "lightgrey")
    return image.resize((CELL, CELL), Image.Resampling.NEAREST if max(image.size) < CELL else Image.Resampling.BILINEAR)
