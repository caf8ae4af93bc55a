"""One task of an array has the array's own number, and whoever puts that number back into the queue puts back all."""

import json
from pathlib import Path

SWEEP = ("--multirun", "method=rotnet", "recipe=tiny", "method.epochs=200", "cluster=fake", "tasks_per_node=1")


def count(run: Path, name: str) -> int:
    return sum(f'"event": "{name}"' in file.read_text() for file in (run / "events").iterdir())


def training(run: Path) -> bool:
    file = run / "progress.json"
    return file.exists() and json.loads(file.read_text()).get("step", 0) > 0


def test_what_one_point_of_a_sweep_does_is_no_other_points_business(cluster, slurm_sslrun, config_dir, tmp_path, until):
    sslrun = slurm_sslrun(cluster)
    folder = config_dir(cluster, cpus_per_task=1)
    answer = sslrun(*SWEEP, "seed=0,1", "--config-dir", folder, f"runs={tmp_path / 'runs'}", "--json").json
    jobs = {Path(run["path"]): run["job"] for run in answer["runs"]}
    until(lambda: all(map(training, jobs)), seconds=240)
    for told, job in jobs.items():
        cluster.run("scancel", "--signal=USR2", job)
        until(lambda run=told: count(run, "restored") == 1, seconds=240)
    assert [(count(run, "start"), count(run, "end")) for run in jobs] == [(2, 1), (2, 1)]
    shown = [sslrun.show(run) for run in jobs]
    assert [run["state"] for run in shown] == ["running", "running"]
    assert [run["restarts"] for run in shown] == [{"asked": 1}, {"asked": 1}]
