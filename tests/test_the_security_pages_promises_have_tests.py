"""docs/security.md promises nothing that no test holds."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "docs" / "security.md").read_text()
FILE = re.compile(r"`([\w/]*test_\w+\.py)`")


def promises() -> list[str]:
    """The rows of every table whose second column is of tests, and the paragraphs that begin with a promise."""
    tables = re.findall(r"^\| promised \| tests \|\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, flags=re.M)
    said = [paragraph for paragraph in TEXT.split("\n\n") if paragraph.startswith("Promised: ")]
    return [row for table in tables for row in table.splitlines()] + said


def test_each_names_tests_that_are_there():
    assert len(promises()) > 15
    for promise in promises():
        files = FILE.findall(promise)
        assert files, promise
        for name in files:
            assert re.search(r"^def test_", (TESTS / name).read_text(), re.M), name


def test_what_is_asked_first_has_a_section():
    wanted = {"Folders of others", "Between the ranks", "Data", "Nodes", "Privacy", "Where somebody gets in"}
    assert all(any(line.startswith(f"## {each}") for line in TEXT.splitlines()) for each in wanted)
    assert "NCCL" in TEXT and "gloo" in TEXT and TEXT.count("Not promised: ") >= 5
