import pytest
import torch

from launcher.errors import InputError
from methods.swav.queue import as_one_batch, make_queue


def queue_of(length=11, batch=4, ranks=1):
    return make_queue(length, global_batch=batch, world_size=ranks, views=2, features=3)


def batch(number, images=4):
    return torch.full((2, images, 3), float(number))


def test_its_length_is_rounded_down_to_whole_global_batches():
    queue = queue_of(3840 + 200, batch=256, ranks=4)
    for _ in range(15):
        assert not queue.full
        queue.put(batch(1, 64))
    assert queue.full
    assert as_one_batch(queue.newest_first()).shape == (2, 3840 // 4, 3)


def test_it_gives_the_newest_first_and_forgets_the_oldest():
    queue = queue_of(12)
    for number in range(1, 8):
        queue.put(batch(number))
        held = list(range(number, max(0, number - 3), -1))
        assert as_one_batch(queue.newest_first())[1, ::4, 0].tolist() == held


def test_it_keeps_no_gradient_and_nothing_that_changes_later():
    queue, embeddings = queue_of(), batch(1).requires_grad_()
    queue.put(embeddings * 2)
    rows = queue.newest_first()
    assert not rows.requires_grad and (rows == 2).all()
    queue.put(batch(5))
    assert (rows == 2).all()


def test_a_queue_that_goes_on_is_the_queue_that_was():
    one, other = queue_of(), queue_of()
    for number in (1, 2, 3):
        one.put(batch(number))
    other.parts(1, 0, 1)[0].load_state(one.parts(1, 0, 1)[0].state())
    for number in (4, 5):
        assert other.full == one.full and (other.newest_first() == one.newest_first()).all()
        one.put(batch(number))
        other.put(batch(number))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_its_parts_are_the_same_on_any_number_of_ranks(ranks):
    """Four ranks stop, and go on as one, two or four."""
    whole = torch.randn(5, 2, 8, 3, generator=torch.Generator().manual_seed(0))

    def filled(size, given):
        queues = [queue_of(16, batch=8, ranks=size) for _ in range(size)]
        for rows in given:
            for queue, part in zip(queues, rows.chunk(size, dim=1), strict=True):
                queue.put(part)
        return queues

    parts = {}
    for rank, queue in enumerate(filled(4, whole)):
        parts |= {number: part.state() for number, part in queue.parts(4, rank, 4).items()}
    assert sorted(parts) == [0, 1, 2, 3]
    for rank, (queue, expected) in enumerate(zip(filled(ranks, []), filled(ranks, whole), strict=True)):
        for number, part in queue.parts(4, rank, ranks).items():
            part.load_state(parts[number])
        assert queue.full
        assert (queue.newest_first() == expected.newest_first()).all()


def test_parts_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="count=3"):
        queue_of().parts(3, 0, 2)


def test_a_queue_shorter_than_a_batch_is_refused():
    with pytest.raises(InputError, match=r"method\.queue=255: it holds no batch of 256; use at least 256"):
        queue_of(255, batch=256)
