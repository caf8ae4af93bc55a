"""The same for many files or runs, several at once: a shared file system, or a disk that has to write, would make each
wait for the one before."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 8

Item, Result = TypeVar("Item"), TypeVar("Result")
Show = Callable[[str, int, int], object]  # (what is done, of it so far, all of it), as report/bar.py has it


def at_once(function: Callable[[Item], Result], items: Iterable[Item], part: int = 1) -> Iterator[Result]:
    """`function` of each item, in their order and not far ahead of who takes them. part: how many a thread takes at
    once, where each is done in less time than it takes to hand it over."""
    items = iter(items)
    parts = iter(lambda: [*itertools.islice(items, part)], [])
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


def _each(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [*map(function, items)]
