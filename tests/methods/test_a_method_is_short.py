"""A method is read from top to bottom: its spec and trainer without the recipes have 150 lines at most.

The rule is that of `benchmarks/lines.py`: of spec.py and trainer.py alone, lines of code, without blanks, comments,
docstrings, and functions that return a Recipe. A file of its own for one idea, such as loss.py, does not count.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.lines import count
from launcher.spec import registry

MOST = 150
OLDER = {"deepercluster": 285, "dino": 198, "smog": 179}  # from before there was a bound: they grow no further


@pytest.mark.parametrize("method", registry.names())
def test_spec_and_trainer_without_recipes_are_short(method):
    trainer = find_spec(registry.method(method).trainer.partition(":")[0])
    _, without = count(Path(trainer.origin).parent)
    assert 0 < without <= OLDER.get(method, MOST)


def test_exceptions_are_methods_that_need_one():
    assert set(OLDER) <= set(registry.names()) and min(OLDER.values()) > MOST
