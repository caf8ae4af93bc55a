"""Its terminal closes, its reader goes, its disk is full, clocks go back, files cannot be read: the run ends in the
state of its undisturbed twin. By hand it lasts half an hour (benchmarks/disturbed.py)."""

import pytest

from benchmarks import disturbed

pytestmark = [pytest.mark.fault, pytest.mark.slow]


def test_it_ends_in_the_same_state(tmp_path):
    try:
        expected, found = disturbed.main(tmp_path, seconds=30)
    except PermissionError as error:
        pytest.skip(str(error))
    assert found == expected
