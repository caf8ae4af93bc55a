"""gloo gives up on a rank by a clock that runs on while all of them stand still. Where a watchdog ends whoever hangs,
ranks that wait for one another go on after any pause."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.fault

SECONDS = 4  # after which a rank gives up on another, where nobody keeps it from that
RANK = """
import datetime, os, sys
from launcher.runtime import dist
world = dist.init({meeting!r}, bytes(32))
longest, dist.WATCHED_WAIT = dist.WATCHED_WAIT, datetime.timedelta(seconds={seconds})
dist.wait_as_long_as_it_takes()
dist.WATCHED_WAIT = longest
dist.wait_as_long_as_it_takes()
print("here", flush=True)
if not world.is_main:
    sys.stdin.readline()  # the other one waits meanwhile
world.barrier()
print(world.gather(world.rank), flush=True)
os._exit(0)  # as a rank does
"""


def test_ranks_that_were_suspended_in_a_collective_go_on(forge, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(seconds=SECONDS, meeting=(tmp_path / "rendezvous").as_uri()))
    command, pipe = [sys.executable, "-P", script], subprocess.PIPE
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "WORLD_SIZE": "2"}
    given |= {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    ranks = [
        forge.start(command, env={**given, "RANK": str(rank)}, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for rank in range(2)
    ]
    try:
        assert [rank.stdout.readline() for rank in ranks] == ["here\n"] * 2, [rank.stderr.read() for rank in ranks]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for rank in ranks:
                rank.send_signal(number)
            time.sleep(2 * SECONDS)  # stopped, then waiting
        ends = [rank.communicate("on\n", timeout=120) for rank in ranks[::-1]]
        assert [out for out, _ in ends] == ["[0, 1]\n"] * 2, ends
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
