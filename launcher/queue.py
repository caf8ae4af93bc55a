"""What the queue adds to a run's own ledger: asked once for many runs, and never waited for when Slurm is down."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from launcher import slurm
from launcher.errors import ClusterError
from launcher.rundir import RunDir
from launcher.state import job_of, of

UNOPENED_LOG = "0:53"  # the exit code of a job whose first node could not open its log


def of_runs(runs: Iterable[RunDir]) -> tuple[Mapping[str, slurm.Job] | None, str]:
    """(the user's jobs in the queue, "") or (None, why it could not be asked); asked only if a run may be there."""
    if not any(of(run.events(), held=False).job for run in runs):
        return None, ""
    try:
        return slurm.jobs(), ""
    except ClusterError as error:
        return None, f"{error}: states are the ledgers' last word"


def last_words(run: RunDir) -> str:
    """Why a run's job ended before the run could say anything itself; empty when there is nothing to add."""
    events = run.events()
    given = [e for e in events if e["event"] in ("submitted", "start")]
    if not given or given[-1]["event"] == "start":
        return ""
    job = job_of(events)
    said = _log(Path(given[-1]["folder"]), job)
    if said:
        return said
    try:
        found = slurm.ended(job)
    except ClusterError:
        return ""
    if found is None or found.state in ("PENDING", "RUNNING"):
        return ""
    if found.exit_code == UNOPENED_LOG:
        return (
            f"job {job}: its first node, {found.nodes}, could not open its log: it does not see {given[-1]['folder']}"
        )
    return f"job {job} ended before the run began: {found.state}, exit code {found.exit_code}, on {found.nodes}"


def _log(folder: Path, job: str) -> str:
    """The last line that the batch script wrote for a person."""
    try:
        lines = (folder / f"slurm-{job}.log").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line for line in lines if line.startswith("sslrun: ")]
    return said[-1].removeprefix("sslrun: ") if said else ""
