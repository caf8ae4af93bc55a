"""Without Slurm, or with a controller that does not answer: False, or one line, and nothing is waited for."""

import sys

import pytest

from launcher.errors import ClusterError
from launcher.slurm import client, commands
from launcher.start import job


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """`programs(name=shell lines)`: these, and the system's own tools, are all that the path has."""

    def put(**scripts):
        for name, lines in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        # Where a ping is to be answered it is, however long this machine takes to start a shell.
        monkeypatch.setattr(client.up, "__defaults__", (600.0,))

    return put


def test_no_slurm(programs):
    programs()
    assert not client.installed() and not client.up()
    with pytest.raises(ClusterError, match="squeue: there is no Slurm on this machine"):
        commands.jobs()


def test_a_node_without_scontrol_is_named_and_is_no_controller_that_is_down(programs, monkeypatch):
    """A controller that does not answer is waited for."""
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    programs(sbatch="exit 0", squeue="exit 0")
    for ask in (commands.jobs, lambda: commands.requeue("7")):
        with pytest.raises(
            ClusterError, match="n2 has no scontrol on its PATH; export a PATH that has it in clu"
        ) as said:
            ask()
        assert not job.UNHEARD.search(str(said.value))


def test_a_node_that_lacks_sbatch_alone_can_ask_all_the_same(programs):
    programs(scontrol="echo 'Slurmctld(primary) at vm is UP'", squeue="exit 0")
    assert commands.jobs() == {}
    commands.requeue("7")


def test_a_controller_that_is_down_is_not_asked(programs, tmp_path):
    scontrol, asked = "echo 'Slurmctld(primary) at vm is {state}'", tmp_path / "asked"
    programs(sbatch="exit 0", scontrol=scontrol.format(state="DOWN"), squeue=f": > {asked}")
    with pytest.raises(ClusterError, match="slurmctld does not answer"):
        commands.jobs()
    assert not asked.exists()
    programs(scontrol=scontrol.format(state="UP"))
    assert not commands.jobs() and asked.exists()


def test_a_backup_controller_is_enough(programs):
    programs(scontrol="echo 'Slurmctld(primary) at a is DOWN'; echo 'Slurmctld(backup) at b is UP'; exit 1")
    assert client.up()


def test_a_ping_that_hangs_is_given_up(programs):
    late = "import time; time.sleep(600); print('Slurmctld(primary) at vm is UP')"
    programs(sbatch="exit 0", scontrol=f'exec {sys.executable} -S -c "{late}"')
    assert not client.up(timeout=0.3)  # whoever waits for its answer hears that it is up


def test_a_program_that_hangs_is_given_up(programs, monkeypatch):
    programs(sbatch="exit 0", scontrol="echo 'Slurmctld(primary) at vm is UP'", squeue="exec /bin/sleep 100")
    monkeypatch.setattr(client, "SECONDS", 0.3)
    with pytest.raises(ClusterError, match="squeue: no answer within"):
        commands.jobs()


def test_accounting_answers_where_the_controller_has_forgotten(programs):
    """No database is at hand for a real sacct."""
    row = "7_3\x1f9\x1fCANCELLED by 1000\x1f2026-01-02T03:04:05\x1fn[1-2]\x1fmain\x1f0:15\x1fname|with\x1fcomment"
    programs(
        sbatch="exit 0",
        scontrol="""
            [ "$1" = ping ] && echo 'Slurmctld(primary) at vm is UP' && exit
            echo 'slurm_load_jobs error: Invalid job id specified' >&2
            exit 1""",
        sacct=f"printf '%s\\n' '{row}'",
    )
    job = commands.ended("7_3")
    assert (job.id, job.raw_id, job.state, job.exit_code) == ("7_3", "9", "CANCELLED", "0:15")
    assert (job.nodes, job.name, job.comment) == ("n[1-2]", "name|with", "comment")
    assert commands.ended("8") is None
