"""A paper's table beside ours on a screen of 80 letters: no word of it is cut, and no column is empty."""

import dataclasses

from launcher.report import terminal
from launcher.report.screen import console

LONG = "supervised, 200 epochs of DeepCluster-v2"


def shown(table, capsys):
    rows = tuple(dataclasses.replace(row, series=LONG, at="2x32 + 2x16", value="2x160 + 4x96") for row in table.rows)
    terminal.show(dataclasses.replace(table, rows=rows), console(width=80))
    said = capsys.readouterr().out
    assert "…" not in said and max(map(len, said.splitlines())) <= 80
    for word in (*LONG.split(), "2x160", "2x16"):
        assert word in said
    return said


def test_before_anything_ran_there_is_no_column_of_what_it_took(tabled, capsys):
    said = shown(tabled.table(), capsys)
    assert "paper" in said and "ours" in said
    assert not any(name in said for name in ("difference", "steps", "minutes"))


def test_what_some_points_have_stays(tabled, capsys):
    tabled.done(tabled.submit()[0.01, 0], 40.0)
    said = shown(tabled.table(), capsys)
    assert all(name in said for name in ("difference", "steps", "40.0", "−10.0"))
