"""Another process reaches the port where ranks meet, and speaks as if it were one: nothing that it says is executed or
believed, and the ranks say that it was there. Over TCP, as on a cluster."""

import os
import secrets
import socket
import subprocess
import sys

import pytest
import torch.distributed
from torch.distributed import HashStore

from launcher.errors import RunFailed
from launcher.runtime import dist
from launcher.runtime.sealed import SealedStore, proof

RANK = """
import os, sys
from launcher.errors import SslrunError
from launcher.runtime import dist
{planted}
try:
    world = dist.init(None, bytes.fromhex(os.environ["SECRET"]))
    print("heard", world.gather(world.rank), world.apart().gather(world.rank), flush=True)
    world.barrier()
    dist.shutdown()
except SslrunError as error:
    print(error, flush=True)
    os._exit(error.exit_code)
"""
# As a rank of another program would: torch's own words, and a pickle that makes a file.
STRANGER = """
import os, sys, threading
from pathlib import Path
import torch.distributed as dist
class Planted:
    def __reduce__(self):
        return Path.touch, (Path(sys.argv[1]),)
threading.Timer(60, os._exit, (0,)).start()
store = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False)
store.add("init/", 1)
dist.init_process_group("gloo", store=store, rank=1, world_size=2)
group = dist.new_group(backend="gloo")
dist.all_gather_object([None] * 2, Planted(), group=group)
"""
ANOTHER_SECRET = """
import os, sys
if "launcher.start.worker" in sys.orig_argv and os.environ["RANK"] == "1":
    from launcher.start.handover import Start
    Start.secret = lambda start, run: bytes(32)
"""
RUN = ("method=rotnet", "recipe=tiny", "tasks_per_node=2")
# What another rank is told over a connection that gloo gave to somebody who does not know the secret.
TAKEN_OVER = "dist.proof = lambda *words: bytes(32)"


@pytest.fixture
def meeting(forge, tmp_path):
    """`meeting(rank, text, *words, **variables)`: the process of a rank, or of whoever says that it is one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    secret, started = secrets.token_hex(32), []

    def start(rank: int, text: str = RANK.format(planted=""), *words: object, **variables: str) -> subprocess.Popen:
        script = tmp_path / f"{len(started)}.py"
        script.write_text(text)
        given = {
            **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GLOO_SOCKET_IFNAME": "lo",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2",
            "SECRET": secret, "CUDA_VISIBLE_DEVICES": "", **variables,
        }  # fmt: skip
        command = [sys.executable, "-P", script, *words]
        started.append(forge.start(command, env=given, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def line(rank: int, what: str) -> str:
    who = f"rank {rank} on {os.uname().nodename}"
    return f"{who}: {what} does not come from a rank of this start; another process takes part in it\n"


def test_ranks_with_the_secret_meet(meeting):
    for rank in [meeting(rank) for rank in range(2)]:
        out, err = rank.communicate(timeout=600)
        assert out == "heard [0, 1] [0, 1]\n", err


def test_a_stranger_that_comes_first_is_no_rank_and_its_pickle_is_not_executed(meeting, tmp_path):
    first, stranger = meeting(0), meeting(1, STRANGER, tmp_path / "pickled")
    out, err = first.communicate(timeout=600)
    assert out == line(0, "0//cpu//0/1 in the store where ranks meet"), err
    assert first.returncode == RunFailed.exit_code
    stranger.communicate(timeout=600)
    assert not (tmp_path / "pickled").exists()


def test_a_rank_with_another_secret_is_a_stranger(meeting):
    first, other = meeting(0), meeting(1, SECRET=secrets.token_hex(32))
    out, err = first.communicate(timeout=600)
    assert out == line(0, "0//cpu//0/1 in the store where ranks meet"), err
    other.kill()


def test_a_connection_that_a_stranger_got_is_noticed(meeting):
    first, _ = meeting(0), meeting(1, RANK.format(planted=TAKEN_OVER))
    out, err = first.communicate(timeout=600)
    assert out == line(0, "what rank 1 says"), err


def test_a_run_with_a_stranger_in_it_ends_with_one_line_as_a_crash_does(sslrun, tmp_path, watched):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(ANOTHER_SECRET)
    answer = sslrun.where(PYTHONPATH=str(tmp_path / "site"))(*RUN, f"runs={watched.runs}", code=RunFailed.exit_code)
    assert "does not come from a rank of this start" in answer.complaint
    assert sslrun.show(watched.path)["cause"] == "crash"
    assert not list(watched.path.glob("secret*"))


def test_without_a_secret_nobody_meets_over_a_network(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="with a secret only"):
        dist.init()


# -- what lies in the store ------------------------------------------------------------------------------------------


@pytest.fixture
def store():
    return HashStore()


@pytest.fixture
def sealed(store):
    return SealedStore(store, b"secret")


def test_values_are_what_was_set_and_nobody_else_reads_them(store, sealed):
    for key, value in {"a": b"", "b": b"x", "c": bytes(range(256)) * 40}.items():
        sealed.set(key, value)
        assert sealed.get(key) == value
        assert len(value) < 4 or value[:4] not in store.get(key)
    sealed.multi_set(["d", "e"], [b"1", b"2"])
    assert sealed.multi_get(["e", "d"]) == [b"2", b"1"]
    assert sealed.check(["a", "e"]) and not sealed.check(["f"])
    assert sealed.compare_set("d", b"1", b"3") == b"3" == sealed.get("d")
    assert sealed.compare_set("d", b"1", b"4") == b"3"
    assert (sealed.add("n", 2), sealed.add("n", 3)) == (2, 5)
    assert sealed.delete_key("d") and not sealed.check(["d"])


@pytest.mark.parametrize("forged", [b"", b"x", b"plain words, long enough to hold a proof of thirty-two bytes"])
def test_what_was_not_sealed_is_refused(store, sealed, forged):
    store.set("a", forged)
    with pytest.raises(RunFailed, match="a in the store where ranks meet does not come from a rank of this start"):
        sealed.get("a")


def test_what_was_changed_or_sealed_elsewhere_is_refused(store, sealed):
    sealed.set("a", b"value")
    good = store.get("a")
    for position in range(len(good)):
        store.set("a", good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(RunFailed):
            sealed.get("a")
    store.set("b", good)  # of another key
    SealedStore(store, b"another").set("c", b"value")
    for key in "bc":
        with pytest.raises(RunFailed):
            sealed.get(key)


def test_words_are_not_others_that_look_alike_in_a_row():
    assert len({proof(b"secret", *words) for words in ((1, 23), (12, 3), ("1", "2", "3"), (123,))}) == 4


def test_libraries_that_hold_a_store_and_its_copies_are_served(sealed):
    copy = torch.distributed.PrefixStore("a", sealed).clone()
    copy.set("b", "value")
    assert copy.get("b") == b"value" == sealed.get("a/b")


# -- where rank 0 listens --------------------------------------------------------------------------------------------


def test_it_listens_at_the_address_that_is_given():
    with socket.socket(fileno=dist._listener("127.0.0.1", 0)) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["n1", "localhost", "192.0.2.1"])
def test_a_name_may_be_another_address_on_another_node(host):
    """192.0.2.1 is of no machine (RFC 5737): what stands in front of it has it."""
    assert dist._listener(host, 0) is None


def test_a_port_that_somebody_has_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="Address already in use"):
        dist._listener("127.0.0.1", taken.getsockname()[1])
