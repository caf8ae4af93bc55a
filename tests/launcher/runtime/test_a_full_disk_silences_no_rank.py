"""What a rank prints may be lost when the disk of its log is full; the rank goes on, and its ledger loses nothing."""

import os
import subprocess
import sys

import pytest

from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger


def test_a_rank_whose_log_cannot_be_written_ends_as_it_would(interrupted):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    worker = [sys.executable, "-P", "-m", "launcher.start.worker", interrupted[0]]
    with open("/dev/full", "wb") as log:  # every write fails as on a full disk
        done = subprocess.run(worker, env={**os.environ, "SLURM_NTASKS": "4"}, stdout=log, stderr=log)
    assert done.returncode == 2


def test_events_that_found_no_room_are_written_before_the_next_one(tmp_path, capsys):
    run = RunDir(tmp_path)
    (tmp_path / "events").mkdir()
    ledger = Ledger(run.path, 1, "rank0")
    ledger.write("first")
    folder = tmp_path / "events"
    aside = folder.rename(tmp_path / "aside")
    ledger.write("second")
    ledger.write("third")
    assert capsys.readouterr().out.count("ledger: ") == 2
    aside.rename(folder)
    ledger.write("fourth")
    assert [event["event"] for event in run.history()] == ["first", "second", "third", "fourth"]
