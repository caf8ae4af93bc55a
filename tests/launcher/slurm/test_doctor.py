"""What doctor says of what Slurm answered, and the cluster file that it writes."""

import re

import pytest
import recorded
import yaml

from launcher.errors import InputError
from launcher.slurm import doctor
from launcher.spec.schema import ClusterConfig


@pytest.fixture
def examined(slurm_said, tmp_path):
    """`examined(partition="mixed")`: doctor's findings by their check, for jobs of such a cluster."""
    slurm_said.cluster()

    def run(*, named=False, **cluster):
        rows = doctor.examine(tmp_path, ClusterConfig(name="test", **cluster), named=named)
        return {row.check: row for row in rows}

    return run


# As scontrol shows a partition after `scontrol update partitionname=closed state=...` -> how bad that is.
@pytest.mark.parametrize(("state", "level"), [("UP", "ok"), ("DOWN", "warn"), ("DRAIN", "bad"), ("INACTIVE", "bad")])
def test_a_partition_is_bad_where_slurm_takes_no_jobs_for_it(examined, slurm_said, state, level):
    slurm_said.says("scontrol show partition -o", recorded.PARTITIONS.replace("State=DRAIN", f"State={state}"))
    row = examined(partition="closed")["partition"]
    assert row.level == level
    assert state == "UP" or f"closed is {state}" in row.found


@pytest.mark.parametrize(
    ("line", "level", "said"), [("", "ok", "after 300 s"), ("60 sec", "ok", "after 60 s"), ("0 sec", "warn", "never")]
)
def test_how_long_a_dead_node_goes_unnoticed_and_what_a_spare_makes_of_it(examined, slurm_said, line, level, said):
    config = recorded.CONFIG + (f"SlurmdTimeout           = {line}\n" if line else "")
    slurm_said.says("scontrol show config", config)
    row = examined()["lost nodes"]
    assert row.level == level and said in row.found and "cluster.spare_nodes=1" in row.advice


@pytest.mark.parametrize(
    ("version", "level"), [("22.05.8", "ok"), ("21.08.8", "warn"), ("20.02.7", "warn"), ("?", "ok")]
)
def test_what_starts_again_in_its_job_and_which_slurm_has_no_use_for_a_spare(examined, slurm_said, version, level):
    config = re.sub(r"(?m)^(SLURM_VERSION\s*=).*", rf"\1 {version}", recorded.CONFIG)
    assert config != recorded.CONFIG or version == "22.05.8"
    slurm_said.says("scontrol show config", config)
    row = examined()["same job"]
    assert row.level == level and "without KillWait (5 s) or queue" in row.found
    assert ("spare_nodes" in row.advice) == (level == "warn")


@pytest.mark.parametrize("key", ["SchedulerParameters", "DependencyParameters"])
def test_whether_runs_behind_others_are_left_in_the_queue(examined, slurm_said, key):
    assert "kill_invalid_depend" not in examined()["chains"].found
    config = re.sub(rf"(?m)^{key}\s*=.*\n", "", recorded.CONFIG)
    slurm_said.says("scontrol show config", f"{config}{key} = bf_interval=30,kill_invalid_depend\n")
    row = examined()["chains"]
    assert row.level == "ok" and "--kill-on-invalid-dep=no" in row.found


# -- preemption by QOS -------------------------------------------------------------------------------------------------

BY_QOS = f"{recorded.CONFIG}PreemptType = preempt/qos\nPreemptMode = REQUEUE\n"
QOS, USER = "sacctmgr --parsable2 --noheader show qos", "sacctmgr --parsable2 --noheader show user"


@pytest.fixture
def by_qos(examined, slurm_said, monkeypatch):
    """`by_qos(qos="mid")`: (doctor's word on preemption, what it writes into the cluster's file) where QOS decide. What
    sacctmgr says was recorded: the clusters of these tests have no database."""
    monkeypatch.delenv("SBATCH_QOS", raising=False)
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    slurm_said.says("scontrol show config", BY_QOS)
    slurm_said.says(QOS, recorded.QOS)
    slurm_said.says(USER, recorded.ASSOCIATIONS)

    def ask(**cluster):
        about = yaml.safe_load(doctor.as_yaml(ClusterConfig(name="test", **cluster)))
        return examined(**cluster)["preemption"], {name: about.get(name) for name in ("qos", "preemptible", "grace_s")}

    return ask


def test_who_takes_the_nodes_of_the_users_qos_and_how_long_that_takes(by_qos):
    row, about = by_qos()
    assert row.level == "ok"
    assert row.found == (
        "jobs of QOS high take nodes from jobs of QOS normal, in which yours run: every rank gets SIGTERM, has 90 s "
        "(GraceTime of QOS normal) until it is killed, and the job is requeued"
    )
    assert row.advice.endswith("jobs of cluster.qos=high or partq keep their nodes")
    assert about == {"qos": "normal", "preemptible": True, "grace_s": 90}


def test_a_qos_that_nobody_preempts(by_qos):
    row, about = by_qos(qos="partq")
    kept = "jobs of main keep their nodes: no QOS preempts QOS partq, in which they run"
    assert (row.level, row.found) == ("ok", kept)
    assert about == {"qos": "partq", "preemptible": False, "grace_s": 5}


def test_a_qos_has_a_mode_of_its_own(by_qos):
    row, about = by_qos(qos="mid")
    assert row.level == "warn" and "has 30 s (GraceTime of QOS mid)" in row.found and "cancelled" in row.found
    assert "sslrun resume RUN" in row.advice and about["grace_s"] == 30


def test_the_partitions_grace_is_nothing_to_a_qos_without_one(by_qos, slurm_said):
    """Measured: ranks were killed after KillWait where the partition had a longer GraceTime."""
    slurm_said.says("scontrol show partition -o", recorded.PARTITIONS.replace("GraceTime=0", "GraceTime=600"))
    slurm_said.says(QOS, recorded.QOS.replace("00:01:30", "00:00:00"))
    row, about = by_qos()
    assert row.level == "warn" and "has 5 s (KillWait, since the GraceTime of QOS normal is 0)" in row.found
    assert about == {"qos": "normal", "preemptible": True, "grace_s": 5}


# As slurmctld chose the QOS of a job that named none: the user's associations -> the QOS.
CHOSEN = {
    "root|test|root||mid|high,mid": "mid",
    "root|test|root|||high,mid,normal,partq": "normal",
    "root|test|root|||mid": "mid",
    "root|test|root||high|high\nroot|test|root|main|mid|mid": "mid",
    "root|test|root||high|high\nroot|test|root|short|mid|mid": "high",
    "root|other|root||high|high\nroot|test|root||mid|mid": "mid",
    "lab|test|root||high|high\nlab|test|lab||mid|mid": "mid",
    "": "normal",
}


@pytest.mark.parametrize("associations", CHOSEN)
def test_the_qos_of_a_job_that_names_none(by_qos, slurm_said, associations):
    slurm_said.says(USER, associations)
    assert by_qos()[1]["qos"] == CHOSEN[associations]


def test_the_account_and_the_environment_are_heeded(by_qos, slurm_said, monkeypatch):
    slurm_said.says(USER, "root|test|root||high|high\nroot|test|lab||mid|mid")
    assert by_qos(account="lab")[1]["qos"] == "mid"
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    assert by_qos()[1]["qos"] == "mid"
    monkeypatch.setenv("SBATCH_QOS", "partq")
    assert by_qos()[1]["qos"] == "partq"
    assert by_qos(qos="normal")[1]["qos"] == "normal"


def test_jobs_of_one_qos_may_take_one_anothers_nodes(by_qos, slurm_said):
    slurm_said.says(QOS, recorded.QOS.replace("30|cancel", "30|requeue,within"))
    assert "jobs of QOS mid take nodes from jobs of QOS mid" in by_qos(qos="mid")[0].found.replace("high, ", "")


def test_a_qos_that_there_is_not(by_qos):
    with pytest.raises(InputError) as refused:
        by_qos(qos="hihg")
    assert str(refused.value) == "cluster.qos=hihg: there is no such QOS; there are: high, mid, normal, partq"


@pytest.mark.parametrize("what", [QOS, USER])
def test_where_the_database_does_not_answer_it_is_said_and_jobs_are_ready_for_it(by_qos, slurm_said, what):
    slurm_said.says(what, recorded.Refused("sacctmgr: error: refused\n"))
    row, about = by_qos()
    assert row.level == "warn" and row.found.endswith("and cannot be asked for: sacctmgr: refused")
    assert about == {"qos": None, "preemptible": True, "grace_s": 5}


def test_a_config_that_does_not_say_so_does_not_fit(by_qos, examined):
    small = {"named": True, "gpus_per_node": 0, "timeout_min": 5}
    assert examined(**small)["config"].advice == "set preemptible: true and grace_s: 90"
    assert examined(**small, preemptible=True, grace_s=120)["config"].advice == "set grace_s: 90"
    assert examined(**small, preemptible=True, grace_s=90)["config"].level == "ok"
    assert examined(**small, qos="high")["config"].level == "ok"
