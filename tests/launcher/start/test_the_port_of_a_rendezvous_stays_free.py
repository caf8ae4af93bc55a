"""Between its choice and rank 0's use of it pass seconds: no connection of somebody else is given that port."""

import errno
import socket
from pathlib import Path

import pytest

from launcher.slurm import reach


@pytest.fixture
def connections(tmp_path, monkeypatch):
    """`connections("20000\t60999")`: what the kernel says of the ports that it gives to them."""

    def said(text: str) -> None:
        (tmp_path / "range").write_text(text)
        monkeypatch.setattr(reach, "EPHEMERAL", str(tmp_path / "range"))

    return said


def chosen() -> int:
    with reach.listener(0) as listener:
        return listener.getsockname()[1]


def test_it_lies_below_those_of_connections():
    end = int(Path(reach.EPHEMERAL).read_text().split()[0]) if Path(reach.EPHEMERAL).exists() else 32768
    assert all(reach.FIRST_PORT <= chosen() < end for _ in range(50))


def test_one_that_is_taken_is_not_chosen(connections, monkeypatch):
    with reach.listening(0) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(reach, "FIRST_PORT", port)
        connections(f"{port + 1}\t60999")  # it alone lies below them
        assert chosen() != port
        with pytest.raises(OSError) as refused:
            reach.listener(port)
        assert refused.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("text", ["1024\t65535", "none"])
def test_where_connections_may_have_all_it_is_any(connections, text):
    connections(text)
    assert chosen() >= 1024


def test_who_listens_there_is_reached_by_both_families():
    with reach.listener(0) as listener:
        families = ["127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])]
        for address in families:
            socket.create_connection((address, listener.getsockname()[1]), 10).close()
