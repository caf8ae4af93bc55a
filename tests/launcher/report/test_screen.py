"""What stands in the name of a file, or in the message of a run, is shown and nothing else."""

import pytest

from launcher.report import screen
from launcher.verbs import status

ODD = ("x[/b].png", "[bold]no[/bold]", ":smile:", "[link=http://elsewhere]here[/link]", "[/]")


@pytest.mark.parametrize("text", ODD)
def test_neither_markup_nor_emoji_is_read_out_of_what_is_said(text, capsys):
    screen.console(width=80).print(text, soft_wrap=True)
    assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("@x", "'@x"),
        ("-x", "'-x"),
        (-1.5, -1.5),
        ("a=b", "a=b"),
        (None, None),
    ],
)
def test_no_cell_of_a_spreadsheet_is_a_formula(value, cell):
    assert status._cell(value) == cell
