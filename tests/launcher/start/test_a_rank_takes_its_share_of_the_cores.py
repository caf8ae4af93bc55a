"""Of a machine's cores, each rank that is launched here takes its share, or fewer where its shell asks for fewer."""

import os

import pytest

from launcher import local


@pytest.mark.parametrize(
    ("ranks", "asked", "threads"),
    [(1, None, 8), (2, None, 4), (3, None, 2), (9, None, 1), (2, "3", 3), (2, "77", 4), (2, "3,1", 3), (2, "many", 4)],
)
def test_its_threads(monkeypatch, ranks, asked, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS")
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert local._threads(ranks) == threads
