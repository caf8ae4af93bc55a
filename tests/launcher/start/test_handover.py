"""What ranks are told of their start, and what they make of it."""

import pytest

from launcher.errors import InputError
from launcher.start.handover import Start

SRUNS = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}


def test_a_rank_reads_what_it_was_told():
    start = Start(3, 1, 8, generation=2, rendezvous="file:///there", lock=7, stopped_code=0, threads=4)
    assert Start.read(start.environment()) == start
    assert {"OMP_NUM_THREADS": "4", "RANK": "3"}.items() <= start.environment().items()


def test_of_ranks_that_srun_starts_each_is_told_by_it_who_it_is():
    told = Start(None, None, 2, generation=5, stopped_code=0, threads=1).environment()
    assert "RANK" not in told and "SSLRUN_LOCK_FD" not in told
    assert Start.read({**told, **SRUNS}) == Start(1, 0, 2, generation=5, stopped_code=0, threads=1)


def test_one_process_that_nobody_told_anything_is_a_start_of_one_rank():
    assert Start.read({}) == Start()
    assert Start.read({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == Start()


def test_tasks_that_do_not_know_each_other_are_refused():
    with pytest.raises(InputError, match="was not started by sslrun"):
        Start.read(SRUNS)
