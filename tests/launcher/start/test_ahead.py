"""A rank that is begun before its start: it loads, says that it is ready, waits for word, and becomes a rank like any
other; or it ends without a word."""

import json
import os
import signal
import subprocess
import sys

import pytest

# argv: the run's folder, and the source of what is to be loaded.
PROGRAM = """
import os, sys, threading
from launcher.run.folder import RunDir
from launcher.runtime.preempt import StopFlag
from launcher.start import ahead

stop = StopFlag().install()
loads = compile(sys.argv[2], "loads", "exec")
assert ahead.asked()
code = ahead.wait(RunDir(sys.argv[1]), 3, 1, lambda: exec(loads, {}), stop)
if code is not None:
    os._exit(code)
words = {name: os.environ.get(name) for name in ("MASTER_PORT", "GLOO_SOCKET_IFNAME", "SSLRUN_STANDBY")}
print(words, stop.signal, sys.stdin.read() == "", os.getpriority(os.PRIO_PROCESS, 0), threading.active_count())
"""


@pytest.fixture
def begun(tmp_path):
    """`begun(loads)`: the process of rank 1 of a third start."""
    (tmp_path / "heartbeats").mkdir()
    started = []

    def start(loads: str = "") -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        given = {**os.environ, "SSLRUN_STANDBY": "1", "MASTER_PORT": "1", "GLOO_SOCKET_IFNAME": "eth0"}
        started.append(subprocess.Popen([sys.executable, "-P", "-c", PROGRAM, tmp_path, loads], env=given, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def ready(tmp_path, until):
    """`ready(process)`: waits until it says so."""
    file = tmp_path / "heartbeats" / "standby1.json"

    def said(process: subprocess.Popen) -> bool:
        assert process.poll() is None, process.communicate()
        return file.exists()

    def wait(process: subprocess.Popen) -> None:
        until(lambda: said(process), seconds=60)
        assert json.loads(file.read_text()) == {"generation": 3, "pid": process.pid}

    wait.file = file
    return wait


def test_it_hears_where_the_ranks_meet_and_is_a_rank_of_the_usual_priority(begun, ready):
    loads = "import os, threading; assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == 19"
    process = begun(loads)
    ready(process)
    said, _ = process.communicate('{"MASTER_PORT": "4711", "GLOO_SOCKET_IFNAME": null}\n', timeout=60)
    words = {"MASTER_PORT": "4711", "GLOO_SOCKET_IFNAME": None, "SSLRUN_STANDBY": None}
    assert (said, process.returncode) == (f"{words} None True 0 1\n", 0)
    assert not ready.file.exists()


def test_word_that_came_before_it_was_ready_is_heard(begun):
    process = begun("import time; time.sleep(0.2)")
    said, _ = process.communicate('{"MASTER_PORT": "4711"}\n', timeout=60)
    assert "'4711'" in said and process.returncode == 0


def test_where_nobody_needs_it_it_ends(begun, ready):
    process = begun()
    ready(process)
    assert process.communicate(timeout=60)[0] == "" and process.returncode == 0
    assert not ready.file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_told_to_stop_it_ends_as_what_has_not_begun(begun, ready, number):
    process = begun()
    ready(process)
    process.send_signal(number)
    assert process.wait(60) == -number and not ready.file.exists()


def test_told_to_stop_when_word_is_there_it_is_a_rank_that_is_told(begun, tmp_path, until):
    process = begun(f"open({str(tmp_path / 'loading')!r}, 'x'); import time; time.sleep(0.5)")
    until((tmp_path / "loading").exists, seconds=60)
    process.stdin.write('{"MASTER_PORT": "4711"}\n')
    process.stdin.flush()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert f"'4711', 'GLOO_SOCKET_IFNAME': 'eth0', 'SSLRUN_STANDBY': None}} {signal.SIGTERM:d} " in said
    assert process.returncode == 0


def test_told_to_stop_while_it_loads_it_ends(begun, tmp_path, until):
    process = begun(f"open({str(tmp_path / 'loading')!r}, 'x'); import time; time.sleep(1000)")
    until((tmp_path / "loading").exists, seconds=60)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM


def test_what_cannot_be_loaded_is_said_and_it_is_never_ready(begun, ready):
    process = begun("import there_is_no_such_module")
    said, _ = process.communicate(timeout=60)
    assert said.startswith("what the next start needs cannot be imported:\nTraceback")
    assert "ModuleNotFoundError: No module named 'there_is_no_such_module'" in said
    assert process.returncode == 1 and not ready.file.exists()
