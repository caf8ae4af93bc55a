import itertools

import numpy as np

from methods.augment.rng import view_rng


def test_a_stream_depends_on_each_argument_and_on_nothing_else():
    places = list(itertools.product((0, 1, 2), repeat=4))
    draws = {place: tuple(view_rng(*place).integers(0, 2**63, 4)) for place in places}
    assert len(set(draws.values())) == len(places)
    np.random.seed(1)
    assert tuple(view_rng(2, 1, 0, 2).integers(0, 2**63, 4)) == draws[2, 1, 0, 2]


def test_streams_do_not_overlap():
    """10,000 words of neighbouring streams: a shared counter block would show as a repeated word."""
    words = np.concatenate([view_rng(0, 0, sample, view).bit_generator.random_raw(2500)
                            for sample in (0, 1) for view in (0, 1)])  # fmt: skip
    assert len(np.unique(words)) == len(words)


def test_streams_are_the_documented_philox():
    ours = view_rng(7, 3, 2**40, 1).random(5)
    counter = np.array([0, 0, 2**40, 1], np.uint64)
    assert np.array_equal(ours, np.random.Generator(np.random.Philox(key=7 | 3 << 64, counter=counter)).random(5))


def test_draws_are_pinned_so_that_old_runs_resume_on_new_code():
    assert view_rng(0, 1, 2, 3).bit_generator.random_raw(2).tolist() == [9033711925744510266, 13357366302444151547]
