"""From requests (which samples, in which epoch) to batches of pixels, in this process or in workers.

A batch is a function of its request alone: the number of workers changes when it is ready, never what is in it.
"""

import atexit
import functools
import multiprocessing.connection
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, get_worker_info

from methods.data.dataset import BrokenImage, ImageDataset
from methods.data.workers import LEFT_TO_MAIN, LastWords, begin, explained, shared, socket_folder

# (image, sample id, epoch) -> uint8 [C, H, W]; or, of several crops, a tuple: uint8 [V, C, S, S] of each resolution,
# then their draws, float32 [all V, P]. The same shapes for all samples.
View = Callable[[Image.Image, int, int], np.ndarray | tuple[np.ndarray, ...]]


class Request(NamedTuple):
    """One batch to make."""

    ids: np.ndarray  # int64 [B]: positions in the dataset
    epoch: int
    columns: dict[str, np.ndarray]  # int64 [B] each: what travels with the samples (labels, positions in a group, ...)
    text: bool = False  # whether the batch is to have a column "text": the words that the data set has of each image


@dataclass(frozen=True)
class Crops:
    """Several crops of each image, and what was drawn for their photometric stage (`methods.augment.stage`).

    The sample comes first, as in every tensor of a batch: rows are replaced, left out and shared among ranks alike, and
    a worker writes each image in one piece. Pixels lie as they were resized, channels last, whatever the shape says.
    """

    pixels: tuple[torch.Tensor, ...]  # uint8 [B, V, C, S, S] of each resolution
    draws: torch.Tensor  # float32 [B, all V, P], in the order of the resolutions; see `methods.augment.draws`

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, rows: torch.Tensor | slice) -> "Crops":
        """Some of the samples."""
        return Crops(tuple(each[rows] for each in self.pixels), self.draws[rows])

    def to(self, device: torch.device, non_blocking: bool = False) -> "Crops":
        """The pixels on `device`. The draws stay in host memory, where the stage reads them."""
        return replace(self, pixels=tuple(each.to(device, non_blocking=non_blocking) for each in self.pixels))

    def pin_memory(self) -> "Crops":
        return replace(self, pixels=tuple(each.pin_memory() for each in self.pixels))


class Batch(NamedTuple):
    """One batch made. Its rows are the request's, unless some images were broken."""

    images: torch.Tensor | Crops  # uint8 [B, C, H, W], or several crops of each
    ids: torch.Tensor  # int64 [B]
    # int64 [B] each; "text" is a list of B str. Words become tokens on the host, so that bytes in tensors would win
    # nothing: a list leaves a worker through its pipe, without padding, and pinning leaves its strings as they are.
    columns: dict[str, torch.Tensor | list[str]]
    broken: list[tuple[int, str]]  # (sample id, "file: reason") of each image that could not be decoded


def batches(
    dataset: ImageDataset,
    view: View,
    requests: Iterable[Request],
    *,
    workers: int = 0,
    pin_memory: bool = False,
    replace_broken: bool = True,
) -> Iterator[Batch]:
    """Yield the batch of each request, in order. Workers run ahead of what is yielded by two requests each.

    A broken image's row becomes a copy of a good row of its batch, id and columns included (the good rows in turn), so
    that batches keep their size; with replace_broken=False the row is left out, and `ids` tells what is there.

    Workers are forked here and end with the iterator: exhaust it or `close()` it. Raises BrokenImage where nothing of a
    batch can be decoded and rows are to be replaced, RuntimeError where a worker died, InputError or RunFailed where it
    lacked room in shared memory, and what `dataset` and `view` raise.
    """
    words, sockets = (LastWords(), socket_folder()) if workers else (None, None)
    loader = DataLoader(
        _Fetch(dataset, view, drop=not replace_broken),
        sampler=requests,
        batch_size=None,  # a request is a batch already
        collate_fn=lambda batch: batch,
        num_workers=workers,
        pin_memory=pin_memory and torch.cuda.is_available(),
        worker_init_fn=(lambda _: begin(words, sockets)) if workers else None,
        # Forked: nothing is pickled, and no worker imports torch again, which would cost each seconds an epoch.
        multiprocessing_context="fork" if workers else None,
        # Of its own: a loader draws a seed, and must not move the global stream that the model's dropout reads.
        generator=torch.Generator(),
    )
    # Blocked until `begin` ignores them, so that no signal finds a worker between the two.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_MAIN if workers else ())
    try:
        iterator = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    processes = list(iterator._workers) if workers else []
    at_exit = functools.partial(_kill_at_exit, processes)
    atexit.register(at_exit)
    try:
        for batch in iterator:
            if replace_broken and batch.broken and not len(batch.ids):
                names = ", ".join(reason for _, reason in batch.broken[:3])
                raise BrokenImage(f"all {len(batch.broken)} images of a batch", names)
            yield batch
    except Exception as error:
        if not workers:
            raise
        said: Exception = error
        # A batch's memory is fetched from the worker that made it: its death may first show as a broken connection.
        if isinstance(error, OSError | EOFError) and _any_dead(processes):
            said = RuntimeError("DataLoader worker died while it handed over a batch")
        if (said := explained(said, words)) is error:
            raise
        raise said from error
    finally:
        try:
            if workers:  # waits for the batches being made; by name, since an exception's traceback keeps it from `del`
                iterator._shutdown_workers()
        finally:
            _kill(processes)  # any that hangs in a read
            atexit.unregister(at_exit)
            if words:
                words.close()


class _Fetch(Dataset):
    def __init__(self, dataset: ImageDataset, view: View, *, drop: bool):
        self._dataset, self._view, self._drop = dataset, view, drop

    def __getitem__(self, request: Request) -> Batch:
        rows = _Rows(len(request.ids))
        good, bad, broken, texts = [], [], [], {}
        for row, sample in enumerate(request.ids.tolist()):
            try:
                image = self._dataset.image(sample)
                if request.text:
                    texts[row] = self._dataset.text(sample)
            except BrokenImage as error:
                bad.append(row)
                broken.append((sample, str(error)))
                continue
            rows.put(row, self._view(image, sample, request.epoch), sample)
            good.append(row)
        if not good:
            return self._empty(request, broken)
        kept = np.arange(len(request.ids))
        if bad and self._drop:
            kept = np.array(good)
        elif bad:
            kept[bad] = np.resize(good, len(bad))  # repeats `good` as often as it takes
        return _batch(rows.images(kept if bad else None), request, kept, broken, texts)

    def _empty(self, request: Request, broken: list[tuple[int, str]]) -> Batch:
        """No rows, but the shapes that views have: seen on a blank image."""
        blank = Image.new("L" if self._dataset.channels == 1 else "RGB", (256, 256))
        none, rows = np.empty(0, np.int64), _Rows(1)
        rows.put(0, self._view(blank, 0, request.epoch), 0)
        return _batch(rows.images(none), request, none, broken, {})


class _Rows:
    """The arrays of a batch, row by row."""

    def __init__(self, count: int):
        self._count, self._several = count, False
        self._tensors: list[torch.Tensor] = []
        self._arrays: list[np.ndarray] = []  # the same memory

    def put(self, row: int, view: np.ndarray | tuple[np.ndarray, ...], sample: int) -> None:
        self._several = isinstance(view, tuple)
        parts = view if self._several else (view,)
        if not self._arrays:
            self._tensors = [_allocate(self._count, part) for part in parts]
            self._arrays = [tensor.numpy() for tensor in self._tensors]
        for array, part in zip(self._arrays, parts, strict=True):
            if part.shape != array.shape[1:]:
                # Said here, because numpy would broadcast a grey image into a coloured batch.
                raise ValueError(f"sample {sample}: its view is {part.shape}, those before it {array.shape[1:]}")
            array[row] = part

    def images(self, kept: np.ndarray | None) -> torch.Tensor | Crops:
        """All rows, or those `kept`."""
        tensors = self._tensors if kept is None else [tensor[torch.from_numpy(kept)] for tensor in self._tensors]
        return Crops(tuple(tensors[:-1]), tensors[-1]) if self._several else tensors[0]


def _allocate(count: int, part: np.ndarray) -> torch.Tensor:
    """Rows that lie in memory as `part` does; in a worker, where the training process will find them, not copied."""
    like = np.empty_like(part)
    strides = [part.size, *(stride // like.itemsize for stride in like.strides)]
    flat = torch.from_numpy(np.empty(0, part.dtype))
    if get_worker_info() is None:
        flat = torch.empty(count * part.size, dtype=flat.dtype)
    else:
        flat = shared(flat, count * part.size)
    return flat.as_strided((count, *part.shape), strides)


def _batch(
    images: torch.Tensor | Crops,
    request: Request,
    rows: np.ndarray,
    broken: list[tuple[int, str]],
    texts: dict[int, str],
) -> Batch:
    columns = {name: torch.from_numpy(column[rows]) for name, column in request.columns.items()}
    if request.text:
        columns["text"] = [texts[row] for row in rows.tolist()]
    return Batch(images, torch.from_numpy(request.ids[rows]), columns, broken)


def _any_dead(processes: list) -> bool:
    return bool(multiprocessing.connection.wait([each.sentinel for each in processes], timeout=1))


def _kill(processes: list) -> None:
    for process in processes:
        if process.is_alive():
            process.kill()


def _kill_at_exit(processes: list) -> None:
    """End workers whose iterator nobody closed. They ignore the SIGTERM after which multiprocessing waits for ever."""
    if processes:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would raise that a worker was killed
    _kill(processes)
