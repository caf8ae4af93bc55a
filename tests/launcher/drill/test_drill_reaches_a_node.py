"""What a drill does on a node of a job it does by srun, with the options that the run's cluster needs."""

from launcher.drill.places import OnSlurm


def test_by_the_options_of_the_runs_cluster(ledgers, slurm_said, tmp_path):
    slurm_said.says("srun", "said\n")
    srun = "cluster.srun={mpi:none,container-image:a}"
    run = ledgers.create("method=rotnet", "recipe=tiny", "cluster=generic", "cluster.gpus_per_node=0", srun)
    ledgers.submit(run, "7")
    assert OnSlurm(tmp_path / "log", {}).on(run, "n2", "kill", "-9", "4711") == "said\n"
    (words,) = slurm_said.commands("srun")
    assert {"--jobid=7", "--nodelist=n2", "--overlap", "--mpi=none"} <= {*words} and words[-2:] == ["-9", "4711"]
    assert not any("container" in word for word in words)
