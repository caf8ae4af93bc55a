"""python benchmarks/slurm.py        two minutes; needs what tests/slurm needs.

What a person waits for on a login node, against Slurm clusters of their own on this machine: a sweep of 256 runs, a
table of 300, a launch of 512 ranks on 64 nodes of 8 fake GPUs. CPU is what the command itself takes; beside other work
the wall time says little. Limits: 5 s, 1 s, 60 s.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SSLRUN = str(Path(sys.executable).with_name("sslrun"))
CLUSTER = Path(__file__).parents[1] / "tests" / "slurm" / "cluster.py"
SHAPE = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1")

_spec = importlib.util.spec_from_file_location("cluster", CLUSTER)
clusters = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(clusters)


def measure(name, limit, turns, command, cluster, folder):
    """Prints a row; `command` is given the turn, so that each one makes runs of its own."""
    walls, works, load = [], [], os.getloadavg()[0]
    for turn in range(turns):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command(turn), cwd=folder, env=cluster.environ(), capture_output=True, text=True)
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        works.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
    wall = statistics.median(walls)
    over = "   over the limit" if limit and wall > limit else ""
    print(f"{name:46} {wall:6.2f} s  {min(walls):6.2f} s  {statistics.median(works):5.2f} s  load {load:.1f}{over}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    if program := clusters.missing():
        parser.error(f"{program} is not on this machine; Debian and Ubuntu: apt-get install slurm-wlm munge")
    print(f"{'':46}   median   fastest      CPU")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        later = {"name": "fake", "kind": "slurm", "gpus_per_node": 0, "additional_parameters": {"begin": "now+1hour"}}
        (folder / "configs" / "cluster").mkdir(parents=True)
        (folder / "configs" / "cluster" / "fake.yaml").write_text(json.dumps(later))  # JSON is YAML
        sweep = [SSLRUN, "--multirun", *SHAPE, "--config-dir", str(folder / "configs")]
        with clusters.Cluster(nodes=2) as small:
            points = ("method.lr=0.01,0.02", "seed=range(0,128)")
            measure("256 runs into the queue", 5, turns, lambda n: [*sweep, *points, f"runs=s{n}"], small, folder)
            subprocess.run(
                [*sweep, "seed=range(0,300)", "runs=many"],
                cwd=folder,
                env=small.environ(),
                capture_output=True,
                check=True,
            )
            status = [SSLRUN, "status", "runs=many"]
            measure("status, 300 runs", 1, turns, lambda _: status, small, folder)
            small.stop_controller()
            measure("status, without slurmctld and sacct", 1, turns, lambda _: status, small, folder)
            squeue = ["sh", "-c", "squeue || true"]
            measure("squeue, without slurmctld", None, 1, lambda _: squeue, small, folder)
        with clusters.Cluster(nodes=64, gpus=8, cpus=16) as big:
            launch = [SSLRUN, "doctor", "--launch", "nodes=64", "runs=launch"]
            measure("doctor --launch nodes=64, 512 ranks", 60, turns, lambda _: launch, big, folder)


if __name__ == "__main__":
    main()
