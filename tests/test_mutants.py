"""The table of planted faults fits the tree: each has one place, changes the code there, and names tests that exist.

`make mutants` plants them.
"""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("mutants", Path(__file__).with_name("mutants.py"))
mutants = importlib.util.module_from_spec(_spec)
sys.modules["mutants"] = mutants  # where its dataclasses are looked for
_spec.loader.exec_module(mutants)

TABLE = mutants.table()
ROOMS = {
    "launcher/runtime", "launcher/kmeans", "launcher/report", "methods/dino", "methods/swav", "methods/smog",
    "methods/deepercluster", "methods/rotnet", "methods/data", "methods/augment", "methods/evals",
}  # fmt: skip


def test_there_are_at_least_thirty_and_some_in_every_room():
    assert len(TABLE) >= 30
    assert {str(Path(mutant.file).parent) for mutant in TABLE} >= ROOMS


def test_each_is_another_fault_of_its_own_name():
    assert len({mutant.name for mutant in TABLE}) == len(TABLE)
    assert len({(mutant.file, mutant.before, mutant.after) for mutant in TABLE}) == len(TABLE)
    for mutant in TABLE:
        assert set(mutant.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-"), mutant.name
        assert mutant.breaks.endswith(".") and len(mutant.breaks) > 20, mutant.name


@pytest.mark.parametrize("mutant", TABLE, ids=lambda mutant: mutant.name)
def test_it_changes_what_one_place_of_its_file_means_and_still_compiles(mutant):
    text = (mutants.ROOT / mutant.file).read_text()
    changed = mutant.planted(text)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))


@pytest.mark.parametrize("mutant", TABLE, ids=lambda mutant: mutant.name)
def test_the_tests_that_ought_to_see_it_exist(mutant):
    assert mutant.tests
    for test in mutant.tests:
        assert (mutants.ROOT / test).is_file() and Path(test).name.startswith("test_"), test


def test_a_text_without_a_place_or_with_two_is_one_line():
    mutant = mutants.Mutant("name", "It breaks.", "some/file.py", "a + b", "a - b", ())
    assert mutant.planted("x = a + b\n") == "x = a - b\n"
    for text, times in (("x = a\n", 0), ("a + b\na + b\n", 2)):
        with pytest.raises(ValueError, match=f"^name: its text occurs {times} times in some/file.py"):
            mutant.planted(text)


def test_a_name_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        mutants.chosen(TABLE, [TABLE[0].name, "no-such-fault"])
    assert refused.value.code == 2
    assert capsys.readouterr().err == "mutants: no-such-fault: no such fault; --list tells which there are\n"


@pytest.mark.parametrize(
    "said, first",
    [
        (
            "FAILED tests/a.py::test_x[2 of 4] - AssertionError: it\nFAILED tests/a.py::test_y",
            "tests/a.py::test_x[2 of 4]",
        ),
        ("SKIPPED [1] tests/a.py:3: no\nERROR tests/a.py::test_z - RuntimeError: - - -", "tests/a.py::test_z"),
        ("12 passed in 3 s", None),
    ],
)
def test_the_first_test_that_failed_is_read_from_what_pytest_said(said, first):
    found = mutants.FAILED.search(said)
    assert (found and found["test"]) == first
