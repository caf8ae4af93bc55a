"""What the doctor's rank 0 does where anybody may connect: it takes the word of its own tasks, and of nobody else."""

import json
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from launcher.slurm import probe

OURS = {"token": "secret", "rank": 0, "local_rank": 0, "node": "n1", "sees": "", "lacks": []}

CALL = "from launcher.slurm import probe; probe.listen({order!r})"


@pytest.fixture
def listening(capsys):
    """`listening(seconds)`: the order that a listener follows; called again, it returns what that told."""
    threads = []

    def begin(seconds: float):
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        order = {"token": "secret", "world_size": 2, "seconds": seconds, "address": "localhost", "port": port}
        codes = []
        threads.append(threading.Thread(target=lambda: codes.append(probe.listen(order)), daemon=True))
        threads[-1].start()

        def told() -> list[dict]:
            threads[-1].join(60)
            assert codes == [0]
            return [json.loads(line) for line in re.findall(f"{probe.SAID}(.*)", capsys.readouterr().out)]

        return port, told

    return begin


def connect(port: int) -> socket.socket:
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("localhost", port), 5)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def both_ranks(port: int) -> list[socket.socket]:
    """The connections of the two tasks, which have said who they are and the first of them what time it is."""
    own = [connect(port) for _ in range(2)]
    for rank, connection in enumerate(own):
        connection.sendall(json.dumps({**OURS, "rank": rank, "local_rank": rank}).encode() + b"\n")
    stream = own[0].makefile("rwb")
    while stream.readline() == b"ping\n":
        stream.write(json.dumps({"time": time.time()}).encode() + b"\n")
        stream.flush()
    return own


STRANGERS = {
    "an empty object": b"{}\n",
    "no object": b"[]\n",
    "a number": b"5\n",
    "nested without end": b"[" * 60_000 + b"\n",
    "no text": b"\xff\xfe\n",
    "nothing": b"",
    "a line without end": b"x" * 200_000,
    "another token": json.dumps({**OURS, "token": "other"}).encode() + b"\n",
    "a rank that is none": json.dumps({**OURS, "rank": "0"}).encode() + b"\n",
    "a rank beyond the last": json.dumps({**OURS, "rank": 2}).encode() + b"\n",
    "no node": json.dumps({**OURS, "node": None}).encode() + b"\n",
    "lost ranks that are none": b'{"token": "secret", "lost": {"0": 1}}\n',
}


def test_no_stranger_ends_it_or_takes_a_place(listening):
    port, told = listening(20)
    slow = connect(port)  # it begins a line, and never ends it
    slow.sendall(b'{"to')
    for said in STRANGERS.values():
        with connect(port) as stranger:
            try:
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(100) == b""  # let go, without a word
            except OSError:  # more was sent than anybody read
                pass
    own = both_ranks(port)
    words = told()
    assert sorted(word["rank"]["rank"] for word in words if "rank" in word) == [0, 1]
    assert [list(word["clock"]) for word in words if "clock" in word] == [["n1"]]
    for connection in (slow, *own):
        connection.close()


def test_strangers_who_take_all_of_its_connections_and_say_nothing_are_let_go(tmp_path):
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    order = {"token": "secret", "world_size": 2, "seconds": 20, "address": "localhost", "port": port}
    program = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16)); {CALL.format(order=order)}"
    listener = subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True)
    silent = [connect(port) for _ in range(14)]
    own = both_ranks(port)
    out, _ = listener.communicate(timeout=60)
    words = [json.loads(line) for line in re.findall(f"{probe.SAID}(.*)", out)]
    assert sorted(word["rank"]["rank"] for word in words if "rank" in word) == [0, 1]
    for connection in (*silent, *own):
        connection.close()
