"""When a rank is slow, by made-up numbers: of each rank, the seconds of its own part of a step in one window."""

import math
import random

import pytest

from launcher.run.slow_ranks import IN_A_ROW, Change, Judge

NAN = math.nan


def looked(*windows: list[float]) -> list[tuple[int, int, bool]]:
    """(window, rank, whether it is slow now) of each change."""
    judge = Judge()
    return [(n, change.rank, change.slow) for n, window in enumerate(windows) for change in judge.look(window)]


@pytest.mark.parametrize("ranks", [2, 3, 4, 512])
def test_a_rank_20_percent_over_the_median_is_named_once_it_has_been_for_three_windows(ranks):
    usual = [0.1] * (ranks - 1)
    assert looked(*[[*usual, 0.121]] * 20) == [(IN_A_ROW - 1, ranks - 1, True)]
    assert looked(*[[*usual, 0.119]] * 20) == []


def test_a_fast_rank_makes_no_other_one_slow():
    assert looked(*[[0.1, 0.1, 0.1, 0.05]] * 20) == []


def test_all_ranks_of_a_slow_node_are_named():
    assert looked(*[[0.1] * 504 + [0.13] * 8] * 3) == [(2, rank, True) for rank in range(504, 512)]


def test_what_all_ranks_share_is_nobodys():
    assert looked(*[[0.1] * 4, [0.9] * 4, [0.1] * 4, [0.5] * 4]) == []


def test_a_rank_that_is_slow_now_and_then_is_not_named():
    slow, well = [0.1, 0.1, 0.5, 0.1], [0.1] * 4
    assert looked(*[slow, slow, well] * 20) == []


@pytest.mark.parametrize("ranks", [4, 64, 512])
def test_noise_names_nobody(ranks):
    draw = random.Random(ranks)
    assert looked(*[[draw.gauss(0.1, 0.006) for _ in range(ranks)] for _ in range(200)]) == []


def test_around_the_threshold_it_stays_named_until_it_is_well():
    above, between, well = ([0.1, 0.1, 0.1, own] for own in (0.125, 0.115, 0.105))
    held = [above] * 3 + [between, above, well, well, between, well] * 5
    assert looked(*held) == [(2, 3, True)]
    assert looked(*held, well, well, well, above, above, above) == [(2, 3, True), (34, 3, False), (38, 3, True)]


def test_it_is_told_how_slow_it_was():
    judge = Judge()
    for own in (0.14, 0.15):
        assert judge.look([0.1, 0.1, own]) == []
    assert judge.look([0.1, 0.1, 0.16]) == [Change(2, pytest.approx(1.5), slow=True)]


def test_of_a_rank_that_measured_nothing_nothing_is_said():
    assert looked([NAN, NAN], [0.1, NAN], [NAN, 0.1]) == []
    slow, silent = [0.1, 0.1, 0.2], [0.1, 0.1, NAN]
    assert looked(slow, silent, slow, silent, slow) == [(4, 2, True)]


def test_steps_of_microseconds_are_not_compared():
    assert looked(*[[0.0001, 0.0001, 0.0009]] * 10) == []
