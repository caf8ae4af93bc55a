"""A command is told to stop by Ctrl-C, TERM and a closed terminal, unless whoever started it has it ignore them."""

import os
import signal
from pathlib import Path

import pytest

from launcher.run import stops

LAUNCHER = Path(stops.__file__).parents[1]
OF_A_TERMINAL = (signal.SIGINT, signal.SIGHUP)


def came_of(number: int) -> list[int]:
    came: list[int] = []
    with stops.heard_by(lambda got, _: came.append(got)):
        os.kill(os.getpid(), number)
    return came


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["as usual", "ignored"])
def handling(request):
    before = {number: signal.signal(number, request.param) for number in OF_A_TERMINAL}
    yield request.param
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", OF_A_TERMINAL)
def test_what_nohup_has_it_ignore_does_not_stop_it(handling, number):
    assert came_of(number) == ([] if handling is signal.SIG_IGN else [number])
    assert signal.getsignal(number) is handling  # afterwards


def test_term_always_does(handling):
    assert came_of(signal.SIGTERM) == [signal.SIGTERM]


def test_nothing_else_listens_to_a_terminal():
    said = {path.relative_to(LAUNCHER) for path in LAUNCHER.rglob("*.py") if "SIGHUP" in path.read_text()}
    assert said == {Path("run/stops.py")}
