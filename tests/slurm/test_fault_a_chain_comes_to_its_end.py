"""RotNet, DeeperCluster behind it and two evaluations behind that, typed at once: they come to their end one after the
other, although the first is preempted, and fails, and is resumed as another job."""

from pathlib import Path

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]

SHAPE = ("recipe=tiny", "nodes=1", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")


def test_a_chain_comes_to_its_end(cluster, slurm_sslrun, config_dir, tmp_path, ledger, standing, settled, until):
    sslrun, runs = slurm_sslrun(cluster), f"runs={tmp_path}/of a thesis"
    shape = (*SHAPE, "--config-dir", config_dir(cluster, partition="low"), runs)

    def typed() -> list[dict]:
        first = sslrun("method=rotnet", "method.epochs=30", *shape, "--json").json
        second = sslrun("method=deepercluster", f"init_from={first['id']}", *shape, "--json").json
        judged = [sslrun("eval", second["id"], f"protocol={name}", runs, "--json").json for name in ("knn", "logistic")]
        return [first, second, *judged]

    def dependencies() -> dict[str, str]:
        rows = cluster.run("squeue", "--noheader", "--format=%i %r %E").stdout.splitlines()
        return {job: f"{reason} {after}" for job, reason, after in map(str.split, rows)}

    first, second, *judged = chain = typed()
    rotnet, deeper = Path(first["path"]), Path(second["path"])
    assert not any(each["joined"] for each in chain)
    assert dependencies()[second["job"]] == f"Dependency afterok:{first['job']}(unfulfilled)"
    for each in judged:
        assert dependencies()[each["job"]] == f"Dependency afterok:{second['job']}(unfulfilled)"

    until((rotnet / "progress.json").exists)
    with standing(rotnet):
        cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 4")
        until(lambda: ledger(rotnet, "end"))
    (rotnet / "code").rename(rotnet / "away")
    assert dependencies()[second["job"]] == f"Dependency afterok:{first['job']}(unfulfilled)"
    assert settled(sslrun, rotnet)["state"] == "failed"
    (rotnet / "away").rename(rotnet / "code")
    assert [start["job"] for start in ledger(rotnet, "start")] == [first["job"]] * 2
    until(lambda: dependencies()[second["job"]] == f"DependencyNeverSatisfied afterok:{first['job']}(failed)")
    assert f"{deeper.name} waits for {rotnet.name} (failed" in sslrun("status", runs).out
    assert not ledger(deeper, "start")

    resumed = sslrun("resume", rotnet, "--json").json["job"]
    assert resumed != first["job"]
    assert dependencies()[second["job"]].endswith(f"afterok:{resumed}(unfulfilled)")
    for each, path in zip(chain, (rotnet, deeper, *(each["path"] for each in judged)), strict=True):
        assert settled(sslrun, path)["state"] == "done", each
    assert [len(ledger(path["path"], "start")) for path in (second, *judged)] == [1, 1, 1]
    again = typed()
    assert [(each["id"], each["state"], each["joined"]) for each in again] == [(e["id"], "done", True) for e in chain]
    (pinned,) = ledger(deeper, "pinned")
    assert pinned["digest"] == sslrun.show(rotnet)["state_digest"]
