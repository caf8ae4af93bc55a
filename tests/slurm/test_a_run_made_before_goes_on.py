"""A run that an earlier sslrun made goes on in the queue, with the code that it was made with."""

from launcher.run.folder import RunDir

STOPPED = "rotnet-tiny-d438549a"


def test_its_job_starts_that_code(cluster, slurm_sslrun, config_dir, settled, made_before):
    known = "cluster=fake", "cluster.standby=true"  # what that code does not know has to be as it is without it
    sslrun, where = slurm_sslrun(cluster), (*known, "tasks_per_node=1", "cluster.cpus_per_task=1")
    sslrun("resume", STOPPED, *where, "--config-dir", config_dir(cluster), f"runs={made_before}")
    done = settled(sslrun, made_before / STOPPED)
    assert (done["state"], done["step"], done["lost_steps"]) == ("done", 18, 0), done
    assert (RunDir(made_before / STOPPED).code_folder() / "launcher" / "batch.py").is_file()
