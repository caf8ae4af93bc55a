"""What each node of a job runs, on this machine: it says where it listens, knocks where it is told to, and tells whom
it knows from whom it does not."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from launcher.slurm import reach


class Task:
    """The one of `node`."""

    def __init__(self, node: str, order: str):
        command = [sys.executable, "-I", "-S", "-c", reach.source()]
        environment = {**os.environ, "SLURMD_NODENAME": node, reach.ORDER: order}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=environment, text=True, **pipes)
        self.port, self.addresses = 0, []
        while (said := self.hear())[1] == "has":
            self.addresses += said[2:]
        if said[1] == "listens":
            self.port = int(said[2])
        else:
            self.refusal = " ".join(said[1:])

    def hear(self) -> list[str]:
        """The words of its next line."""
        while (line := self.process.stdout.readline()) == "\n":
            continue
        assert line, "it has ended"
        return line.split()

    def knock(self, port: int, address: str, who: str = "*") -> list[str]:
        self.process.stdin.write(f"{who} 7 {port} {address}\n")
        self.process.stdin.flush()
        _, verb, question, *words = self.hear()
        assert question == "7"
        return [verb, *words]


@pytest.fixture
def task():
    """`task("n2")`: the one of that node; n1 is the first."""
    made = []

    def begin(node: str, port: int = 0, knock: str = "knock-knock") -> Task:
        made.append(Task(node, f"n1 {port} {knock} come-in"))
        return made[-1]

    yield begin
    for each in made:
        each.process.communicate()  # the end of what they are told ends them
        assert each.process.returncode == 0


def test_it_reaches_another_at_each_address_of_both_families_and_says_from_where(task):
    one, two = task("n1"), task("n2")
    assert "lo=127.0.0.1" in one.addresses
    assert not [address for address in one.addresses if "=fe80:" in address]  # of one cable
    for each in (each.partition("=")[2] for each in one.addresses):
        assert two.knock(one.port, each) == ["reaches", each, each]
    assert two.knock(one.port, "localhost", who="n2")[0] == "reaches"


def test_it_listens_where_rank_0_can_afterwards(task):
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    one = task("n1", port)
    two = task("n2", port)  # another machine's
    assert one.port == port != two.port
    assert task("n1", port).refusal == "cannot address already in use"
    assert two.knock(port, "127.0.0.1")[0] == "reaches"
    one.process.communicate()
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere.invalid", "its name cannot be resolved there"),
        ("x" * 300, "its name cannot be resolved there"),
        ("a name of words", "its name cannot be resolved there"),
        ("127.0.0.1", "connection refused"),
    ],
)
def test_what_it_does_not_reach_is_told_with_the_reason(task, address, reason):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert task("n1").knock(closed.getsockname()[1], address) == ["misses", *reason.split()]


def test_it_takes_nobody_for_the_other_who_does_not_know_the_word(task):
    one, two, stranger = task("n1"), task("n2"), task("n2", knock="knock-twice")
    with socket.create_connection(("127.0.0.1", one.port)), socket.create_connection(("127.0.0.1", one.port)) as loud:
        loud.sendall(b"x" * 1000)  # and one who says nothing
        assert stranger.knock(one.port, "127.0.0.1")[0] == "misses"
        assert two.knock(one.port, "127.0.0.1")[0] == "reaches"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pretend() -> None:
            line, _ = server.accept()
            with line:
                line.recv(100)
                line.sendall(b"go away")

        thread = threading.Thread(target=pretend)
        thread.start()
        assert two.knock(server.getsockname()[1], "127.0.0.1") == ["misses", "another", "machine", "answers"]
        thread.join()


def test_many_are_answered_at_once(task):
    one = task("n1")
    lines = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(300)]
    for line in reversed(lines):
        line.sendall(b"knock-knock")
    assert {line.recv(100) for line in lines} == {b"come-in"}
    for line in lines:
        line.close()


def test_where_the_kernel_does_not_tell_there_are_no_addresses(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(FileNotFoundError()))
    assert reach.addresses() == []
