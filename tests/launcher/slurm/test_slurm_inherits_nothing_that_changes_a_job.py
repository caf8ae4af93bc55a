"""What sbatch inherits says which cluster and whose account, and nothing about the job itself."""

from launcher.slurm import client

SHELL = {
    "PATH": "/bin",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "SLURM_CLUSTERS": "west",
    "SLURM_CPU_BIND": "mask_cpu:0x1",
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "1",
    "SLURMD_NODENAME": "n1",
    "SBATCH_ACCOUNT": "vision",
    "SBATCH_RESERVATION": "friday",
    "SBATCH_QOS": "low",
    "SBATCH_PARTITION": "other",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_NO_REQUEUE": "1",
    "SRUN_CPUS_PER_TASK": "1",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "GLOO_SOCKET_IFNAME": "eth7",
    "NCCL_SOCKET_IFNAME": "eth7",
}


def test_the_allocation_that_one_sits_in_stays_out():
    assert client.environment(SHELL) == {
        "PATH": "/bin",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "SLURM_CLUSTERS": "west",
        "SBATCH_ACCOUNT": "vision",
        "SBATCH_RESERVATION": "friday",
        "SBATCH_QOS": "low",
    }


def test_a_plan_that_names_an_account_keeps_its_own():
    kept = client.environment(SHELL, keep=("SBATCH_RESERVATION",))
    assert "SBATCH_RESERVATION" in kept and not {"SBATCH_ACCOUNT", "SBATCH_QOS"} & kept.keys()


def test_the_process_itself_is_the_default(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("UNRELATED", "1")
    kept = client.environment()
    assert kept["UNRELATED"] == "1" and "SLURM_JOB_ID" not in kept
