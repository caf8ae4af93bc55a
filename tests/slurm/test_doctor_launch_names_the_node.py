"""What is wrong on some nodes only is said with their names."""

import sys

import pytest


@pytest.fixture
def launched(slurm_sslrun, patient, tmp_path):
    """`launched(cluster, *overrides)`: the findings of a launch in which something is bad, by their check."""

    def run(cluster, *overrides):
        runs = () if any(o.startswith("runs=") for o in overrides) else (f"runs={tmp_path / 'runs'}",)
        answer = patient(slurm_sslrun(cluster))("doctor", "--launch", "--json", *runs, *overrides, code=3)
        assert "Traceback" not in answer.err
        assert cluster.run("squeue", "--noheader").stdout == ""
        return {row["check"]: row for row in answer.json}

    return run


def test_a_node_that_does_not_see_the_folder(uneven, hidden, launched):
    rows = launched(uneven, "nodes=2", f"runs={hidden}")
    assert rows["launch"]["found"].startswith("2 of 2 ranks")
    assert rows["run directory"]["level"] == "bad"
    assert f"not every node sees {hidden}: n2: no such file" in rows["run directory"]["found"]


def test_a_first_node_that_does_not_see_the_folder(uneven, hidden, launched):
    rows = launched(uneven, "nodes=1", f"runs={hidden}", "cluster.exclude=n1")
    assert rows["run directory"]["found"] == f"n2 does not see {hidden}"


def test_nodes_that_do_not_reach_the_first(cluster, launched):
    rows = launched(cluster, "nodes=2", "tasks_per_node=2", "cluster.environment.MASTER_ADDR=nowhere.invalid")
    assert rows["rendezvous"]["level"] == "bad"
    said = "n1, n2 do not reach n1 at nowhere.invalid (its name cannot be resolved there)"
    assert rows["rendezvous"]["found"] == said
    assert rows["rendezvous"]["advice"].startswith(
        "set cluster.environment.MASTER_ADDR to an address of the first node"
    )
    assert rows["launch"]["found"].startswith("0 of 4 ranks")
    assert rows["launch"]["advice"] == "see rendezvous"
    assert rows["run directory"]["level"] == "ok"


def test_one_node_that_does_not_reach_the_first(cluster, launched, tmp_path):
    # What starts the ranks may be a command of one's own; this one breaks the address on n2.
    command = tmp_path / "python"
    command.write_text(
        '#!/bin/bash\nif [ "$SLURMD_NODENAME" = n2 ]; then\n'
        'export SSLRUN_PROBE="${SSLRUN_PROBE//\\"address\\": \\"/&unknown-}"; fi\n'
        'exec python3 "$@"\n'
    )
    command.chmod(0o755)
    rows = launched(cluster, "nodes=2", "tasks_per_node=2", f"cluster.python={command} ")
    assert rows["launch"]["found"].startswith("2 of 4 ranks")
    assert ": n2: its name cannot be resolved there" in rows["rendezvous"]["found"]


def test_a_node_that_starts_nothing_is_not_waited_for(cluster, launched, tmp_path):
    command = tmp_path / "python"
    command.write_text('#!/bin/bash\n[ "$SLURMD_NODENAME" = n2 ] && exit 9\nexec python3 "$@"\n')
    command.chmod(0o755)
    rows = launched(cluster, "nodes=2", "tasks_per_node=2", f"cluster.python={command} ")  # or in an hour
    assert "2 of 4 ranks" in rows["launch"]["found"] and "missing on n2 (2)" in rows["launch"]["found"]
    assert rows["launch"]["advice"].endswith("cluster.exclude")


def test_a_node_without_scontrol(cluster, slurm_sslrun, patient, tmp_path):
    command = tmp_path / "python"
    words = f'[ "$SLURMD_NODENAME" = n2 ] && export PATH=/nowhere\nexec {sys.executable} "$@"\n'
    command.write_text(f"#!/bin/sh\n{words}")
    command.chmod(0o755)
    given = ("nodes=2", f"cluster.python={command} ", f"runs={tmp_path / 'runs'}")
    answer = patient(slurm_sslrun(cluster))("doctor", "--launch", "--json", *given)
    (row,) = (row for row in answer.json if row["check"] == "slurm programs")
    assert row["level"] == "warn" and row["found"].startswith("n2: no scontrol on the PATH")
    assert "cluster.exclude" in row["advice"]


def test_a_python_that_the_nodes_lack(cluster, launched):
    rows = launched(cluster, "nodes=2", "cluster.python=/nowhere/python")
    assert "n1 has no /nowhere/python" in rows["launch"]["found"]


def test_a_setup_that_fails(cluster, launched):
    rows = launched(cluster, "nodes=2", "cluster.setup=['echo no such module; exit 7']")
    said = "n1: cluster.setup[0] `echo no such module; exit 7` left the shell with 7: no such module"
    assert rows["launch"]["found"].endswith(f"exit code 3:0; {said}")
