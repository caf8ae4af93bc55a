"""Of a machine's cores, each rank that is launched here takes its share, or fewer where SSLRUN_THREADS says so."""

import os

import pytest

from launcher.start import local


@pytest.mark.parametrize(
    ("ranks", "asked", "threads"),
    [(1, None, 8), (2, None, 4), (3, None, 2), (9, None, 1), (2, "3", 3), (2, "77", 4), (2, "many", 4), (2, "0", 4)],
)
def test_its_threads(monkeypatch, ranks, asked, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("SSLRUN_THREADS")
    if asked:
        monkeypatch.setenv("SSLRUN_THREADS", asked)
    assert local._threads(ranks) == threads
