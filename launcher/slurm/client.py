"""How Slurm's programs are called: each call has a time-out, and every failure is a ClusterError of one line."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence

from launcher.errors import ClusterError

SECONDS = 30.0  # a busy controller takes seconds to answer; the programs themselves would wait for minutes
SCONTROL = "export a PATH that has it in cluster.setup, or leave the node out with cluster.exclude"
# Of an allocation's variables these pass on to a job: they say which cluster is meant, and change nothing else.
WHICH_CLUSTER = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
# torchrun leaves these in its shell, and TORCHELASTIC_*; ranks that inherited them would look for its store. And what
# is true of the submitting machine's interfaces is not of the nodes'.
RANKS = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_IFNAME",
)  # fmt: skip
KEPT = ("SBATCH_ACCOUNT", "SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_WCKEY")


def installed(program: str = "sbatch") -> bool:
    """Whether Slurm's programs are here, or that one; it says nothing about whether a cluster answers."""
    return shutil.which(program) is not None


def up(timeout: float = 2.0) -> bool:
    """Whether a controller answers (about 10 ms); False within `timeout` seconds otherwise. Never raises."""
    try:
        ping = subprocess.run(
            ["scontrol", "ping"], env=plain(), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b" is UP" in ping.stdout  # a backup that answers is enough


def environment(base: Mapping[str, str] | None = None, *, keep: Sequence[str] = KEPT) -> dict[str, str]:
    """What sbatch should inherit: `base` (this process's by default) without what would change the job.

    The SLURM_* of an allocation that one sits in bind the job's ranks to its cores (three times slower), SBATCH_*
    override the #SBATCH lines, and RANK would make all ranks the same one. `keep` names those that say what the script
    does not.
    """
    kept = {*WHICH_CLUSTER, *keep}
    prefixes = ("SLURM_", "SLURMD_", "SBATCH_", "SALLOC_", "SRUN_", "SUBMITIT_", "SSLRUN_", "TORCHELASTIC_")
    base = os.environ if base is None else base
    return {key: value for key, value in base.items() if key in kept or not (key.startswith(prefixes) or key in RANKS)}


def plain() -> dict[str, str]:
    """`environment` without what people set up their own squeue or scancel with (a filter, a question, a format)."""
    prefixes = ("SQUEUE_", "SINFO_", "SCONTROL_", "SCANCEL_", "SACCT_")
    kept = {key: value for key, value in environment().items() if not key.startswith(prefixes)}
    return {**kept, "LC_ALL": "C.UTF-8"}


def ask(*command: str, seconds: float | None = None, cwd: str | None = None) -> str:
    """What one of Slurm's programs printed. Raises ClusterError with its reason where it ended with an error."""
    return run(command, seconds=seconds, environment=plain(), cwd=cwd).stdout


def send(*command: str, seconds: float) -> None:
    """Have one of Slurm's programs say something; an answer is waited for so long, and it goes on trying after that."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.Popen(command, env=plain(), stdin=subprocess.DEVNULL, start_new_session=True)
        said.wait(seconds)


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    seconds: float | None = None,
    pass_fds: Sequence[int] = (),
    cwd: str | None = None,
) -> "subprocess.CompletedProcess[str]":
    """What one of Slurm's programs answers in this environment. Raises ClusterError as `ask` does."""
    seconds = SECONDS if seconds is None else seconds
    if not (installed() or installed(command[0])):
        raise ClusterError(f"{command[0]}: there is no Slurm on this machine; use cluster=local, or a login node")
    if not up():  # the programs would try again for ten seconds and more
        if not installed("scontrol"):
            node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
            raise ClusterError(f"{command[0]}: {node} has no scontrol on its PATH; {SCONTROL}")
        raise ClusterError(f"{command[0]}: slurmctld does not answer; try again, or ask the cluster's administrators")
    try:
        answer = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            pass_fds=pass_fds,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{command[0]}: no answer within {seconds:g} s; Slurm is overloaded, try again") from None
    except OSError as error:
        raise ClusterError(f"{command[0]}: {error.strerror}; Slurm is not complete on this machine") from None
    if answer.returncode:
        reason = clean(answer.stderr or answer.stdout) or f"exit code {answer.returncode}"
        raise ClusterError(f"{command[0]}: {reason}")
    return answer


def clean(said: str) -> str:
    """Slurm's own words in one line, without the programs' names before them."""
    lines = []
    for line in said.splitlines():
        line = re.sub(
            r"^(sbatch|scontrol|squeue|sinfo|scancel|sacct(?:mgr)?): ((error|fatal|warning): )?", "", line.strip()
        )
        line = re.sub(r"^(Batch job submission failed|allocation failure|slurm_load_jobs error): ", "", line)
        if line and line not in lines and not line.startswith("Try "):
            lines.append(line)
    return "; ".join(lines)
