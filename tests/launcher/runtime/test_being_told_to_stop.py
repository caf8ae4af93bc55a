"""A signal sets a flag and no more, in the process that asked to be told, and the first one says why."""

import json
import os
import signal
import traceback

import pytest

from launcher.runtime.preempt import StopFlag


def in_a_child(ask):
    """What `ask()` returns in a fork of this process, whose own handlers stay as they are."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writes, json.dumps(ask()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as said:
        found = said.read()
    os.waitpid(child, 0)
    return json.loads(found)


def told(*numbers):
    """The flag after these signals, one after the other."""
    flag = StopFlag().install()
    for number in numbers:
        os.kill(os.getpid(), number)
    return {"stop": bool(flag), "why": flag.signal and int(flag.signal), "in a hurry": flag.seconds > 0}


def test_nobody_is_told_before_a_signal_comes():
    assert in_a_child(told) == {"stop": False, "why": None, "in a hurry": False}


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGUSR2), (signal.SIGUSR2, signal.SIGTERM)])
def test_the_first_signal_tells_why(numbers):
    found = in_a_child(lambda: told(*numbers))
    assert (found["stop"], found["why"]) == (True, numbers[0])


def test_only_a_term_is_followed_by_a_kill():
    assert in_a_child(lambda: told(signal.SIGUSR2)) == {"stop": True, "why": signal.SIGUSR2, "in a hurry": False}


def test_ctrl_c_is_the_launchers_business():
    assert in_a_child(lambda: told(signal.SIGINT)) == {"stop": False, "why": None, "in a hurry": False}


def test_a_child_that_is_told_is_not_the_one_who_was_asked():
    """A data-loader worker, say: Slurm signals every process of a job."""

    def ask():
        flag = StopFlag().install()

        def as_child():
            os.kill(os.getpid(), signal.SIGTERM)
            return bool(flag)

        return [in_a_child(as_child), bool(flag)]

    assert in_a_child(ask) == [False, False]
