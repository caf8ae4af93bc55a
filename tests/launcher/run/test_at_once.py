"""What waits is done several at once, what works one after the other; both in their order."""

import threading
import time

from launcher.run.at_once import THREADS, at_once


def test_what_waits_is_done_several_at_once():
    together = threading.Barrier(THREADS, timeout=60)

    def wait(number):
        time.sleep(0.01)
        if number:  # which alone says that they wait
            together.wait()
        return number, threading.get_ident()

    found = [*at_once(wait, range(1 + THREADS))]
    assert [number for number, _ in found] == [*range(1 + THREADS)]
    assert len({thread for _, thread in found[1:]}) == THREADS


def test_what_works_stays_in_its_thread():
    found = [*at_once(lambda number: (number, threading.get_ident()), range(100), 7)]
    assert found == [(number, threading.get_ident()) for number in range(100)]


def test_not_far_ahead_of_who_takes_them():
    begun = []
    found = at_once(lambda number: (begun.append(number), time.sleep(0.001)), range(1000))
    for _ in range(3):
        next(found)
    assert len(begun) < 100
    found.close()
