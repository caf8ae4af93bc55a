"""The nodes of this job: which of them the next start takes, which wait in reserve, and which are left out."""

import os
from collections.abc import Sequence

from launcher.errors import NotStarted
from launcher.slurm import notation
from launcher.slurm.commands import SlurmJob


class Allocation:
    """`names`: of the job's nodes, in Slurm's order; `first`: where this process is; `taken`: of the latest start;
    `left_out`: {node: why}; `leftover`: Slurm counts a step of an earlier start as one that has not ended."""

    def __init__(self) -> None:
        self._text = os.environ["SLURM_JOB_NODELIST"]
        self.names = notation.expand(self._text)
        self.first = os.environ.get("SLURMD_NODENAME") or self.names[0]
        self.left_out: dict[str, str] = {}
        self.leftover = self.gave_back = False
        self.taken: list[str] = []

    def ask(self, found: SlurmJob | None) -> None:
        """Take Slurm's word for the nodes: a job that is kept without one of them has it no more."""
        if found and (names := notation.expand(found.nodes)):
            self.names, self._text = names, found.nodes

    def shown(self, nodes: Sequence[str]) -> str:
        """As Slurm writes them, where they are all that the job has."""
        return self._text if list(nodes) == notation.expand(self._text) else ",".join(nodes)

    @property
    def usable(self) -> list[str]:
        return [name for name in self.names if name not in self.left_out]

    def take(self, counts: Sequence[int]) -> list[str]:
        """The nodes of the next start, as many as the largest of `counts` for which there are enough.

        A later start of the job has no more than the one before, and keeps its nodes, whose disks and caches have the
        data. Raises NotStarted where the nodes are too few.
        """
        usable = self.usable
        most = min(len(usable), len(self.taken) or max(counts))
        wanted = next((count for count in counts if count <= most), None)
        if wanted is None:
            lost = "; ".join(f"{node} {why}" for node, why in self.left_out.items())
            few = f"{len(usable)} of the job's nodes are left, and the run takes {min(counts)}"
            raise NotStarted(f"{few}: {lost}" if lost else few)
        known = [name for name in usable if name in self.taken]
        chosen = {*[*known, *(name for name in usable if name not in known)][:wanted]}
        self.taken = [name for name in usable if name in chosen]
        return self.taken

    def to_keep(self, spares: int) -> list[str]:
        """After `take`: its nodes, as many in reserve, and the first one, which runs this process; in Slurm's order."""
        others = [name for name in self.usable if name not in self.taken]
        kept = {self.first, *self.taken, *others[:spares]}
        if kept.issuperset(self.usable):  # a job that has given some back is harder to tell which it is not to get
            return self.names
        return [name for name in self.names if name in kept]
