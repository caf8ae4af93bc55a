"""`sslrun doctor --launch` starts what training would start, on 64 nodes of 8 GPUs, and leaves nothing but a report."""

import json

import pytest

from launcher.slurm import commands


def test_the_gpus_and_nodes_of_a_cluster_are_counted(big_cluster, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", big_cluster.environment["SLURM_CONF"])
    assert [n.gpus for n in commands.nodes()] == [8] * 64
    assert commands.partitions()[0].nodes == tuple(f"n{i + 1}" for i in range(64))


@pytest.mark.slow
def test_512_of_512_ranks(big_cluster, slurm_sslrun, patient, tmp_path):
    answer = patient(slurm_sslrun(big_cluster))("doctor", "--launch", "nodes=64", f"runs={tmp_path}", "--json")
    rows = {row["check"]: row for row in answer.json}
    assert all(row["level"] != "bad" for row in rows.values())
    assert rows["launch"]["found"].startswith("512 of 512 ranks in ")
    assert rows["rendezvous"]["found"].endswith("reached from 64 of 64 nodes")
    assert rows["run directory"]["found"].startswith("64 of 64 nodes read and write")
    assert rows["clocks"]["level"] == "ok" and rows["clocks"]["found"].startswith("64 nodes; n")
    assert {"slowest start"} <= rows.keys()

    # Nothing is left but the report, which has every rank.
    assert big_cluster.run("squeue", "--noheader").stdout == ""
    (kept,) = (tmp_path / ".doctor").iterdir()
    ranks = json.loads(kept.read_text())["report"]["ranks"]
    assert {(rank["rank"], rank["node"], rank["local_rank"]) for rank in ranks} == {
        (rank, f"n{rank // 8 + 1}", rank % 8) for rank in range(512)
    }


def test_fewer_tasks_than_gpus(big_cluster, slurm_sslrun, tmp_path):
    where = ("nodes=3", "tasks_per_node=2", "cluster.partition=short")
    rows = slurm_sslrun(big_cluster)("doctor", "--launch", *where, f"runs={tmp_path}", "--json").json
    assert rows[0]["found"].startswith("6 of 6 ranks")


def test_a_job_that_could_never_start_is_not_submitted(cluster, slurm_sslrun, tmp_path):
    sslrun = slurm_sslrun(cluster)
    assert "use nodes=2" in sslrun("doctor", "--launch", "nodes=3", f"runs={tmp_path}", code=2).complaint
    assert "no such partition" in sslrun("doctor", "--launch", "cluster.partition=nope", code=2).complaint
    refused = sslrun("doctor", "--launch", "cluster.constraint=nowhere", f"runs={tmp_path}", code=3)
    assert "sbatch: Invalid feature specification" in refused.complaint
    assert cluster.run("squeue", "--noheader").stdout == ""
    assert not any((tmp_path / ".doctor").iterdir())
