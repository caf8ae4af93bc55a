"""Batches on the device before they are asked for: the copy of one runs beside the step on the one before it."""

from collections.abc import Iterator

import torch

from methods.data.loader import Batch, Crops


def prefetched(stream: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches of `stream`, their images on `device`; ids and columns stay where they are, since trainers read them.

    On a GPU the next batch is copied, from pinned memory, on a stream of its own while the current one is worked on: at
    any time it holds the images of two batches. Elsewhere the batches are passed on as they are.
    """
    if device.type != "cuda":
        yield from stream
        return
    side = torch.cuda.Stream(device)
    ready = None
    for batch in stream:
        ahead = _copy(batch, device, side)
        if ready is not None:
            yield _take(*ready, device)
        ready = ahead
    if ready is not None:
        yield _take(*ready, device)


def _copy(batch: Batch, device: torch.device, side: torch.cuda.Stream) -> tuple[Batch, torch.cuda.Event]:
    with torch.cuda.stream(side):
        images = batch.images.to(device, non_blocking=True)
        return batch._replace(images=images), side.record_event()


def _take(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """The step's stream, not the host, waits for the copy; and its memory is free again only after the step."""
    step = torch.cuda.current_stream(device)
    step.wait_event(copied)
    for tensor in batch.images.pixels if isinstance(batch.images, Crops) else (batch.images,):
        tensor.record_stream(step)
    return batch
