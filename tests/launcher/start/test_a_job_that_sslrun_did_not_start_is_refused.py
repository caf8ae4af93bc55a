"""Ranks that do not know each other would all be rank 0 of the same run directory."""

import os
import subprocess
import sys


def test_tasks_of_srun_without_a_rendezvous_write_nothing(interrupted, tmp_path):
    before = sorted((interrupted[0] / "events").iterdir())
    environment = {**os.environ, "SLURM_NTASKS": "4"}
    worker = [sys.executable, "-P", "-m", "launcher.start.worker", interrupted[0]]
    done = subprocess.run(worker, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "was not started by sslrun" in done.stdout
    assert sorted((interrupted[0] / "events").iterdir()) == before
