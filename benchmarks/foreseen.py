"""python benchmarks/foreseen.py [--runs 40] [--at-once 3] [--keep FOLDER] [--again FOLDER]     about half an hour.

Does `sslrun plan --simulate` foresee what happens? RotNet's tiny recipe, one rank, a step every --step-seconds, on a
real Slurm cluster (tests/slurm/cluster.py): jobs of a partition above take its node, and its rank is killed, after gaps
that are drawn from exponential laws and counted while the run has its node. --pilots runs come first: how long a start,
a save and the queue take is measured in their ledgers, by the reader that `--like` uses. Then --runs runs, each
foreseen from there alone.

Printed: how many of them end within the 10 to 90 % and the 25 to 75 % of what was foreseen, and how wide these bands
are, for two laws: the rates as they were drawn from, and the rates as the pilots' ledgers have them. --keep leaves the
runs and what came of them in FOLDER; --again FOLDER compares without running anything; --speed times the command.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "preemption"), str(HERE.parent)]

from in_place import PACED, PER_EPOCH, Run, clusters  # noqa: E402 (Python is told of it above)

from launcher.plan.foresight import Forecast, simulate  # noqa: E402
from launcher.plan.weather import Journey  # noqa: E402
from launcher.report import climate, observed  # noqa: E402
from launcher.run.folder import RunDir  # noqa: E402

POLL_SECONDS = 0.1
SPACE = 8  # nodes for each run at work: a node on which a rank dies twice in a row is left out by all that come later
PATIENCE = 900.0  # seconds of one run
LEVELS = 0.1, 0.25, 0.5, 0.75, 0.9
LARGE = "method=deepercluster", "nodes=64", "method.epochs=260"  # thirty days on 512 GPUs
BANDS = (0.1, 0.9), (0.25, 0.75)
RESULTS = "results.jsonl"  # a line a run: its path, seconds from its first start to its end, how it ended, strikes
ABOUT = {
    "name": "bench", "kind": "slurm", "partition": "low", "gpus_per_node": 0, "cpus_per_node": 1, "cpus_per_task": 1,
    "preemptible": True, "grace_s": 600, "environment": {"GLOO_SOCKET_IFNAME": "lo"},
}  # fmt: skip


class Storm:
    """What befalls one run, memoryless in the time in which it works: `preempted` and `killed` come after gaps whose
    means are given in seconds."""

    def __init__(self, cluster, run: Run, seed: int, means: dict[str, float]):
        self.cluster, self.run, self.strikes = cluster, run, []
        self._random, self._means, self._worked = random.Random(seed), means, 0.0
        self._due = {kind: self._gap(kind) for kind in means}

    def blow(self) -> dict:
        """Until the run is over for good: how it ended. Raises SystemExit where that takes too long."""
        began = last = time.monotonic()
        while not (ended := self.run.ended()):
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            if now - began > PATIENCE:
                raise SystemExit(f"{self.run.path}: no end after {PATIENCE:.0f} s")
            if self._works():
                self._worked += now - last
            last = now
            for kind, due in self._due.items():
                if self._worked >= due and self._works() and getattr(self, f"_{kind}")():
                    self.strikes.append(kind)
                    self._due[kind] = self._worked + self._gap(kind)
                    last = time.monotonic()
        return ended

    def _gap(self, kind: str) -> float:
        return self._random.expovariate(1 / self._means[kind])

    def _works(self) -> bool:
        generation = self.run.generation()
        return generation > 0 and not self.run.events("end", generation)

    def _preempted(self) -> bool:
        """Somebody with a higher priority takes the node, for a second."""
        job = self.run.events("start", self.run.generation())[0]["job"]
        node = self.cluster.run("squeue", "--noheader", f"--job={job}", "--states=R", "--format=%N", check=False)
        if not node.stdout.strip():
            return False
        words = ["--partition=high", f"--nodelist={node.stdout.strip()}", "--output=/dev/null", "--wrap=sleep 1"]
        taker = self.cluster.run("sbatch", "--parsable", *words).stdout.strip()
        while self.cluster.run("squeue", "--noheader", f"--job={taker}", check=False).stdout.strip():
            time.sleep(POLL_SECONDS)
        return True

    def _killed(self) -> bool:
        """As by the kernel where memory runs out; nothing happens while no rank lives."""
        pids = self.run.pids()
        with suppress(ProcessLookupError):
            for pid in pids.values():
                os.kill(pid, signal.SIGKILL)
            return bool(pids)
        return False


class Reality:
    """Runs on one cluster, --at-once of them at a time, each on a node of its own: none waits for another."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.options, self.folder, self._line = options, folder, threading.Lock()
        site = folder / "site"
        (site / "cluster").mkdir(parents=True)
        (site / "sitecustomize.py").write_text(PACED)
        (site / "cluster" / "bench.yaml").write_text(json.dumps(ABOUT))  # JSON is YAML

    def happen(self) -> None:
        """All runs, the pilots first; a line of RESULTS each."""
        options = self.options
        with (
            clusters.Cluster(nodes=SPACE * options.at_once, cpus=1) as self.cluster,
            ThreadPoolExecutor(options.at_once) as pool,
        ):
            list(pool.map(self._one, range(options.pilots + options.runs)))

    def _one(self, number: int) -> None:
        options = self.options
        run = Run(self._submit(number))
        means = {"preempted": options.preempted_every, "killed": options.killed_every}
        storm = Storm(self.cluster, run, options.seed + number, means)
        end = storm.blow()
        seconds = end["time"] - run.events("start")[0]["time"]
        told = {"run": run.path.name, "number": number, "seconds": round(seconds, 3), "state": end["state"]}
        told |= {"strikes": storm.strikes, "load": round(os.getloadavg()[0], 1)}
        with self._line, (self.folder / RESULTS).open("a") as file:
            file.write(json.dumps(told) + "\n")
        print(json.dumps(told), file=sys.stderr, flush=True)

    def _submit(self, number: int) -> Path:
        options, site = self.options, self.folder / "site"
        words = [
            f"runs={self.folder / 'runs'}", "method=rotnet", "recipe=tiny", "nodes=1", "tasks_per_node=1",
            "cluster=bench", f"seed={number}", f"method.epochs={options.steps // PER_EPOCH}", "method.log_every=1",
            f"method.checkpoint_every={options.every}",
        ]  # fmt: skip
        path = os.pathsep.join(map(str, (site, HERE.parent)))
        environment = {**self.cluster.environ(), "PYTHONPATH": path, "BENCH_STEP_S": str(options.step_seconds)}
        command = [sys.executable, "-P", "-m", "launcher.cli", *words, "--config-dir", site, "--json"]
        said = subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True)
        if said.returncode:
            raise SystemExit(said.stderr)
        return Path(json.loads(said.stdout.splitlines()[-1])["path"])


@dataclass(frozen=True)
class Foreseen:
    """One law's forecast, beside what came: `ends` are seconds from the submission to the end, of the runs that no
    budget ended; of the lives that were drawn, those without a hand are compared."""

    law: str
    forecast: Forecast
    ends: list[float]

    def seconds(self, level: float) -> float:
        unhelped = self.forecast.by_hand == 0
        return replace(self.forecast, finish=self.forecast.finish[unhelped]).seconds(level)

    def inside(self, low: float, high: float) -> int:
        return sum(self.seconds(low) <= end <= self.seconds(high) for end in self.ends)

    def width(self, low: float, high: float) -> float:
        """Of the band, as a share of the median."""
        return (self.seconds(high) - self.seconds(low)) / self.seconds(0.5)

    def row(self) -> str:
        told = [f"{self.seconds(level):.0f}" for level in LEVELS]
        inside = [f"{self.inside(*band)} of {len(self.ends)} ({self.width(*band):.2f})" for band in BANDS]
        return f"| {self.law} | {' '.join(told)} | {' | '.join(inside)} | {self.inside(0.0, 0.5)} of {len(self.ends)} |"

    def told(self) -> str:
        forecast = self.forecast
        restarts = sum(row.mean() for row in forecast.restarts.values())
        hands = (forecast.by_hand > 0).mean()
        return f"{self.law}: {restarts:.2f} restarts, {forecast.lost.mean():.1f} steps lost, {hands:.0%} end for good"


def compare(options: argparse.Namespace, folder: Path) -> str:
    """Markdown: a row for each law. Raises SystemExit where there are too few runs."""
    rows = sorted(map(json.loads, (folder / RESULTS).read_text().splitlines()), key=lambda row: row["number"])
    every = [(row["number"] < options.pilots, row, RunDir((folder / "runs" / row["run"]).resolve())) for row in rows]
    pilots = [run for pilot, _, run in every if pilot]
    forty = [(row, run) for pilot, row, run in every if not pilot]
    done = [run for row, run in forty if row["state"] == "done"]
    if not pilots or not done:
        raise SystemExit(f"{folder}: {len(pilots)} pilots and {len(done)} runs that are done are too few")
    ends = sorted(_seconds(run) for run in done)
    seen, spec, plan = observed.of_runs(pilots), pilots[0].spec(), pilots[0].plan()
    journey = Journey(
        steps=plan["steps"],
        step=observed.middle(seen.steps, options.step_seconds),
        every=spec.method.checkpoint_every,
        stall=observed.middle(seen.stalls, 0.0),
        save=observed.middle(seen.saves, 0.0),
        closing=observed.middle(seen.closings, 0.0),
    )
    config = climate.expected(spec, journey.save, journey.step, plan["signal_delay_s"])
    measured, hindsight = (climate.measured(each, config) for each in (seen, observed.of_runs(run for _, run in forty)))
    rates = {"preempted": 3600 / options.preempted_every, "killed": 3600 / options.killed_every}
    drawn = [replace(h, per_node_hour=rates.get(h.cause, 0.0), counted=None) for h in measured.hazards]
    laws = {
        "the rates that were drawn from": replace(measured, hazards=tuple(drawn)),
        "the rates in the pilots' ledgers": measured,
        "in hindsight: all as in these runs' own ledgers": hindsight,
        "no blows": replace(measured, hazards=()),
    }
    found = [Foreseen(law, simulate([journey], each, seed=options.seed)[0], ends) for law, each in laws.items()]
    real = [f"{ends[round(level * (len(ends) - 1))]:.0f}" for level in LEVELS]
    strikes, failed = [len(row["strikes"]) for row, _ in forty], len(forty) - len(done)
    lost, loads = statistics.mean(run.history().lost_steps for _, run in forty), [row["load"] for row in rows]
    lines = [
        f"{len(forty)} runs of {journey.steps} steps of {journey.step:.3f} s, saved every {journey.every}; pilots:",
        *(f"  {name}: {said}" for name, said in measured.said.items()),
        f"{statistics.mean(strikes):.2f} blows a run ({min(strikes)} to {max(strikes)}), {lost:.1f} steps lost a run;",
        f"{failed} ended for good, what is forgiven being used up;",
        f"load average {min(loads)} to {max(loads)}",
        "",
        "| law | 10, 25, 50, 75, 90 % end by (s) | in 10 to 90 % (width) | in 25 to 75 % (width) | by 50 % |",
        "|---|---|---|---|---|",
        *(each.row() for each in found),
        f"| what came | {' '.join(real)} | | | |",
        "",
    ]
    return "\n".join([*lines, *(each.told() for each in found)])


def _seconds(run: RunDir) -> float:
    """From the submission to the end."""
    history = run.history()
    return history.last("end")["time"] - history.first("submitted")["time"]


def speed(turns: int = 7) -> str:
    """How long the command takes for a run of thirty days on 512 GPUs, beside the same without --simulate, in turn."""
    plain = [sys.executable, "-P", "-m", "launcher.cli", "plan", *LARGE]
    sides = {"plan": plain, "plan --simulate": [*plain, "--simulate", "--like=config"]}
    environment, took = {**os.environ, "PYTHONPATH": str(HERE.parent)}, {name: [] for name in sides}
    for _ in range(turns):
        for name, command in sides.items():
            began, worked = time.perf_counter(), _worked()
            said = subprocess.run(command, env=environment, cwd=HERE.parent, check=True, capture_output=True, text=True)
            took[name].append((time.perf_counter() - began, _worked() - worked))
    told = []
    for name, seconds in took.items():
        wall, cpu = zip(*seconds, strict=True)
        told.append(f"{name} {_middle(wall)}, CPU {_middle(cpu)}")
    lives = said.stdout.splitlines()[0].partition(": ")[2]
    return f"{' '.join(LARGE)}: {'; '.join(told)}; {turns} turns, {lives}, load average {os.getloadavg()[0]:.1f}"


def _worked() -> float:
    """CPU seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _middle(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--pilots", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--steps", type=int, default=252)
    parser.add_argument("--every", type=int, default=30, help="steps between two saves")
    parser.add_argument("--step-seconds", type=float, default=0.2)
    parser.add_argument("--preempted-every", type=float, default=40.0, help="mean seconds of work")
    parser.add_argument("--killed-every", type=float, default=100.0, help="mean seconds of work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--speed", action="store_true", help="nothing but how long the command itself takes")
    parser.add_argument("--again", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.steps % PER_EPOCH:
        parser.error(f"--steps: epochs have {PER_EPOCH} of them")
    if options.speed:
        print(speed())
        return
    folder = options.again or options.keep or Path(tempfile.mkdtemp(prefix="foreseen-"))
    try:
        if not options.again:
            if program := clusters.missing():
                parser.error(f"{program} is not on this machine; Debian and Ubuntu: apt-get install slurm-wlm munge")
            Reality(options, folder.resolve()).happen()
        print(compare(options, folder.resolve()))
    finally:
        if not (options.keep or options.again):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
