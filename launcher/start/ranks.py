"""The ranks of one start on the nodes of a job: started with srun, and seen to their end.

Once one has failed the others have seconds to say what they met, and are killed. srun waits for ever for a node that is
lost, until Slurm knows of it, or whose ranks cannot be killed: such a node is of no more use to the job.
"""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import ClusterError
from launcher.plan import script, steps
from launcher.run import heartbeats
from launcher.run.folder import RunDir
from launcher.slurm import commands
from launcher.slurm.meeting import Meeting
from launcher.spec.runspec import RunSpec
from launcher.start import handover, job, preflight
from launcher.start.handover import Start
from launcher.start.heard import Heard
from launcher.start.standby import Standby, standby_name
from launcher.start.told import Told

END_SECONDS, GONE_SECONDS = 5.0, 30.0  # from the first death to the kill of the others; from there until they are gone
POLL_SECONDS, AGAIN_SECONDS = 0.1, 0.5
LONGEST_SECONDS = 20.0  # of one time; scancel waits for a node that is lost
# Slurm counts another step, or this one, as one that has not ended.
NOT_OVER = re.compile("Unable to create step|Timed out waiting for job step")


@dataclass
class Ended:
    """How the ranks of a start ended. `rank`: the first that failed, where srun named one; `how`: in half a sentence.
    `lost`: {node: why} of those that are of no more use; `over`: whether the step has ended for Slurm, too."""

    exit_code: int
    rank: int | None
    how: str
    lost: dict[str, str]
    over: bool


def start(
    run: RunDir,
    spec: RunSpec,
    code: Path,
    nodes: Sequence[str],
    meeting: Meeting,
    generation: int,
    told: Told,
    standby: Standby,
    *,
    beside: bool,
) -> Ended:
    """Start the ranks from `code` on `nodes`, and see them to their end. `meeting`: where they meet; standby: has those
    that may be there already, and begins those of the next start; beside: see steps.ranks."""
    world, name = len(nodes) * spec.tasks_per_node, f"start{generation}"
    with handover.secret(run.path, generation, ranks=world):
        told.ranks_begun = True
        environment = _of_ranks(spec, code, nodes, meeting, generation)
        if there := standby.take(run, spec, nodes, environment):
            (step, heard), name = there, standby_name(generation)
        else:
            words = steps.ranks(spec, run.path, nodes, name, beside=beside)
            step = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
            heard = Heard(step)
        standby.begin_behind(run, spec, nodes, _of_ranks(spec, code, nodes, meeting, generation + 1))
        threading.Thread(target=told.pass_on, args=(step, run, generation, world), daemon=True).start()
        over = _see_through(step, heard, name)
        standby.begin_none()
        failed, lost = heard.failed, dict.fromkeys(heard.lost, "is lost")
        if not over:
            known = heartbeats.processes(run, generation).values()
            lost = _lost(spec, {node: [pid for host, pid in known if host == node] for node in nodes}) | lost
    how = heard.last
    if failed:
        node = failed["node"] or nodes[int(failed["rank"]) // spec.tasks_per_node]
        how = f"rank {failed['rank']} on {node}: {failed['how']}"
    elif step.returncode < 0:
        how = f"srun was killed by {signal.Signals(-step.returncode).name}"
    return Ended(
        exit_code=step.returncode,
        rank=int(failed["rank"]) if failed else None,
        how=how,
        lost={node: why for node, why in lost.items() if node in nodes},
        over=over,
    )


def _see_through(step: subprocess.Popen, heard: Heard, name: str) -> bool:
    """Wait for the ranks; when one has failed, the others have END_SECONDS and are killed. False where the step has not
    ended for Slurm after that."""
    died, killing = 0.0, None
    while step.poll() is None:
        time.sleep(POLL_SECONDS)
        died = died or (time.monotonic() if heard.failed or heard.lost else 0.0)
        if died and not killing and time.monotonic() - died > END_SECONDS:
            killing = _Killing(name)
        if killing and killing.in_vain:
            step.kill()
            step.wait()
            return killing.gone
    heard.listening.join(GONE_SECONDS)
    if step.returncode >= 0:  # it has waited for all of them
        return not NOT_OVER.search(heard.last)
    killing = killing or _Killing(name)  # who killed srun left the ranks alive
    while not (killing.gone or killing.in_vain):
        time.sleep(POLL_SECONDS)
    return killing.gone


class _Killing:
    """Of what is left of a step, in a thread and again and again: of a node that is lost it takes its time, and who
    asks a controller that is away is not heard. `gone`: Slurm knows of no such step."""

    def __init__(self, name: str):
        self._name, self._taken, self.gone = name, False, False
        self._waited = 0.0  # since Slurm took it, or at all; a job that is suspended waits for nothing
        threading.Thread(target=self._kill, daemon=True).start()

    def _kill(self) -> None:
        while not (self.gone or self.in_vain):
            began = time.monotonic()
            with contextlib.suppress(ClusterError):
                left = commands.steps(job.own_id(), self._name)
                if not self._taken:
                    self._taken, self._waited = True, 0.0
                self.gone = not left
                commands.cancel(left, signal="KILL")
            time.sleep(AGAIN_SECONDS)
            self._waited += min(time.monotonic() - began, LONGEST_SECONDS)

    @property
    def in_vain(self) -> bool:
        """Nothing came of it although Slurm has been asked for GONE_SECONDS, or has not answered for much longer."""
        return self._waited > (GONE_SECONDS if self._taken else job.CONTROLLER_SECONDS)


def _lost(spec: RunSpec, left: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """{node: why} of those that do not let go of these processes of theirs, or start nothing more though others do: one
    died of which Slurm does not know yet. While Slurm ends the job nothing can be started on any, nor told of one."""
    found = job.standing()
    if found is None or found.state != "RUNNING":
        return {}
    found = preflight.unusable(spec, left)
    silent = [node for node, why in found.items() if why == preflight.SILENT]
    return {node: why for node, why in found.items() if node not in silent or len(silent) < len(left)}


def _of_ranks(spec: RunSpec, code: Path, nodes: Sequence[str], meeting: Meeting, generation: int) -> dict[str, str]:
    """The environment that the ranks find beside the job's."""
    told = Start(
        rank=None,
        local_rank=None,
        world_size=len(nodes) * spec.tasks_per_node,
        generation=generation,
        stopped_code=0,  # one that saved has not failed: others may still be committing
        threads=script.cpus_per_task(spec),
        interfaces=meeting.interfaces,
    )
    return {
        **preflight.environment(),
        # The first entry is the batch script's: RUN/submit/code, a link. The ranks get the folder that was looked at.
        "PYTHONPATH": os.pathsep.join([str(code), *os.environ.get("PYTHONPATH", "").split(os.pathsep)[1:]]),
        **told.environment(),
        **spec.cluster.environment,
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": str(meeting.port),
        **({"GLOO_SOCKET_IFNAME": "lo"} if len(nodes) == 1 else {}),  # where no other node can come
    }
