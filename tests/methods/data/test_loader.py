import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from methods.augment.crops import train_view
from methods.augment.rng import view_rng
from methods.data.dataset import BrokenImage
from methods.data.loader import Request, batches


class Memory:
    """Images in memory; those whose index is in `broken` cannot be decoded."""

    channels, classes, labels = 3, None, None

    def __init__(self, broken=(), size=20):
        self._pixels = np.random.default_rng(0).integers(0, 256, (60, size, size, 3), np.uint8)
        self._broken = set(broken)

    def __len__(self):
        return len(self._pixels)

    def name_of(self, index):
        return f"{index}.png"

    def image(self, index):
        if index in self._broken:
            raise BrokenImage(self.name_of(index), "it is broken")
        return Image.fromarray(self._pixels[index])


def view(image, sample, epoch):
    return train_view(image, 12, view_rng(0, epoch, sample))


def request(ids, epoch=0):
    ids = np.asarray(ids, np.int64)
    return Request(ids, epoch, {"row": np.arange(len(ids)), "ten": ids * 10})


def epoch_of(dataset, workers, order, **options):
    requests = (request(ids, epoch=3) for ids in np.array_split(order, 7))
    return list(batches(dataset, view, requests, workers=workers, **options))


def test_pixels_depend_on_sample_and_epoch_and_not_on_workers_or_order():
    order = np.random.default_rng(1).permutation(60)
    pictures = []
    for workers, ids in ((0, order), (1, order), (2, order), (2, order[::-1])):
        made = epoch_of(Memory(), workers, ids)
        assert torch.cat([batch.ids for batch in made]).tolist() == ids.tolist(), "batches came out of order"
        assert all(batch.images.dtype == torch.uint8 and batch.ids.dtype == torch.int64 for batch in made)
        assert all(torch.equal(batch.columns["ten"], batch.ids * 10) and not batch.broken for batch in made)
        pictures.append({int(i): row for batch in made for i, row in zip(batch.ids, batch.images, strict=True)})
    assert pictures[0][5].shape == (3, 12, 12)
    for other in pictures[1:]:
        assert all(torch.equal(pictures[0][i], other[i]) for i in range(60))
    (again,) = batches(Memory(), view, [request([5], epoch=4)])
    assert not torch.equal(again.images[0], pictures[0][5]), "the epoch does not matter"


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_replaced_by_the_good_ones_in_turn(workers):
    (batch,) = batches(Memory({1, 2, 4, 6}), view, [request([0, 1, 2, 3, 4, 6])], workers=workers)
    assert batch.ids.tolist() == [0, 0, 3, 3, 0, 3]
    assert batch.columns["row"].tolist() == [0, 0, 3, 3, 0, 3] and torch.equal(batch.columns["ten"], batch.ids * 10)
    assert batch.broken == [(i, f"{i}.png: it is broken") for i in (1, 2, 4, 6)]
    (good,) = batches(Memory(), view, [request([0, 3])])
    assert torch.equal(batch.images, good.images[[0, 0, 1, 1, 0, 1]])


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_left_out_on_request(workers):
    requests = [request([0, 1, 2, 3]), request([1, 2]), request([3])]
    first, second, third = batches(Memory({1, 2}), view, requests, workers=workers, replace_broken=False)
    assert first.ids.tolist() == [0, 3] and first.columns["row"].tolist() == [0, 3] and first.images.shape[0] == 2
    assert second.images.shape == (0, 3, 12, 12) and second.ids.dtype == torch.int64 and len(second.broken) == 2
    assert third.ids.tolist() == [3] and third.broken == []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_a_single_good_image_is_an_error_with_names(workers):
    with pytest.raises(BrokenImage, match=r"all 2 images of a batch: 1\.png: it is broken, 2\.png: it is broken"):
        list(batches(Memory({1, 2}), view, [request([1, 2])], workers=workers))


def test_views_of_different_shapes_are_refused():
    sizes = {0: 12, 1: 14}
    with pytest.raises(ValueError, match=r"sample 1: its view is \(3, 14, 14\), those before it \(3, 12, 12\)"):
        list(batches(Memory(), lambda image, sample, _: train_view(image, sizes[sample], view_rng(0, 0, 0)),
                     [request([0, 1])]))  # fmt: skip


def test_the_global_random_stream_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(batches(Memory(), view, [request([0])], workers=1))
    assert torch.equal(torch.rand(1), expected)


def test_workers_ignore_the_signals_of_slurm_and_use_one_thread(threads):
    threads(2)
    parent = os.getpid()

    def spy(image, sample, epoch):
        assert os.getpid() != parent
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        return np.full((1, 1, 1), torch.get_num_threads(), np.uint8)

    made = list(batches(Memory(), spy, [request([0]), request([1])], workers=2))
    assert [int(batch.images) for batch in made] == [1, 1]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGTERM}, "the main process stayed deaf"


def test_a_killed_worker_is_an_error_and_not_a_hang():
    def dies(image, sample, epoch):
        if sample == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return view(image, sample, epoch)

    with pytest.raises(RuntimeError, match=r"DataLoader worker .*(killed by signal|exited unexpectedly|died)"):
        list(batches(Memory(), dies, [request([i]) for i in range(40)], workers=2))
    assert not multiprocessing.active_children()


def test_an_error_in_a_worker_is_raised_here_and_ends_the_workers():
    def fails(image, sample, epoch):
        raise ZeroDivisionError(f"sample {sample}")

    with pytest.raises(ZeroDivisionError, match="sample 7"):
        list(batches(Memory(), fails, [request([7])] * 9, workers=2))
    assert not multiprocessing.active_children()


def test_no_worker_outlives_its_iterator():
    running = batches(Memory(), view, (request([i % 60]) for i in range(10_000)), workers=2)
    next(running)
    assert len(multiprocessing.active_children()) == 2
    running.close()
    assert not multiprocessing.active_children()


PARENT = """
import os, sys, time
import numpy as np
from methods.data.loader import Request, batches
class Blank:
    channels = 1
    def image(self, index): return None
def view(image, sample, epoch):
    time.sleep(0.01)
    return np.frombuffer(np.int64(os.getpid()).tobytes(), np.uint8).reshape(1, 1, 8)
running = batches(Blank(), view, (Request(np.array([0]), 0, {}) for _ in range(10**9)), workers=2)
pids = {int.from_bytes(next(running).images.numpy().tobytes(), "little") for _ in range(4)}
print(*pids, flush=True)
if sys.argv[1] == "wait":
    time.sleep(3600)
"""


def run_parent(argument):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PARENT, argument]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow  # seconds: PyTorch's workers look for their parent every 5 s
def test_workers_end_when_their_parent_is_killed(until):
    parent = run_parent("wait")
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(map(alive, pids))
    parent.kill()
    until(lambda: not any(map(alive, pids)))


@pytest.mark.slow  # starts another Python
def test_a_program_that_ends_in_the_middle_of_an_epoch_ends_quietly_with_its_workers():
    parent = run_parent("exit")
    out, err = parent.communicate()
    assert parent.returncode == 0 and len(out.split()) == 2 and err == ""
    assert not any(alive(int(pid)) for pid in out.split())
