"""A run that this machine has no room for is not begun unasked, and one of days is said to be."""

import io
import sys
from dataclasses import replace

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import kinds
from launcher.start import at_hand


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def run(tmp_path):
    spec, _ = resolve(["method=rotnet", "recipe=tiny", f"runs={tmp_path}"])
    return spec, kinds.make(spec)


def needing(run, gb, **more):
    spec, plan = run
    return spec, replace(plan, memory_gb=gb, **more)


def test_what_fits_passes_without_a_word(run):
    assert at_hand.check([needing(run, 0.9 * at_hand.memory_gb())], anyway=False) == []


def test_what_does_not_fit_is_refused_where_nobody_can_be_asked(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    monkeypatch.setattr(at_hand, "memory_gb", lambda: 23.0)
    line = "this machine has 23 GB of memory, and a step of rotnet-tiny-.* is modelled to take 40; give .*--anyway"
    with pytest.raises(InputError, match=f"^cluster=local: {line}$"):
        at_hand.check([needing(run, 1.0), needing(run, 40.0)], anyway=False)
    assert at_hand.check([needing(run, 40.0)], anyway=True) == []


@pytest.mark.parametrize(("answer", "begins"), [("y", True), ("n", False), ("", False)])
def test_on_a_terminal_the_person_decides(run, monkeypatch, capsys, answer, begins):
    monkeypatch.setattr(sys, "stdin", Terminal(answer + "\n"))
    asked = [needing(run, 10 * at_hand.memory_gb())]
    if begins:
        assert at_hand.check(asked, anyway=False) == []
    else:
        with pytest.raises(InputError, match="not started"):
            at_hand.check(asked, anyway=False)
    assert "Start it all the same? [y/N]" in capsys.readouterr().err


def test_days_are_said(run):
    (said,) = at_hand.check([needing(run, 0.1, hours=20.0, hours_assumed=True)] * 3, anyway=False)
    assert said == "this takes about 2.5 days on this machine at an assumed rate; recipe=demo takes minutes"


def test_a_cluster_is_not_this_machine(tmp_path):
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "cluster=generic", f"runs={tmp_path}"], planning=True)
    assert at_hand.check([needing((spec, kinds.make(spec)), 1e6, hours=1e6)], anyway=False) == []
