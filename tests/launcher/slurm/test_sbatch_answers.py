"""What `sbatch --parsable` prints: a job's number, and whatever a site's plugins and wrappers add."""

from pathlib import Path

import pytest

from launcher.errors import ClusterError
from launcher.slurm import commands


@pytest.mark.parametrize("said", [
    "42\n", "42;west\n", "\n  Welcome to Stampede3\n--> Checking available allocation (AB-12)...OK\n42\n",
    "auks_api: auks cred added using default file\n42\n", "42;west\nremaining budget: 12 of 100 hours\n", "42 \r\n",
])  # fmt: skip
def test_the_number_is_found(said, slurm_said):
    slurm_said.says("sbatch --parsable", said)
    assert commands.submit(Path("script.sh"), environment={}) == "42"


@pytest.mark.parametrize(("said", "shown"), [("", "nothing"), ("queued\nfor later\n", "queued; for later")])
def test_an_answer_without_a_number_is_said_in_one_line(said, shown, slurm_said):
    slurm_said.says("sbatch --parsable", said)
    with pytest.raises(ClusterError, match=f"^sbatch: it gave no number of a job, but said {shown}$"):
        commands.submit(Path("script.sh"), environment={})
