"""One rank is killed: the job goes on with all of them, without the queue. More faults: tests/slurm/test_fault_*.py."""

import os
import signal

RUN = ("method=rotnet", "recipe=tiny", "method.epochs=10", "nodes=2", "tasks_per_node=1", "cluster=fake")


def test_the_same_job_goes_on(cluster, slurm_sslrun, config_dir, watched, settled):
    sslrun = slurm_sslrun(cluster)
    sslrun(*RUN, "cluster.cpus_per_task=1", "--config-dir", config_dir(cluster), f"runs={watched.runs}")
    os.kill(watched.ranks(1)[1][1], signal.SIGKILL)
    shown = settled(sslrun, watched.path)
    assert (shown["state"], shown["restarts"]) == ("done", {"killed": 1}), shown
    assert [(end["cause"], end["requeued"], end["in_place"]) for end in watched.events("end")] == [
        ("killed", False, True),
        ("done", False, False),
    ]
    first, second = watched.events("start")
    assert (first["job"], first["restart_count"]) == (second["job"], second["restart_count"])
