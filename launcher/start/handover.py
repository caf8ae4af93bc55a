"""What ranks are told by whoever starts them: a `Start`, written into their environment and read there, and a secret by
which they recognise one another, in a file of the run's folder that only their user can read.

The variables keep their names: a run is started by today's launcher, and its ranks by the code of the day it was made.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.errors import InputError, RunFailed
from launcher.run import waiting
from launcher.run.files import NotOurs, read, replacing

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
    "interfaces": "SSLRUN_INTERFACES",
}
STANDBY = "SSLRUN_STANDBY"  # 1: begun ahead of its start (ahead.py), of which it hears later
SECRET_BYTES = 32
SRUNS = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID"}  # how srun tells each task who it is


@dataclass(frozen=True)
class Start:
    """One start of a run, as one of its `world_size` ranks knows it.

    rank, local_rank: None where srun gives each its own. rendezvous: the file where the ranks of one machine meet;
    None: MASTER_ADDR and MASTER_PORT. lock: the descriptor that holds the run's lock, where this rank has it too.
    stopped_code: the exit code of a rank that saved and can go on later. threads: of this rank; 0: as torch likes.
    interfaces: {node: that by which it reaches the others}, where it was found out.
    """

    rank: int | None = 0
    local_rank: int | None = 0
    world_size: int = 1
    generation: int = 1
    rendezvous: str | None = None
    lock: int | None = None
    stopped_code: int = STOPPED_CODE
    threads: int = 0
    interfaces: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """As variables, with those that libraries read before the worker can."""
        told = {name: getattr(self, field) for field, name in VARIABLES.items()}
        told[VARIABLES["interfaces"]] = json.dumps(dict(self.interfaces)) if self.interfaces else None
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
        texts: dict[str, Any] = {"rendezvous": str, "interfaces": json.loads}
        return cls(**{field: texts.get(field, int)(value) for field, value in told.items()})

    def network(self, node: str, environ: Mapping[str, str]) -> dict[str, str]:
        """Variables by which gloo and NCCL find theirs on `node`; what the user has set in `environ` is kept."""
        name = self.interfaces.get(node)
        found = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"} if name else {}  # =: not those it begins
        return {variable: value for variable, value in found.items() if not environ.get(variable)}

    def secret(self, run: Path) -> bytes:
        """What the ranks of this start alone know; empty for one rank, which has nobody to recognise. Raises RunFailed
        where it cannot be read."""
        if self.world_size == 1:
            return b""
        path = _secret(run, self.generation)
        try:
            told = waiting.patiently(lambda: read(path, SECRET_BYTES))
        except (OSError, NotOurs) as error:
            why = "not a plain file" if isinstance(error, NotOurs) else error.strerror
            raise RunFailed(f"{path}: {why}: by it the ranks of a start recognise one another") from None
        if len(told) < SECRET_BYTES:
            raise RunFailed(f"{path}: it is cut short: by it the ranks of a start recognise one another")
        return told


@contextlib.contextmanager
def secret(run: Path, generation: int, *, ranks: int) -> Iterator[None]:
    """Inside, the ranks of this start of the run in the folder `run` find their secret; a single one needs none. The
    caller holds the run's lock. Raises RunFailed where it cannot be written."""
    if ranks == 1:
        yield
        return
    path = _secret(run, generation)
    try:
        for left in run.glob(_secret(run, "*").name):  # of starts that were killed
            left.unlink(missing_ok=True)
        with replacing(path, durable=False, mode=0o600) as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
    except OSError as error:
        raise RunFailed(f"{path}: it cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the next start takes it away
            path.unlink(missing_ok=True)


def _secret(run: Path, generation: int | str) -> Path:
    return run / f"secret.{generation}"
