"""The JSON that scripts rely on keeps its names; it is the last line of stdout, and the rest goes to stderr."""

import re

LAUNCH = {"id", "path", "state", "job", "joined"}
PLAN = {
    "method", "nodes", "gpus_per_node", "world_size", "per_gpu_batch", "accumulation", "global_batch", "lr", "groups",
    "memory_gb", "disk_gb", "hours", "gpu_hours", "sbatch", "why",
}  # fmt: skip
STATUS = {"id", "path", "method", "state", "step", "steps", "checkpoint", "restarts", "lost_steps", "evals"}


def test_launch(sslrun, undisturbed, journey):
    run = undisturbed()
    answer = sslrun(*journey, f"runs={run.parent}", "--json")
    assert len(answer.out.splitlines()) == 1
    assert answer.json.keys() >= LAUNCH
    assert (answer.json["id"], answer.json["path"], answer.json["state"]) == (run.name, str(run), "done")
    assert answer.json["job"] is None


def test_plan(sslrun):
    plan = sslrun("plan", "method=deepercluster", "nodes=8", "--json").json
    assert plan.keys() >= PLAN
    assert (plan["world_size"], plan["per_gpu_batch"], plan["global_batch"]) == (64, 48, 3072)
    assert plan["groups"] == {"count": 16, "size": 4}
    assert plan["sbatch"].startswith("#!/bin/bash\n")
    assert all(isinstance(sentence, str) and sentence for sentence in plan["why"].values())


def test_show(sslrun, undisturbed):
    run = undisturbed()
    shown = sslrun.show(run)
    assert shown.keys() >= STATUS | {"state_digest"}
    assert (shown["id"], shown["path"], shown["method"]) == (run.name, str(run), "deepercluster")
    assert (shown["state"], shown["step"], shown["steps"]) == ("done", 40, 40)
    assert re.fullmatch(r"[0-9a-f]{64}", shown["state_digest"])
    assert shown["checkpoint"] == str(run / "checkpoints" / "step_00000040")
    assert (shown["restarts"], shown["lost_steps"]) == ({}, 0)
    assert shown["evals"]["knn"].keys() >= {"trained", "untrained", "raw_pixels"}
    assert shown["evals"]["clusters"].keys() >= {"nmi_labels", "nmi_previous"}


def test_status(sslrun, undisturbed, tmp_path):
    run = undisturbed()
    (row,) = sslrun("status", f"runs={run.parent}", "--json").json
    assert row.keys() >= STATUS
    assert "state_digest" not in row
    assert {key: row[key] for key in STATUS} == {key: sslrun.show(run)[key] for key in STATUS}
    assert sslrun("status", f"runs={tmp_path}/nothing-here", "--json").json == []
