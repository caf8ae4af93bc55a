"""Features of whole images, in whatever size a protocol wants them, kept as they are made."""

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import pad

from launcher.errors import InputError
from launcher.runtime.preempt import Stopped
from launcher.runtime.store import Store
from methods.backbones.spec import BACKBONES, GREY_MEAN, GREY_STD, RGB_MEAN, RGB_STD
from methods.data.dataset import BrokenImage, ImageDataset
from methods.engine.features import refuse_unless_finite
from methods.evals.subject import Subject

KEPT = "described"  # of the items in the store
THREADS, AHEAD = 4, 16  # that decode images, and how many images they are ahead
LARGEST = 512  # images in a file: a stop waits for it


def described(
    subject: Subject,
    dataset: ImageDataset,
    pixels: Callable[[int], torch.Tensor],
    encode: Callable[[torch.Tensor], torch.Tensor],
    *,
    work: str,
    key: object,
    width: int,
    batch: int,
    spare: Collection[int] = (),
) -> np.ndarray | None:
    """What `encode` makes of all images of `dataset`, float64 [n, d], on rank 0; None elsewhere.

    pixels(i): float32 [C, H, W], of one size in a batch. encode: [B, C, H, W] on the device -> [B, d]. work: of
    `subject.WORKS`, the name under which it is kept; key: what it depends on beside the weights; width: about d; batch:
    images at once. spare: images that may be left out where they are broken; their rows are no numbers. The ranks share
    the images that no earlier start kept. Collective; raises Stopped, BrokenImage, Diverged where features are not
    finite, and InputError where more are broken than the data set's `max_broken`.
    """
    job, world = subject.job, subject.job.world
    with subject.keeping(work, key, needed=4 * len(dataset) * width) as store:
        mine: dict[int, torch.Tensor] = {}
        for first, last, kept in subject.restored(store, KEPT):
            mine |= zip(range(first, last), kept["features"], strict=True)
        done = {number for part in world.gather([*mine]) for number in part}
        todo = [number for number in range(len(dataset)) if number not in done]
        store.figures |= {"images": len(dataset), "restored": len(done)}
        first, last = (len(todo) * rank // world.size for rank in (world.rank, world.rank + 1))
        share, turns = todo[first:last], -(-max(world.gather(last - first)) // batch)
        batches = [share[start : start + batch] for start in range(0, len(share), batch)]
        unkept: list[int] = []
        broken: dict[int, str] = {}
        try:
            with ThreadPoolExecutor(THREADS) as pool, job.autocast(), torch.no_grad():
                decoded = _ahead(pool, pixels, share)
                for turn in range(turns):
                    job.safe_point(work, turn, turns)
                    numbers = batches[turn] if turn < len(batches) else []
                    if not numbers:
                        continue
                    images = dict(zip(numbers, itertools.islice(decoded, len(numbers)), strict=True))
                    for number, image in images.items():
                        if isinstance(image, BrokenImage):
                            if number not in spare:
                                raise image
                            broken[number] = str(image)
                    read = {number: image for number, image in images.items() if number not in broken}
                    if read:
                        found = encode(torch.stack([*read.values()]).to(world.device))
                        mine |= zip(read, found.float().cpu(), strict=True)
                    unkept += read
                    if store.due() or len(unkept) >= LARGEST:
                        _keep(store, unkept, mine)
                        unkept = []
            job.safe_point(work, turns, turns)
        except Stopped:
            _keep(store, unkept, mine)
            raise
        _keep(store, unkept, mine)
    _refuse_too_many(subject, dataset, [line for part in world.gather(sorted(broken.values())) for line in part], work)
    numbers = sorted(mine)
    rows = torch.stack([mine[number] for number in numbers]) if numbers else None
    wide = max(world.gather(0 if rows is None else rows.shape[1]))
    rows = torch.empty(0, wide) if rows is None else rows
    refuse_unless_finite(job, rows, work)
    rows, ids = world.collect(rows), world.collect(torch.tensor(numbers, dtype=torch.int64))
    if not world.is_main:
        return None
    whole = np.full((len(dataset), wide), np.nan)
    whole[ids.numpy()] = rows.numpy()
    return whole


def _refuse_too_many(subject: Subject, dataset: ImageDataset, broken: list[str], work: str) -> None:
    """Collective: `broken` are the reasons of all ranks."""
    job, given = subject.job, subject.job.spec.eval_data or subject.job.spec.data
    if not broken:
        return
    said = f"{len(broken)} of {len(dataset)} images cannot be read, the first: {broken[0]}"
    if len(broken) > given.max_broken * len(dataset):
        raise InputError.of("eval_data.max_broken", given.max_broken, said, "mend them, or allow a larger share")
    job.notice(f"{work}: {said}; these are left out")


def normalised(image: Image.Image) -> torch.Tensor:
    """float32 [C, H, W], as a backbone takes colours that are floats."""
    pixels = np.array(image)
    planes = torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()).float() / 255
    mean, std = ((GREY_MEAN,), (GREY_STD,)) if len(planes) == 1 else (RGB_MEAN, RGB_STD)
    return (planes - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def whole_patches(images: torch.Tensor, backbone: str) -> torch.Tensor:
    """[B, C, H, W] without what fills no patch of a transformer, at the right and the bottom, as the convolution of the
    published one leaves it out; padded by zeros where an image is smaller than the network takes."""
    least, patch = BACKBONES[backbone].smallest, BACKBONES[backbone].patch
    height, width = images.shape[2:]
    images = pad(images, (0, max(0, least - width), 0, max(0, least - height)))
    if not patch:
        return images
    height, width = (side // patch * patch for side in images.shape[2:])
    return images[:, :, :height, :width]


def _ahead(
    pool: ThreadPoolExecutor, pixels: Callable[[int], torch.Tensor], numbers: list[int]
) -> Iterator[torch.Tensor | BrokenImage]:
    """What `pixels` gives for each of `numbers`, in order, of which some are always worked on."""

    def read(number: int) -> torch.Tensor | BrokenImage:
        try:
            return pixels(number)
        except BrokenImage as error:
            return error

    waiting = deque(pool.submit(read, number) for number in numbers[:AHEAD])
    for position in range(len(numbers)):
        yield waiting.popleft().result()
        if position + AHEAD < len(numbers):
            waiting.append(pool.submit(read, numbers[position + AHEAD]))


def _keep(store: Store, numbers: list[int], found: dict[int, torch.Tensor]) -> None:
    """A file for each run of neighbours among `numbers`, which rise."""
    for first, last in _runs(numbers):
        rows = torch.stack([found[number] for number in range(first, last)])
        store.keep(KEPT, first, last, {"features": rows}, {})
    store.wait()


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """[first, last) of each.

    >>> [*_runs([1, 2, 3, 7, 8])]
    [(1, 4), (7, 9)]
    """
    first = last = None
    for number in numbers:
        if number != last:
            if first is not None:
                yield first, last
            first = number
        last = number + 1
    if first is not None:
        yield first, last
