"""What submit.py relies on to submit a run once, whenever its submitter is killed."""

import os
from pathlib import Path

from launcher.slurm import client, commands


def test_sbatch_keeps_a_lock_of_the_submitters(monkeypatch, tmp_path):
    """It stays taken until it is known whether there is a job."""
    read, write = os.pipe()
    for name, line in (
        ("scontrol", "echo 'Slurmctld(primary) at vm is UP'"),
        ("sbatch", f"echo held >/proc/self/fd/{write}; echo '7;west'"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commands.submit(Path("script"), environment=client.environment(), pass_fds=[write]) == "7"
    os.close(write)
    assert os.read(read, 100) == b"held\n"
    os.close(read)
