import numpy as np
import pytest
import torch

from methods.data.loader import Batch, Crops
from methods.data.prefetch import prefetched


def made(count, closed=None):
    """`count` batches of images and of crops in turn, each full of its number; `closed` gets a word at the end."""
    try:
        for number in range(count):
            images = torch.full((4, 3, 64, 64), number, dtype=torch.uint8)
            if number % 2:
                images = Crops((images[:, None],), torch.full((4, 1, 9), float(number)))
            if torch.cuda.is_available():
                images = images.pin_memory()
            yield Batch(images, torch.arange(4), {"label": torch.full((4,), number), "text": ["words"] * 4}, [])
    finally:
        if closed is not None:
            closed.append("closed")


def test_on_a_cpu_the_batches_are_passed_on_as_they_are():
    given = list(made(3))
    assert all(ours is theirs for ours, theirs in zip(prefetched(iter(given), torch.device("cpu")), given, strict=True))


def test_closing_ends_the_stream_below():
    closed = []
    stream = prefetched(made(10, closed), torch.device("cpu"))
    next(stream)
    stream.close()
    assert closed == ["closed"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_batches_come_in_order_with_their_images_there():
    device = torch.device("cuda")
    for number, batch in enumerate(prefetched(made(7), device)):
        images = batch.images if number % 2 == 0 else batch.images.pixels[0]
        assert images.device.type == "cuda" and batch.ids.device.type == batch.columns["label"].device.type == "cpu"
        assert batch.columns["text"] == ["words"] * 4
        for _ in range(20):  # a step that is still at work when the next batch is copied
            torch.ones(2000, 2000, device=device) @ torch.ones(2000, 2000, device=device)
        assert np.unique(images.cpu()).tolist() == [number]
    assert number == 6 and not list(prefetched(iter(()), device))
