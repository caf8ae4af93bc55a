"""What ranks are told by whoever starts them: a `Start`, written into their environment and read there.

The variables keep their names: a run is started by today's launcher, and its ranks by the code of the day it was made.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.errors import InputError

STOPPED_CODE = 75  # EX_TEMPFAIL: a rank that saved and can go on later
VARIABLES = {
    "rank": "RANK",
    "local_rank": "LOCAL_RANK",
    "world_size": "WORLD_SIZE",
    "generation": "SSLRUN_GENERATION",
    "rendezvous": "SSLRUN_RENDEZVOUS",
    "lock": "SSLRUN_LOCK_FD",
    "stopped_code": "SSLRUN_STOPPED_CODE",
    "threads": "SSLRUN_THREADS",
}
SRUNS = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID"}  # how srun tells each task who it is


@dataclass(frozen=True)
class Start:
    """One start of a run, as one of its `world_size` ranks knows it.

    rank, local_rank: None where srun gives each its own. rendezvous: the file where the ranks of one machine meet;
    None: MASTER_ADDR and MASTER_PORT. lock: the descriptor that holds the run's lock, where this rank has it too.
    stopped_code: the exit code of a rank that saved and can go on later. threads: of this rank; 0: as torch likes.
    """

    rank: int | None = 0
    local_rank: int | None = 0
    world_size: int = 1
    generation: int = 1
    rendezvous: str | None = None
    lock: int | None = None
    stopped_code: int = STOPPED_CODE
    threads: int = 0

    def environment(self) -> dict[str, str]:
        """As variables, with those that libraries read before the worker can."""
        told = {name: getattr(self, field) for field, name in VARIABLES.items()}
        told |= {"OMP_NUM_THREADS": self.threads, "PYTHONUNBUFFERED": 1}
        # Threads that wait do not spin: on a machine that is also used otherwise spinning costs a factor of ten.
        told |= {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
        return {name: str(value) for name, value in told.items() if value is not None}

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Start":
        """Raises InputError where Slurm started several tasks that nobody told to be ranks of one start."""
        if "RANK" not in environ and VARIABLES["generation"] in environ:
            environ = {**environ, **{name: environ[srun] for name, srun in SRUNS.items() if srun in environ}}
        if "RANK" not in environ and int(environ.get("SLURM_NTASKS", 1)) > 1:
            raise InputError("this job was not started by sslrun; its ranks do not know each other")
        told = {field: environ[name] for field, name in VARIABLES.items() if name in environ}
        return cls(**{field: value if field == "rendezvous" else int(value) for field, value in told.items()})
