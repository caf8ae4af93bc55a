"""From the steps as they were logged, a drill sees which were done twice, and by which start of the run."""

from launcher.drill.engine import Starts


def starts(*numbers, restored):
    return Starts([(number, 0.0) for number in numbers], restored)


def test_a_kill_between_checkpoints_costs_the_steps_since():
    found = starts(1, 2, 3, 4, 5, 4, 5, 6, restored={2: 3})
    assert found.lost == {2: 2}
    assert [found.generation_of(i) for i in range(8)] == [1, 1, 1, 1, 1, 2, 2, 2]


def test_a_save_in_time_costs_nothing():
    found = starts(1, 2, 3, 4, 5, 6, restored={2: 4})
    assert found.lost == {2: 0}
    assert [found.generation_of(i) for i in range(6)] == [1, 1, 1, 1, 2, 2]


def test_several_starts_and_one_that_did_no_step():
    # Saved at 2 and stopped; killed at 6 with 3 saved; killed at once; saved at 5 and stopped.
    found = starts(1, 2, 3, 4, 5, 6, 4, 5, 6, 7, restored={2: 2, 3: 3, 4: 3, 5: 5})
    assert found.lost == {2: 0, 3: 3, 4: 0, 5: 0}
    assert found.generation_of(2) == 2
    assert found.generation_of(6) in (3, 4)
    assert found.generation_of(9) == 5


def test_back_to_the_beginning():
    assert starts(1, 2, 1, 2, 3, restored={2: 0}).lost == {2: 2}


def test_a_run_that_nobody_disturbed():
    assert starts(1, 2, 3, restored={}).generation_of(2) == 1
