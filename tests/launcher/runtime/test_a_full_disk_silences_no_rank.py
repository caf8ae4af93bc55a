"""What a rank prints may be lost when the disk of its log is full; the rank goes on, and its ledger loses nothing."""

import os
import subprocess
import sys

import pytest

from launcher.report import curves
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.metrics import Reporter


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


def test_a_row_of_metrics_behind_a_torn_one_is_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "lo')
    reporter = Reporter(RunDir(tmp_path), main=True, generation=2)
    reporter.start(purge_step=0)
    reporter.log(1, loss=2.0)
    reporter.log(2, loss=1.0)
    reporter.close()
    assert [curve.values for curve in curves.read(tmp_path / "metrics.jsonl")] == [[2.0, 1.0]]


def test_a_rank_goes_on_where_tensorboard_has_no_room(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file, and no folder")
    reporter = Reporter(RunDir(tmp_path), main=True, generation=1)
    reporter.start(purge_step=0)
    reporter.log(1, loss=2.0)
    reporter.image("clusters", None, 1)
    reporter.close()
    assert capsys.readouterr().out.startswith("tensorboard: ")
    assert '"loss": 2.0' in (tmp_path / "metrics.jsonl").read_text()
