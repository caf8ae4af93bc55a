"""python benchmarks/shards.py [--images 100000] [--turns 5] [--cold] [--folder DIR]        minutes.

Reading samples of a shard store in a random order beside reading them in the order in which they lie, from one process:
their bytes alone (`read`), and decoded (`image`). Both orders in turns over the same samples. Then what an index costs:
to make, to open and in memory; and what a sample of a permutation costs beside a slice of numpy's. The store is written
for this, with a different image a sample, and lies in the page cache: what is compared is our part of the way. --cold
drops it from there before each order: then tiny images, of which a disk reads a hundred ahead, are its worst case.
"""

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from methods.data.sampler import Permutation
from methods.data.shard_index import make, open_shards
from methods.data.shards import ImageShards

LIMIT = 2.0  # random / sequential
SIDE = 32  # pixels
BATCH = 256
STRETCH = 1000  # samples in one order before it is the other's turn


def write(folder, images, shards):
    """`images` JPEGs in `shards` tars."""
    rng, made = np.random.default_rng(0), 0
    for number, part in enumerate(np.array_split(np.arange(images), shards)):
        with tarfile.open(folder / f"shard-{number:06d}.tar", "w", format=tarfile.GNU_FORMAT) as archive:
            for sample in part:
                stream = io.BytesIO()
                pixels = rng.integers(0, 255, (4, 4, 3), np.uint8)
                Image.fromarray(pixels).resize((SIDE, SIDE)).save(stream, "JPEG")
                info = tarfile.TarInfo(f"n{number:08d}/n{number:08d}_{sample}.jpg")
                info.size = made = stream.tell()
                archive.addfile(info, io.BytesIO(stream.getvalue()))
    return made


def drop(folder):
    """Out of the page cache; the files are on the disk."""
    os.sync()
    for file in folder.glob("*.tar"):
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(name, function, folder, images, turns, *, cold):
    """Microseconds a sample in both orders, and their ratio."""
    rows = []
    for turn in range(turns + 1):
        random = Permutation(images, turn)(np.arange(images)).tolist()
        orders, taken = (range(images), random), [0.0, 0.0]
        # Side by side, so that what else the machine does hits both; from the disk one would read ahead for the other.
        stretch = images if cold else STRETCH
        for number, begin in enumerate(range(0, images, stretch)):
            for side in ((0, 1), (1, 0))[(turn + number) % 2]:
                if cold:
                    drop(folder)
                began = time.perf_counter()
                for sample in orders[side][begin : begin + stretch]:
                    function(sample)
                taken[side] += time.perf_counter() - began
        if turn:  # the first fills the page cache
            rows.append([seconds / images for seconds in taken])
    sequential, random = (1e6 * statistics.median(column) for column in zip(*rows, strict=True))
    ratios = [b / a for a, b in rows]
    print(f"{name:8} sequential {sequential:7.1f} us   random {random:7.1f} us   ", end="")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="from the disk, not from the page cache")
    parser.add_argument("--folder", type=Path, help="on the disk to read from, if not that of temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        size = write(folder, options.images, options.shards)
        print(f"{options.images:,} images of {SIDE} x {SIDE}, about {size} bytes, in {options.shards} tars")
        began = time.perf_counter()
        index, _ = make(folder)
        made = (time.perf_counter() - began) / options.images
        began = time.perf_counter()
        open_shards(folder)
        opened = time.perf_counter() - began
        held = sum(array.nbytes for array in index.arrays.values()) / options.images
        print(f"index: {1e6 * made:.1f} us an image to make, {1000 * opened:.1f} ms to open, {held:.1f} bytes an image")
        print(f"limit of the ratios: {LIMIT}")
        dataset = ImageShards(folder, "train")
        for name, function in (("read", dataset.read), ("image", dataset.image)):
            compare(name, function, folder, options.images, options.turns, cold=options.cold)
    order, steps = Permutation(10**8, 0), 200
    began = time.perf_counter()
    for step in range(steps):
        order(np.arange(step * BATCH, (step + 1) * BATCH))
    taken = (time.perf_counter() - began) / steps
    print(f"Permutation(10**8): {1e6 * taken:.0f} us for {BATCH} samples, {1e6 * taken / BATCH:.2f} us each")


if __name__ == "__main__":
    main()
