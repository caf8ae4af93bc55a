"""Options that srun does not take are refused by name before anything is submitted."""

import pytest

from launcher.errors import InputError
from launcher.slurm import client, srun
from launcher.spec.schema import ClusterConfig

# As srun of 22.05 answers: an option that lacks its value takes the next word for it.
SRUN = """\
case "$*" in
*--imagine*) echo "srun: unrecognized option '--imagine=a'" >&2; exit 255;;
*--gres-flags=*) echo "srun: error: Invalid --gres-flags specification" >&2; exit 255;;
*--odd=*) echo "srun: fatal: something else" >&2; exit 1;;
*--deadline\\ *) echo "srun: error: Invalid --deadline specification" >&2; exit 255;;
*--mpi\\ --version) echo "srun: fatal: No command given to execute." >&2; exit 1;;
*) echo slurm 22.05.8;;
esac
"""


@pytest.fixture
def checked(monkeypatch, tmp_path):
    """`checked(options)`: the line with which they are refused; empty where they are not."""
    for name, lines in {"srun": SRUN, "scontrol": "echo 'Slurmctld(primary) at vm is UP'"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(client.up, "__defaults__", (600.0,))

    def check(options) -> str:
        try:
            srun.check(ClusterConfig(srun=options))
        except InputError as error:
            return str(error)
        return ""

    return check


@pytest.mark.parametrize(
    "options", [{}, {"mpi": "none"}, {"mpi": "none", "unbuffered": True}, {"odd": "1"}, {"mpi": None}]
)
def test_what_srun_takes_is_not_refused(checked, options):
    assert checked(options) == ""


@pytest.mark.parametrize(
    "options, said",
    [
        ({"mpi": True}, "cluster.srun.mpi=true: srun takes a value for it; give one"),
        ({"mpi": True, "unbuffered": True}, "cluster.srun.mpi=true: srun takes a value for it; give one"),
        ({"unbuffered": True, "deadline": True}, "cluster.srun.deadline: srun does not take it here (error: Inv"),
        ({"mpi": "none", "imagine": "a"}, "cluster.srun.imagine: srun does not take it here (unrecognized option"),
        ({"gres_flags": "a"}, "cluster.srun.gres_flags: srun does not take it here (error: Invalid --gres-flags"),
    ],
)
def test_what_it_does_not_take_is_named(checked, options, said):
    assert checked(options).startswith(said)
