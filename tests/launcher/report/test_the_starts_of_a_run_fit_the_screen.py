"""`sslrun report RUN` on 80 columns: the table of starts has every word whole, and where they were stands below it."""

import pytest

from launcher.report import terminal
from launcher.report.life import Life, PastStart
from launcher.report.screen import console

MANY = "n[1-63,65,70-120,130-140,150,152,154,156-170],gpu-rack[01-16]-node[001-128]"
HEADS = ["start", "because", "began", "waited", "worked", "steps", "lost", "ended"]


def start(number, began, where, ranks, *, through="", ended="node_failure"):
    cause = "node_failure" if through else "submitted"
    steps = {"first": 123_456_789, "last": 234_567_890} if number == 9 else {"first": 123_456, "last": 234_567}
    spent = {"waited": 5999.0, "worked": 86_400.0, "lost": 1234, "message": "", "why": ""}
    return PastStart(number, began, cause, where, ranks, ended=ended, through=through, **spent, **steps)


@pytest.fixture
def shown(capsys):
    """`shown(start, ...)`: (the lines of the table of starts, the lines below it)."""

    def show(*starts):
        summary = {"state": "failed", "step": 1, "steps": 2, "message": ""}
        terminal.show_run(Life("a-run", "runs/a-run", summary, starts, [], [], [], [], []), console(width=80))
        _, table, places = capsys.readouterr().out.split("\n\n")
        return table.splitlines(), places.splitlines()

    return show


def test_one_start(shown):
    table, places = shown(start(1, "2026-11-30 02:57:01", "localhost", 1, ended="done"))
    assert table[0].split() == HEADS
    assert table[2].split() == ["1", "submitted", "02:57", "99min", "24h00", "123,456–234,567", "1234", "done"]
    assert len(table) == 3 and places == ["Start 1: 2026-11-30, localhost, 1 rank."]


def test_three_starts_in_a_job_over_midnight_on_many_nodes(shown):
    table, places = shown(
        start(1, "2026-11-29 23:10:00", MANY, 2048),
        start(2, "2026-11-29 23:50:00", MANY, 2048, through="same job"),
        start(3, "2026-11-30 00:20:00", "n[1-4]", 32, through="queue"),
    )
    assert table[0].split() == HEADS and max(map(len, table)) <= 80
    for number, began in ((2, "23:50"), (3, "00:20")):
        (row,) = (line.split() for line in table if line.split()[0] == str(number))
        whole = ["node_failure", began, "99min", "24h00", "123,456–234,567", "1234", "node_failure"]
        assert row == [str(number), *whole]
    assert [line.strip() for line in (table[4], table[6])] == ["same job", "queue"]
    assert places == [
        f"Starts 1–2: 2026-11-29, {MANY}, 2,048 ranks.",
        "Start 3: 2026-11-30, n[1-4], 32 ranks.",
    ]


def test_what_is_wider_all_the_same_is_broken_and_not_cut(shown):
    table, places = shown(start(9, "2026-11-30 02:57:01", "", None))
    assert places == ["Start 9: 2026-11-30."] and not [line for line in table if "…" in line or len(line) > 80]
