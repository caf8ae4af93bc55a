"""What ranks are told of their start, and what they make of it."""

import os

import pytest

from launcher.errors import InputError, RunFailed
from launcher.start.handover import Start, secret

SRUNS = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}


def test_a_rank_reads_what_it_was_told():
    start = Start(
        3, 1, 8, generation=2, rendezvous="file:///there", lock=7, stopped_code=0, threads=4, interfaces={"n1": "eth0"}
    )
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


@pytest.mark.parametrize(
    ("mine", "told"),
    [
        ({}, {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "=eth0"}),
        ({"GLOO_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": ""}, {"NCCL_SOCKET_IFNAME": "=eth0"}),
    ],
)
def test_an_interface_that_the_user_has_set_is_kept(mine, told):
    assert Start(interfaces={"n1": "eth0"}).network("n1", mine) == told


# -- the secret by which ranks recognise one another -------------------------------------------------------------------


def test_the_ranks_of_a_start_read_the_same_secret_and_those_of_another_start_another(tmp_path):
    told = []
    for generation in (1, 2):
        with secret(tmp_path, generation, ranks=2):
            told += [Start(rank, rank, 2, generation).secret(tmp_path) for rank in range(2)]
            assert not any(told[-1] in path.name.encode() for path in tmp_path.iterdir())
    assert told[0] == told[1] != told[2] == told[3] and {len(each) for each in told} == {32}
    assert not list(tmp_path.iterdir())


def test_nobody_else_can_read_it_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with secret(tmp_path, 1, ranks=2):
            assert [oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == ["0o600"]
    finally:
        os.umask(before)


def test_it_is_written_and_read_through_no_link(tmp_path):
    (tmp_path / "mine").write_bytes(b"x" * 32)
    run = tmp_path / "run"
    run.mkdir()
    (run / "secret.3").symlink_to(tmp_path / "mine")
    with pytest.raises(RunFailed, match=r"secret\.3: .*: by it the ranks of a start recognise one another"):
        Start(0, 0, 2, generation=3).secret(run)
    with secret(run, 3, ranks=2):
        assert Start(0, 0, 2, generation=3).secret(run) != b"x" * 32
    assert (tmp_path / "mine").read_bytes() == b"x" * 32


def test_what_a_killed_start_left_goes_with_the_next(tmp_path):
    (tmp_path / "secret.1").touch()
    with secret(tmp_path, 2, ranks=2):
        assert [path.name for path in tmp_path.iterdir()] == ["secret.2"]


def test_a_single_rank_has_nobody_to_recognise(tmp_path):
    with secret(tmp_path / "nowhere", 1, ranks=1):
        assert Start().secret(tmp_path / "nowhere") == b""


def test_one_that_cannot_be_written_or_is_cut_short_is_said(tmp_path):
    refused = pytest.raises(RunFailed, match=r"secret\.1: it cannot be written \(No such file or directory\)")
    with refused, secret(tmp_path / "nowhere", 1, ranks=2):
        pytest.fail("the ranks were started")
    (tmp_path / "secret.1").write_bytes(b"short")
    with pytest.raises(RunFailed, match="cut short"):
        Start(0, 0, 2).secret(tmp_path)
