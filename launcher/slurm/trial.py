"""`sslrun doctor --launch`: start a job's ranks on a cluster for a moment, without training, and report what they saw.

One batch job, written like those that train; probe.py is all that runs in it. Its folder, `<runs>/.doctor/<token>/`,
goes when it has ended, however it ends; its report stays beside it.
"""

import contextlib
import json
import math
import os
import shlex
import shutil
import statistics
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launcher.errors import ClusterError
from launcher.plan import containers, script, setup, steps
from launcher.run import stops
from launcher.run.files import write_json, writing_in
from launcher.run.permissions import make_private
from launcher.slurm import client, commands, limits, meeting, notation, probe, reach, reasons, srun
from launcher.slurm.check import BAD, OK, WARN, Check, some
from launcher.spec.runspec import RunSpec

POLL_SECONDS = 1.0
JOB_MINUTES = 5  # the time limit that the job asks for
RANK_SECONDS = 60.0  # for every rank to have started and reported
NEWS_SECONDS = 10.0  # a network file system may show the report late
CLOCK_SECONDS = 1.0  # further apart, and the logs of two nodes no longer line up
SLOW_SECONDS = 30.0


def launch(spec: RunSpec, *, seconds: float, say: Callable[[str], None]) -> list[Check]:
    """Run the trial on the nodes and tasks of `spec`; what it found. `say` gets progress, a line at a time.

    seconds: how long to wait for the job, in the queue and after. Raises InputError where the partition could never
    start it, ClusterError where Slurm refuses or the time is up; KeyboardInterrupt passes through. No job survives.
    """
    limits.check(spec)
    token = uuid.uuid4().hex
    folder = _home(Path(spec.runs)) / token
    with writing_in(spec.runs):
        make_private(folder)
        folder.parent.chmod(0o700)  # the reports stay in it
        with _interruptible() as hold, _cleaned(folder, token, hold):
            file = _prepare(spec, folder)
            options = [f"--comment={_comment(token)}", "--chdir=/"]
            with hold():  # not while it is unknown whether there is a job
                job = commands.submit(file, options, environment=client.environment())
            end = time.monotonic() + seconds
            last = _wait(job, end, seconds, say)
            report = _read(job, folder / "report.json")
            rows = findings(report, spec) if report else [_silence(job, last, folder)]
            stamp = time.strftime("%Y%m%d-%H%M%S")
            kept = folder.parent / f"{stamp}-{job}.json"
            about = {"nodes": spec.nodes, "tasks_per_node": spec.tasks_per_node, "report": report}
            write_json(kept, {"rows": [asdict(row) for row in rows], **about})
            say(f"the report is in {kept}")
            return rows


# -- the job -----------------------------------------------------------------------------------------------------------


def _prepare(spec: RunSpec, folder: Path) -> Path:
    """Fill the folder; returns the batch script."""
    cluster, token = spec.cluster, uuid.uuid4().hex  # another one than the job's, which squeue shows to everybody
    fetching = containers.patience(cluster, 0.0)
    order = {
        "token": token,
        "nodes": spec.nodes,
        "world_size": spec.world_size,
        "seconds": RANK_SECONDS + fetching,
        "command": steps.doctor(spec),
        "contained": containers.contained(cluster),
        "environment": dict(cluster.environment),
        "meet": steps.meet(spec, None, reach.source()),
    }
    (folder / "order.json").write_text(json.dumps(order))
    (folder / "token").write_text(token)
    for module in (probe, meeting):
        shutil.copyfile(module.__file__, folder / Path(module.__file__).name)
    parameters = script.parameters(spec, folder=folder, signal_delay_s=1)
    python, there = shlex.quote(script.python_of(cluster)), shlex.quote(str(folder))
    missing = shlex.quote(f"has no {script.python_of(cluster)}; set cluster.python to one that every node has")
    minutes = max(JOB_MINUTES, min(JOB_MINUTES + math.ceil(fetching / 60), cluster.timeout_min))
    parameters |= {"job_name": "sslrun-doctor", "time": minutes}
    parameters["setup"] = [
        "umask 077",
        *setup.lines(cluster.setup, setup.GIVEN_UP),
        f'test -x {python} || {{ echo "sslrun: ${{SLURMD_NODENAME:-$HOSTNAME}}" {missing}; exit 3; }}',
        f"exec {python} -I -S {there}/probe.py batch {there}",  # what would train, below, is not reached
    ]
    file = folder / "script.sh"
    file.write_text(script.text(folder, parameters))
    return file


def _home(runs: Path) -> Path:
    """Of the user's trials in a folder of runs, which several may share."""
    first, own = runs / ".doctor", runs / f".doctor-{os.getuid()}"
    return own if os.path.lexists(first) and first.lstat().st_uid != os.getuid() else first


def _comment(token: str) -> str:
    return f"sslrun-doctor:{token}"


def _wait(job: str, end: float, seconds: float, say: Callable[[str], None]) -> commands.SlurmJob | None:
    """Return when the job has left the queue: its last state there."""
    told, last, failed = "", None, 0
    while True:
        try:
            found, failed = commands.jobs([job]).get(job), 0
        except ClusterError:  # a controller that restarts is away for a moment
            failed += 1
            if failed > 5:
                raise
            time.sleep(POLL_SECONDS)
            continue
        if found is None:
            return last
        last = found
        if found.state == "PENDING":
            expected = f", expected to start {found.start}" if found.start else ""
            reason = reasons.of(found.reason or "None")
            line = f"job {job} waits in {found.partition} for {reason.short()}{expected}"
            if reason.who:
                raise ClusterError(f"job {job} does not start: it waits for {reason.said(job)}")
        else:
            line = f"job {job} is {found.state.lower()} on {found.nodes}"
        if line != told:
            say(line)
            told = line
        if time.monotonic() > end:
            why = f" ({found.reason})" if found.reason else ""
            raise ClusterError(f"--timeout={seconds:g}: job {job} is still {found.state.lower()}{why}; give it longer")
        time.sleep(POLL_SECONDS)


def _read(job: str, file: Path) -> dict[str, Any]:
    """The report, {} where there is none. Nothing looked for it before, so no cache says that it is not there."""
    found = commands.ended(job)
    end = time.monotonic() + (NEWS_SECONDS if found is None or found.state == "COMPLETED" else 0)
    while True:
        try:
            return json.loads(file.read_text())
        except OSError:
            if time.monotonic() > end:
                return {}
            time.sleep(0.5)


def _silence(job: str, last: commands.SlurmJob | None, folder: Path) -> Check:
    """The job wrote no report: say why."""
    found = commands.ended(job) or last
    nodes = notation.expand(found.nodes) if found else []
    first = nodes[0] if nodes else "its first node"
    if found and found.exit_code == commands.UNOPENED_LOG:
        advice = "choose a folder that every node mounts with runs=PATH"
        return Check("run directory", BAD, f"{first} does not see {folder.parent.parent}", advice)
    said: list[str] = []
    with contextlib.suppress(OSError):
        for log in folder.glob("slurm-*.log"):
            said += [line.removeprefix("sslrun: ") for line in log.read_text(errors="replace").splitlines() if line]
    state = f"{found.state.lower()}, exit code {found.exit_code or '?'}" if found else "gone"
    last_word = f"job {job} on {first} ended without a report: {state}; {said[-1] if said else 'it said nothing'}"
    return Check("launch", BAD, last_word, "see cluster.setup and cluster.python")


@contextlib.contextmanager
def _cleaned(folder: Path, token: str, hold: Callable[[], Any]) -> Iterator[None]:
    """Whatever happens: no job of ours in the queue, and no folder."""
    try:
        yield
    finally:
        with hold():
            with contextlib.suppress(ClusterError):
                commands.cancel(job for job, found in commands.jobs().items() if found.comment == _comment(token))
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], Any]]:
    """Ctrl-C, TERM and a closed terminal raise KeyboardInterrupt; within the `hold` that it yields, only afterwards."""
    state = {"held": False, "came": False}

    def came(*_: object) -> None:
        state["came"] = True
        if not state["held"]:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        state.update(held=True, came=False)
        try:
            yield
        finally:
            state["held"] = False
        if state["came"]:
            raise KeyboardInterrupt

    with stops.heard_by(came):
        yield hold


# -- what it found -----------------------------------------------------------------------------------------------------


def findings(report: Mapping[str, Any], spec: RunSpec) -> list[Check]:
    """The findings of probe.py's report."""
    nodes = notation.expand(report["nodes"])
    rows = [_ranks(report, spec, nodes), _rendezvous(report, nodes), _directory(report, spec, nodes)]
    rows.append(_programs(report, spec, nodes))
    if report["clocks"]:
        rows.append(_clocks(report["clocks"]))
    if report["ranks"]:
        rows.append(_slowest(report["ranks"], spec))
    return rows


def _ranks(report: Mapping[str, Any], spec: RunSpec, nodes: list[str]) -> Check:
    ranks, expected = report["ranks"], spec.world_size
    seen = {rank["rank"] for rank in ranks}
    count = f"{len(seen)} of {expected} ranks in {report['seconds']:.1f} s"
    if seen != set(range(expected)) or len(ranks) != expected:
        if len(seen | {failure["rank"] for failure in report["failures"]}) == expected:
            return Check("launch", BAD, f"{count}; the others started, but did not reach rank 0", "see rendezvous")
        here = [rank["node"] for rank in (*ranks, *report["failures"])]
        lost = [f"{n} ({spec.tasks_per_node - here.count(n)})" for n in nodes if here.count(n) < spec.tasks_per_node]
        said = srun.reason(report["srun"]["said"])
        why = f"; {said}" if said else ""
        advice = "leave these nodes out with cluster.exclude"
        return Check("launch", BAD, f"{count}; missing on {some(lost)}{why}", advice)
    # Training takes a rank's node and GPU from its number: ranks of one node are neighbours.
    wrong = [
        rank["rank"]
        for rank in ranks
        if (rank["node_rank"], rank["local_rank"]) != divmod(rank["rank"], spec.tasks_per_node)
        or rank["node"] != nodes[rank["node_rank"]]
    ]
    if wrong:
        numbers = some([str(rank) for rank in sorted(wrong)])
        advice = "unset SLURM_DISTRIBUTION and the like in cluster.setup"
        return Check("launch", WARN, f"{count}; ranks {numbers} are not numbered node by node", advice)
    return Check("launch", OK, f"{count}, each with its own rank, local rank and node, on {len(nodes)} nodes")


def _rendezvous(report: Mapping[str, Any], nodes: list[str]) -> Check:
    address = report["address"]
    if apart := report.get("apart"):
        return Check("rendezvous", BAD, **apart)
    if interfaces := report.get("interfaces"):
        address += f" by {_by_interface(interfaces)}"
    if said := _by_reason([(failure["reason"], failure["node"]) for failure in report["failures"]], nodes):
        advice = "open the ports between nodes, or set cluster.environment.MASTER_ADDR to a name that they resolve"
        return Check("rendezvous", BAD, f"not every node reaches {address}: {said}", advice)
    reached = {rank["node"] for rank in report["ranks"]}
    if not reached:
        return Check("rendezvous", BAD, f"no rank reported to {address}", "see the launch above")
    everywhere = f"{len(reached)} of {len(nodes)} nodes"
    return Check("rendezvous", OK if len(reached) == len(nodes) else BAD, f"{address}, reached from {everywhere}")


def _directory(report: Mapping[str, Any], spec: RunSpec, nodes: list[str]) -> Check:
    advice = "choose a folder that every node mounts with runs=PATH"
    if containers.contained(spec.cluster):
        advice = "mount it into the container: `sslrun plan` with the same words says how"
    everybody = (*report["ranks"], *report["failures"])
    if said := _by_reason([(rank["sees"].lower(), rank["node"]) for rank in everybody if rank["sees"]], nodes):
        return Check("run directory", BAD, f"not every node sees {spec.runs}: {said}", advice)
    known = {rank["node"] for rank in everybody}
    silent = [node for node in nodes if node in known and node not in report["wrote"]]
    if silent:
        found = f"what {some(silent)} wrote to {spec.runs} does not arrive on the first node"
        return Check("run directory", BAD, found, advice)
    return Check("run directory", OK, f"{len(known)} of {len(nodes)} nodes read and write {spec.runs}")


def _programs(report: Mapping[str, Any], spec: RunSpec, nodes: list[str]) -> Check:
    """Where a job's first node cannot ask Slurm, nobody puts the job back into the queue. Of others a container hides
    it."""
    everybody = ({"node": nodes[0], "lacks": report["lacks"]}, *report["ranks"], *report["failures"])
    lacking = [(name, each["node"]) for each in everybody for name in each["lacks"]]
    if said := _by_reason([(f"no {name}", node) for name, node in lacking], nodes):
        found = f"{said} on the PATH: a job that begins there does not start again by itself"
        return Check("slurm programs", WARN, found, client.SCONTROL)
    who = "the first node" if containers.contained(spec.cluster) else "every node that reported"
    return Check("slurm programs", OK, f"{who} has scontrol")


def _clocks(clocks: Mapping[str, tuple[float, float]]) -> Check:
    node, (offset, bound) = max(clocks.items(), key=lambda item: abs(item[1][0]))
    found = f"{len(clocks)} nodes; {node} is furthest off, by {_ms(offset)} (give or take {_ms(bound)})"
    if abs(offset) - bound > CLOCK_SECONDS:
        return Check("clocks", WARN, found, "no decision of sslrun reads a clock, but logs will not line up: check NTP")
    return Check("clocks", OK, found)


def _slowest(ranks: list[Mapping[str, Any]], spec: RunSpec) -> Check:
    slow = max(ranks, key=lambda rank: rank["seconds"])
    middle = statistics.median(rank["seconds"] for rank in ranks)
    found = f"{slow['node']} (rank {slow['rank']}), {slow['seconds']:.1f} s after srun; half within {middle:.1f} s"
    if slow["seconds"] > SLOW_SECONDS:
        what = "an image that is fetched" if containers.patience(spec.cluster, 0) else "a slow file system under Python"
        return Check("slowest start", WARN, found, f"{what}? every start of a run pays this")
    return Check("slowest start", OK, found)


def _by_reason(found: Iterable[tuple[str, str]], nodes: list[str]) -> str:
    """ "n2, n3: no answer; n7: its name cannot be resolved there", of (reason, node); empty where nothing was found."""
    reasons: dict[str, set[str]] = {}
    for reason, node in found:
        reasons.setdefault(reason, set()).add(node)
    return "; ".join(f"{some(sorted(where, key=nodes.index))}: {reason}" for reason, where in reasons.items())


def _by_interface(found: Mapping[str, str]) -> str:
    """ "eth0", or "eth0 (n1, n3) and ib0 (n2)" where they are called differently."""
    names = {name: some([node for node in found if found[node] == name]) for name in found.values()}
    return " and ".join(f"{name} ({where})" for name, where in names.items()) if len(names) > 1 else next(iter(names))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if abs(seconds) < 1 else f"{seconds:.1f} s"
