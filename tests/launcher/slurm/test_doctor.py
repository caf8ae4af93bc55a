"""What doctor says of what Slurm answered, and the cluster file that it writes."""

import pytest
import recorded

from launcher.slurm import doctor
from launcher.spec.schema import ClusterConfig


@pytest.fixture
def examined(slurm_said, tmp_path):
    """`examined(partition="mixed")`: doctor's findings by their check, for jobs of such a cluster."""
    slurm_said.cluster()

    def run(**cluster):
        rows = doctor.examine(tmp_path, ClusterConfig(name="test", **cluster), named=False)
        return {row.check: row for row in rows}

    return run


# As scontrol shows a partition after `scontrol update partitionname=closed state=...` -> how bad that is.
@pytest.mark.parametrize(("state", "level"), [("UP", "ok"), ("DOWN", "warn"), ("DRAIN", "bad"), ("INACTIVE", "bad")])
def test_a_partition_is_bad_where_slurm_takes_no_jobs_for_it(examined, slurm_said, state, level):
    slurm_said.says("scontrol show partition -o", recorded.PARTITIONS.replace("State=DRAIN", f"State={state}"))
    row = examined(partition="closed")["partition"]
    assert row.level == level
    assert state == "UP" or f"closed is {state}" in row.found
