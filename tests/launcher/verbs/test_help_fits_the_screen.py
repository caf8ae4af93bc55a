"""What `--help` says is laid out for the terminal that it is read on."""

import pytest

from launcher import cli
from launcher.spec import registry


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("verb", [None, *cli.VERBS])
def test_no_line_is_wider_than_the_terminal(verb, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        cli._dispatch([*filter(None, [verb]), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines and max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [40, 80, 140])
def test_help_leaves_nothing_out(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        cli._dispatch(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for name in registry.names():
        assert f"{name} {registry.summary(name)}" in said
    for command, what in cli.EXAMPLES.items():
        assert f"{command} {what}" in said
    assert all(verb in said for verb in cli.VERBS)
