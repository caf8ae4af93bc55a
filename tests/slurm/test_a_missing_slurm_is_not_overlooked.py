"""Where Slurm is missing these tests are skipped, loudly, and on CI they fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HIDES = """
import shutil

found = shutil.which
shutil.which = lambda program, *words, **named: None if program == "slurmctld" else found(program, *words, **named)
"""


@pytest.mark.parametrize("ci", ["", "true"])
def test_it_is_a_failure_on_ci_and_a_loud_skip_elsewhere(tmp_path, ci):
    (tmp_path / "hides_slurm.py").write_text(HIDES)
    file = Path(__file__).with_name("test_the_cluster_is_real.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "hides_slurm", "-p", "no:cacheprovider", file],
        cwd=file.parents[2],
        env={**os.environ, "CI": ci, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    missing = "Slurm is not on this machine: no slurmctld"
    assert missing in done.stdout
    if ci:
        assert (
            done.returncode == 1 and "apt-get install slurm-wlm munge" in done.stdout and "skipped" not in done.stdout
        )
    else:
        assert done.returncode == 0 and "SLURM WAS NOT TESTED" in done.stdout and "passed" not in done.stdout
