"""The same for many files or runs, several at once where they wait: for a shared file system, or for a disk that has to
write. What a local disk has at hand is done sooner one after the other, in half the time of eight threads."""

import collections
import itertools
import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 8

Item, Result = TypeVar("Item"), TypeVar("Result")
Show = Callable[[str, int, int], object]  # (what is done, of it so far, all of it), as report/bar.py has it


def at_once(function: Callable[[Item], Result], items: Iterable[Item], part: int = 1) -> Iterator[Result]:
    """`function` of each item, in their order and not far ahead of who takes them: in this thread until they wait,
    and then in THREADS. part: how many a thread takes at once, where each is done in less time
    than it takes to hand it over."""
    items = iter(items)
    parts = iter(lambda: [*itertools.islice(items, part)], [])
    for some in parts:
        before = _waits()
        done = _each(function, some)
        waited = _waits() - before
        yield from done
        if waited >= len(some):
            break
    with ThreadPoolExecutor(THREADS) as pool:
        begun = collections.deque(pool.submit(_each, function, some) for some in itertools.islice(parts, 2 * THREADS))
        while begun:
            done = begun.popleft().result()
            begun.extend(pool.submit(_each, function, some) for some in itertools.islice(parts, 1))
            yield from done


def shown(found: Iterable[Result], stage: str, of: int, show: Show | None, every: int = 64) -> Iterator[Result]:
    """`found`, of which there will be so many, while `show` is told how far it is."""
    for number, each in enumerate(found):
        if show and number % every == 0:
            show(stage, number, of)
        yield each


def _waits() -> int:
    """How often this thread has given up its core by itself; that others took it from it says nothing."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _each(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [*map(function, items)]
