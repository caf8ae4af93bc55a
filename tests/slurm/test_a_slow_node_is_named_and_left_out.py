"""A node on which steps take longer is named as Slurm calls it, and what `show` says to type leaves it out."""

import json
import shlex
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # some hundred steps, and a second start

LATE = Path(__file__).parents[1] / "support" / "slow_rank"
SIZE = ("method.global_batch=16", "data.images=1600", "method.epochs=20")  # 100 steps an epoch


def test_the_line_that_status_prints_has_the_run_go_on_without_the_slow_node(
    start_cluster, slurm_sslrun, config_dir, watched, settled, until
):
    cluster = start_cluster(nodes=3, cpus=4)
    order = json.dumps({"where": {"SLURMD_NODENAME": "n2"}, "seconds": 0.06})
    setup = [f"export PYTHONPATH={LATE} SSLRUN_TEST_SLOW={shlex.quote(order)}"]
    there = config_dir(cluster, setup=setup)
    sslrun, words = slurm_sslrun(cluster), ("--config-dir", there, "cluster=fake", "cluster.cpus_per_task=1")
    sslrun("method=rotnet", "recipe=tiny", *SIZE, *words, "nodes=2", "tasks_per_node=1", f"runs={watched.runs}")
    run = watched.path
    (event,) = until(lambda: watched.events("slow_rank"))
    assert (event["rank"], event["node"]) == (1, "n2")

    told = [line for line in sslrun("status", f"runs={watched.runs}").out.splitlines() if "times as long" in line]
    typed = told[0].partition("; ")[2]
    where = f"{run.name} runs={watched.runs}"
    assert typed == f"sslrun cancel {where} && sslrun resume {where} cluster.exclude=n2"
    assert typed in sslrun("show", run, f"runs={watched.runs}").out
    for command in typed.split(" && "):
        sslrun(*shlex.split(command)[1:])

    begun = until(lambda: [e["nodes"] for e in watched.events("start") if e["generation"] == 2])
    assert begun == ["n[1,3]"]
    assert sslrun.show(run)["slow_ranks"] == []
    sslrun("cancel", run)
    assert settled(sslrun, run)["state"] == "cancelled"
