"""What is said of groups of similar features fits together."""

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


def test_groups_of_low_entropy_are_those_in_the_first_quarter_of_the_density(evaluated):
    found = evaluated.scores("protocol=groups", "groups.groups=100")["groups"]
    assert found["low"] == pytest.approx(sum(found["density"][:5]), abs=1e-3)
    assert 0 < found["low"] < 1
