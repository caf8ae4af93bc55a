"""Between its choice and rank 0's use of it pass seconds: no connection of somebody else is given that port."""

import socket
from pathlib import Path

import pytest

from launcher.start import ranks


@pytest.fixture
def connections(tmp_path, monkeypatch):
    """`connections("20000\t60999")`: what the kernel says of the ports that it gives to them."""

    def said(text: str) -> None:
        (tmp_path / "range").write_text(text)
        monkeypatch.setattr(ranks, "EPHEMERAL", str(tmp_path / "range"))

    return said


def test_it_lies_below_those_of_connections():
    end = int(Path(ranks.EPHEMERAL).read_text().split()[0]) if Path(ranks.EPHEMERAL).exists() else 32768
    assert all(ranks.FIRST_PORT <= ranks.free_port() < end for _ in range(50))


def test_one_that_is_taken_is_not_chosen(monkeypatch):
    with socket.socket() as taken, socket.socket() as other:
        for each in (taken, other):
            each.bind(("", 0))
        ports = [each.getsockname()[1] for each in (taken, other)]
        other.close()
        monkeypatch.setattr(ranks.random, "sample", lambda *_: ports)
        assert ranks.free_port() == ports[1]


@pytest.mark.parametrize("text", ["1024\t65535", "none"])
def test_where_connections_may_have_all_it_is_any(connections, text):
    connections(text)
    assert ranks.free_port() >= 1024
