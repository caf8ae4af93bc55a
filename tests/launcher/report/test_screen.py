"""What stands in the name of a file, or in the message of a run, is shown and nothing else."""

import pytest

from launcher import cli
from launcher.errors import harmless
from launcher.report import screen
from launcher.verbs import status

ODD = ("x[/b].png", "[bold]no[/bold]", ":smile:", "[link=http://elsewhere]here[/link]", "[/]")


@pytest.mark.parametrize("text", ODD)
def test_neither_markup_nor_emoji_is_read_out_of_what_is_said(text, capsys):
    screen.console(width=80).print(text, soft_wrap=True)
    assert capsys.readouterr().out == f"{text}\n"


COMMANDS = "\x1b]0;title\x07\x1b[2J\x9b2J\u202e"


@pytest.mark.parametrize(
    "words", [("status",), ("show",), ("report",), ("logs",), ("status", "--columns", "id,message")]
)
def test_nothing_that_a_run_says_is_a_command_to_the_terminal(words, ledgers, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run = ledgers.create("method=rotnet", "recipe=tiny")
    hostile = run.path.rename(run.path.with_name(f"x-{COMMANDS}"))
    run = type(run)(hostile)
    ledgers.start(run)
    ledgers.end(run, "failed", f"because {COMMANDS}")
    (hostile / "logs" / "rank0.log").write_text(f"line {COMMANDS}\n")
    where = [] if words[0] == "status" else [str(hostile)]
    with pytest.raises(SystemExit):
        cli.main([*words, *where, f"runs={ledgers.folder}"])
    said = "".join(capsys.readouterr())
    assert "?]0;title" in said
    assert not ({*COMMANDS} - {*"]0;title[2J"}) & {*said}


def test_colours_of_a_log_are_left_out_of_it():
    assert harmless("\x1b[1;32mgreen\x1b[0m\tä 中\n") == "green\tä 中\n"


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
        ("\x1b]0;x\x07\ud800", "?]0;x??"),
    ],
)
def test_no_cell_of_a_spreadsheet_is_a_formula(value, cell):
    assert status._cell(value) == cell
