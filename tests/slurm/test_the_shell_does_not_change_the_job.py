"""Whatever shell `sslrun` is typed in, also one inside an allocation, the job is the same."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = (
    "method=rotnet",
    "recipe=tiny",
    "method.epochs=1",
    "cluster=fake",
    "tasks_per_node=1",
    "cluster.cpus_per_task=1",
    "--json",
)
LATER = "cluster.additional_parameters.begin=now+1hour"
# sbatch would obey the first; srun the second, and bind all ranks to one core; the ranks the third, and be no world.
FOREIGN = {
    "SBATCH_PARTITION": "short", "SBATCH_TIMELIMIT": "1", "SBATCH_REQUEUE": "0", "SBATCH_NO_REQUEUE": "1",
    "SBATCH_MEM_PER_CPU": "1", "SBATCH_EXCLUSIVE": "1", "SBATCH_ARRAY_INX": "0-3", "SBATCH_EXPORT": "NONE",
    "SBATCH_JOB_NAME": "other", "SBATCH_DEPENDENCY": "afterok:77", "SBATCH_OUTPUT": "/nowhere", "SBATCH_WAIT": "1",
    "SBATCH_CONSTRAINT": "none", "SBATCH_SIGNAL": "KILL@9", "SBATCH_OPEN_MODE": "truncate", "SBATCH_HINT": "x",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_MEM_BIND": "local",
    "SLURM_NTASKS": "7", "SLURM_NNODES": "2", "SLURM_JOB_ID": "99", "SLURM_JOBID": "99", "SLURM_EXACT": "1",
    "SLURM_OVERLAP": "1", "SLURM_EXPORT_ENV": "NONE", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "4",
    "SLURM_RESTART_COUNT": "4", "SLURM_UMASK": "0000", "SLURMD_NODENAME": "n9", "SRUN_CPUS_PER_TASK": "3",
    "RANK": "3", "LOCAL_RANK": "2", "WORLD_SIZE": "9", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "1",
    "SSLRUN_GENERATION": "9", "SSLRUN_LOCK_FD": "4", "SSLRUN_RENDEZVOUS": "file:///nowhere", "SSLRUN_THREADS": "9",
    "SUBMITIT_EXECUTOR": "local", "OMP_NUM_THREADS": "77", "PYTHONPATH": "/nowhere",
}  # fmt: skip
# What differs between any two jobs.
OWN = re.compile(r"\S*(JobId|Time|Sid|SecsPre\w*|Comment|Reason|StdOut|StdErr|Command|Eval|Priority|WorkDir)=\S*")


@pytest.fixture(scope="module")
def typed(cluster, slurm_sslrun, config_dir):
    """`typed(override, ..., inside=(), more={})`: sslrun, typed inside a command and with more variables."""
    sslrun, folder = slurm_sslrun(cluster), config_dir(cluster)

    def run(*overrides, inside=(), more=None) -> dict:
        command = [*inside, Path(sys.executable).with_name("sslrun"), *RUN, "--config-dir", folder, *overrides]
        environment = {key: value for key, value in {**sslrun.environment, **(more or {})}.items() if value}
        done = subprocess.run(command, cwd=sslrun.home, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_job_that_is_submitted_inside_another_is_like_any_other(cluster, typed, tmp_path):
    def job(name: str, **how) -> str:
        id = typed(LATER, f"runs={tmp_path / name}", **how)["job"]
        return OWN.sub("", cluster.run("scontrol", "show", "job", id).stdout)

    plain = job("plain")
    assert "Partition=main" in plain and "Requeue=1" in plain
    assert job("variables", more=FOREIGN) == plain
    assert job("no-home", more={"HOME": ""}) == plain
    allocation = ("--partition=short", "--nodes=1", "--ntasks=1", "--cpus-per-task=2", "--mem-bind=local")
    assert job("in-srun", inside=("srun", *allocation)) == plain
    assert job("in-salloc", inside=("salloc", "--quiet", "--partition=short", "--nodes=2", "--exclusive")) == plain


def test_ranks_are_who_they_are(cluster, slurm_sslrun, typed, tmp_path, settled):
    run = typed("nodes=2", f"runs={tmp_path}", more=FOREIGN)["path"]
    shown = settled(slurm_sslrun(cluster), run)
    assert shown["state"] == "done", shown
    assert {p.name for p in (Path(run) / "logs").iterdir()} == {"rank0.log", "rank1.log"}
