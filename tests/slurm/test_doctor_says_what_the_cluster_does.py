"""`sslrun doctor` against real clusters: what it says is what their configuration does."""

import json
import os
import shutil
import sys

import pytest
import yaml

ENTRY = {"check", "level", "found", "advice"}
FIRST_SIGNAL = """\
import os, signal, sys, time
def told(number, _):
    open(sys.argv[1], "w").write(signal.Signals(number).name)
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, told)
open(sys.argv[1] + ".ready", "w")
time.sleep(3600)
"""


@pytest.fixture(scope="module")
def strict(start_cluster):
    """A cluster that differs in all that doctor reads; a node of it is drained."""
    partitions = {
        "open": "Default=YES MaxTime=30 MaxNodes=1 PriorityTier=1 GraceTime=90 PreemptMode=REQUEUE",
        "urgent": "PriorityTier=9 PreemptMode=OFF",
        "cancelled": "PriorityTier=1 PreemptMode=CANCEL AllowAccounts=physics,biology",
    }
    config = {
        "SlurmctldParameters": "preempt_send_user_signal",
        "JobRequeue": 0,
        "MaxArraySize": 1,
        "AuthInfo": "cred_expire=7",
    }
    cluster = start_cluster(nodes=3, gpus=4, cpus=8, partitions=partitions, config=config)
    cluster.run("scontrol", "update", "nodename=n2", "state=drain", "reason=gpu 3 = off | bus X=1")
    yield cluster
    cluster.stop()


@pytest.fixture
def examined(slurm_sslrun, tmp_path):
    """`examined(cluster, *overrides, code=0)`: the findings by their check."""

    def run(cluster, *overrides, code=0):
        rows = slurm_sslrun(cluster)("doctor", "--json", f"runs={tmp_path}", *overrides, code=code).json
        assert all(set(row) == ENTRY and row["level"] in ("ok", "warn", "bad") for row in rows)
        return {row["check"]: row for row in rows}

    return run


def test_a_partition_that_is_not_preempted(cluster, examined):
    rows = examined(cluster)
    assert rows["partition"]["found"].startswith("main (default)")
    assert rows["preemption"]["level"] == "ok" and "keep their nodes" in rows["preemption"]["found"]
    assert rows["time limit"]["found"].startswith("jobs of main end after 2 days")
    assert rows["nodes"]["found"].startswith(f"2 x no GPU, {cluster.cpus} CPUs")
    assert rows["accounting"]["found"].startswith("off")
    assert rows["nodes out of use"]["found"] == "none of 2"


def test_a_partition_that_is_preempted(cluster, grace, strict, examined):
    grace(20)
    short = examined(cluster, "cluster.partition=low")["preemption"]
    assert short["level"] == "warn"
    assert all(said in short["found"] for said in ("jobs of high", "SIGTERM", "20 s (GraceTime)", "requeued"))
    long = examined(strict)["preemption"]
    assert long["level"] == "ok" and "SIGUSR2, has 90 s (GraceTime)" in long["found"]
    gone = examined(strict, "cluster.partition=cancelled")["preemption"]
    assert gone["level"] == "warn" and "5 s (KillWait" in gone["found"] and "resume" in gone["advice"]


def test_everything_else_that_an_administrator_may_set(strict, examined):
    rows = examined(strict)
    assert "n2 drain" in rows["nodes out of use"]["found"]
    assert "(gpu 3 = off | bus X=1); 2 of 3 nodes" in rows["nodes out of use"]["found"]
    assert rows["nodes"]["found"].startswith("3 x 4 GPUs, 8 CPUs")
    assert rows["nodes a job"]["found"] == "open gives a job 1 at most"
    assert rows["time limit"]["found"].startswith("jobs of open end after 30 minutes")
    assert "only jobs that ask" in rows["requeue"]["found"] and "up to 7 s" in rows["requeue"]["found"]
    assert rows["arrays"]["level"] == "warn"
    accounts = examined(strict, "cluster.partition=cancelled")["partition"]
    assert accounts["level"] == "warn" and "physics, biology" in accounts["advice"]


@pytest.mark.parametrize("name", ["cluster", "strict"])
def test_the_signal_of_a_preemption_is_the_one_that_doctor_names(name, request, examined, tmp_path, until):
    cluster = request.getfixturevalue(name)
    low, high = ("low", "high") if name == "cluster" else ("open", "urgent")
    word = tmp_path / "word"
    (tmp_path / "job.sh").write_text(
        f"#!/bin/sh\nexec srun -n1 {sys.executable} -I -S -c '{FIRST_SIGNAL}' {word}\n".replace("\n\n", "\n")
    )
    taken = ("--nodelist=n1", "--nodes=1", "--exclusive", "--output=/dev/null", "--time=30", "--parsable")
    victim = cluster.run("sbatch", *taken, f"--partition={low}", "--signal=USR2@60", tmp_path / "job.sh").stdout.strip()
    until(lambda: (tmp_path / "word.ready").exists())
    cluster.run("sbatch", *taken, f"--partition={high}", "--wrap=true")
    until(lambda: word.exists() and word.read_text())
    cluster.run("scancel", victim)
    assert (
        f"every rank gets {word.read_text()}, " in examined(cluster, f"cluster.partition={low}")["preemption"]["found"]
    )


def test_the_yaml_that_it_prints_fits_the_cluster(strict, examined, tmp_path):
    text = examined(strict)["cluster yaml"]["found"]
    about = yaml.safe_load(text)
    assert (about["partition"], about["timeout_min"], about["preemptible"]) == ("open", 30, True)
    assert (about["gpus_per_node"], about["cpus_per_node"]) == (4, 8)
    assert about["grace_s"] == 90
    folder = tmp_path / "own" / "cluster"
    folder.mkdir(parents=True)
    (folder / f"{about['name']}.yaml").write_text(text)
    rows = examined(strict, "--config-dir", folder.parent, f"cluster={about['name']}")
    assert rows["config"]["level"] == "ok"


def test_a_config_that_does_not_fit_is_bad(cluster, slurm_sslrun, config_dir, tmp_path):
    folder = config_dir(cluster, gpus_per_node=8, partition="short", timeout_min=60)
    answer = slurm_sslrun(cluster)(
        "doctor", "--config-dir", folder, "cluster=fake", f"runs={tmp_path}", "--json", code=3
    )
    found = [row["found"] for row in answer.json if row["check"] == "config" and row["level"] == "bad"]
    assert len(found) == 2
    assert "gpus_per_node=8" in found[0] and "timeout_min=60" in found[1]


def test_a_folder_for_runs_that_cannot_hold_them_is_bad(cluster, examined):
    row = examined(cluster, "runs=/proc/runs", code=3)["runs folder"]
    assert row["level"] == "bad" and "/proc/runs" in row["found"]


def test_a_table_for_people_and_one_line_for_what_is_wrong(cluster, slurm_sslrun, tmp_path):
    sslrun = slurm_sslrun(cluster)
    answer = sslrun("doctor", f"runs={tmp_path}")
    assert "keep their nodes" in " ".join(answer.out.split()) and "\ngrace_s: " in answer.out
    assert (
        "the cluster has no such partition; it has: high, low"
        in sslrun("doctor", "cluster.partition=nope", code=2).complaint
    )
    assert "and nothing else" in sslrun("doctor", "method=rotnet", code=2).complaint
    assert "it has no queue" in sslrun("doctor", "cluster=local", code=2).complaint


def test_without_slurm_it_says_so(cluster, slurm_sslrun, tmp_path):
    bare = slurm_sslrun(cluster)
    bare.environment["PATH"] = str(tmp_path / "empty")
    answer = bare("doctor", "--json", code=3)
    assert "no Slurm here: sbatch is not on this machine" in answer.complaint
    assert json.loads(answer.out)["exit_code"] == 3
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "sbatch").symlink_to(shutil.which("sbatch"))
    assert "no Slurm here: scontrol is not on this machine" in bare("doctor", code=3).complaint

    lost = slurm_sslrun(cluster)
    lost.environment["SLURM_CONF"] = os.devnull
    assert "no Slurm here: slurmctld does not answer" in lost("doctor", code=3).complaint
