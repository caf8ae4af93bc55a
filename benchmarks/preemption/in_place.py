"""python benchmarks/preemption/in_place.py [--code . 806cd7e] [--faults killed crashed stuck]        see --help.

What a rank costs that is killed (SIGKILL), that crashes (an exception in a step), or that is stuck (SIGSTOP): RotNet's
tiny recipe, two ranks on two nodes of a real Slurm cluster (tests/slurm/cluster.py) with Slurm's own KillWait=30 and
cred_expire=120. One run a kind of fault, in which it strikes the last rank --times times, half an interval after a
save; beside them a run that nobody disturbs: how long it takes, and with which state it ends.

Printed: seconds from the fault to the first new step, one beyond the last that was done before; where a rank is stuck,
also from the moment at which the watch has ended the first rank. Time lost: the share of the run's wall time, from its
first start to its end, that the undisturbed run did not need. Seven minutes where ranks start again in place, 25 where
they wait in the queue, or 9 with --at-once 4.

A step takes --step-seconds at least, as if a GPU did it. That, and the exception, are in a sitecustomize of the ranks;
the code is as it is.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("cluster", ROOT / "tests" / "slurm" / "cluster.py")
clusters = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(clusters)

SLURM = {"KillWait": 30, "AuthInfo": "cred_expire=120"}  # the defaults
NODES, PER_EPOCH = 2, 9  # steps of the tiny recipe
FAULTS = {"killed": "killed", "crashed": "crash", "stuck": "stuck"}  # as a run's ledger calls its end
UNDISTURBED = "none"
PATIENCE = 300.0  # seconds without a step: a requeued job waits for 120
POLL_SECONDS = 0.02
RAISE = "raise"  # a file beside the sitecustomize: the last rank takes it away, and raises
PACED = f"""\
import importlib.machinery
import os
import sys
import time


class Paced:
    def find_spec(self, name, path, target=None):
        if name != "methods.rotnet.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), pace(module.RotNet))
        return spec


def pace(trainer):
    loss, began = trainer.loss, [time.monotonic()]

    def paced(self, *given):
        if self.job.world.rank == self.job.world.size - 1:
            try:
                os.unlink(os.path.join(os.path.dirname(__file__), "{RAISE}"))
            except FileNotFoundError:
                pass
            else:
                raise RuntimeError("brought about by benchmarks/preemption")
        time.sleep(max(0.0, began[0] + float(os.environ["BENCH_STEP_S"]) - time.monotonic()))
        began[0] = time.monotonic()
        return loss(self, *given)

    trainer.loss = paced


sys.meta_path.insert(0, Paced())
"""


@dataclass
class Blow:
    """One fault, and what came of it, in seconds since: the first and the last rank of that start gone, stacks written
    by the watch (0: none), the next start, rank 0 at work (0: the code does not tell), its checkpoint loaded, its
    first step, the first step beyond those that had been done."""

    load: float
    first_gone: float
    all_gone: float
    stacks: float = 0.0
    start: float = 0.0
    ranks: float = 0.0
    restored: float = 0.0
    step: float = 0.0
    new: float = 0.0
    account: dict[str, float] = field(default_factory=dict)  # rank 0's own, of its seconds up to the first step
    cause: str = ""
    queued: bool = False  # did it start again through the queue?

    @property
    def after_watch(self) -> float:
        return self.new - self.first_gone


@dataclass
class Result:
    """seconds: from the first start to the end. digest: of the state that it ended with."""

    seconds: float
    digest: str
    blows: list[Blow] = field(default_factory=list)


class Run:
    """A run from outside: its files, which code of any age writes alike."""

    def __init__(self, path: Path):
        self.path = path

    def events(self, name: str, generation: int | None = None) -> list[dict]:
        files = sorted((self.path / "events").glob("*.jsonl"))
        rows = [row for file in files for row in _rows(file) if row["event"] == name]
        return sorted((r for r in rows if generation in (None, r["generation"])), key=lambda row: row["generation"])

    def steps(self) -> list[dict]:
        """A row of metrics for every step that was done, also of those done twice, in order."""
        return [row for row in _rows(self.path / "metrics.jsonl") if "loss" in row]

    def step(self) -> int:
        return max((row["step"] for row in self.steps()), default=0)

    def saved(self) -> int:
        return max((int(p.name.removeprefix("step_")) for p in self.path.glob("checkpoints/step_*")), default=-1)

    def generation(self) -> int:
        return len(self.events("start"))

    def ended(self) -> dict | None:
        """How, once it is over for good."""
        ends = self.events("end", self.generation())
        return ends[-1] if ends and ends[-1]["state"] in ("done", "failed") else None

    def pids(self) -> dict[int, int]:
        """{rank: process} of the start that is under way."""
        beats = [json.loads(file.read_text()) for file in self.path.glob("heartbeats/rank*.json")]
        return {beat["rank"]: beat["pid"] for beat in beats if beat["generation"] == self.generation()}


def _rows(file: Path) -> list[dict]:
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):  # torn where a writer was killed
            rows.append(json.loads(line))
    return rows


class Bench:
    """One run of one code on a cluster of its own. `fault`: of FAULTS, or UNDISTURBED."""

    def __init__(self, code: Path, fault: str, options: argparse.Namespace, folder: Path):
        self.code, self.fault, self.options, self.folder = code, fault, options, folder
        self.run: Run | None = None
        self._saved = 0  # the newest checkpoint when the last fault came

    def measure(self) -> Result:
        """Raises SystemExit where it does not go on, or does not end well."""
        with clusters.Cluster(nodes=NODES, config=SLURM) as cluster:
            self.run = Run(self._submit(cluster))
            blows = [self._strike(at) for at in self._moments()]
            self._until(self.run.ended, "its end")
        run, end = self.run, self.run.ended()
        if end["state"] != "done":
            self._give_up(f"it is {end['state']}: {end['message']}")
        digest = json.loads(max(run.path.glob("checkpoints/step_*/manifest.json")).read_text())["digest"]
        result = Result(end["time"] - run.events("start")[0]["time"], digest)
        for generation, (struck, blow) in enumerate(blows, start=1):
            self._look(generation, struck, blow)
            result.blows.append(blow)
        return result

    def _submit(self, cluster) -> Path:
        options, site = self.options, self.folder / "site"
        site.mkdir(parents=True)
        (site / "sitecustomize.py").write_text(PACED)
        (site / "cluster").mkdir()
        about = {"name": "bench", "kind": "slurm", "gpus_per_node": 0, "cpus_per_node": 4, "cpus_per_task": 1}
        about |= {"environment": {"GLOO_SOCKET_IFNAME": "lo"}, "stall_minutes": options.stall_minutes}
        (site / "cluster" / "bench.yaml").write_text(json.dumps(about))  # JSON is YAML
        words = [
            f"runs={self.folder / 'runs'}", "method=rotnet", "recipe=tiny", f"nodes={NODES}", "tasks_per_node=1",
            "cluster=bench", f"method.epochs={options.steps // PER_EPOCH}", "method.log_every=1",
            f"method.checkpoint_every={options.every}",
        ]  # fmt: skip
        path = os.pathsep.join(map(str, (site, self.code)))
        environment = {**cluster.environ(), "PYTHONPATH": path, "BENCH_STEP_S": str(options.step_seconds)}
        command = [sys.executable, "-P", "-m", "launcher.cli", *words, "--config-dir", site, "--json"]
        said = subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True)
        if said.returncode:
            raise SystemExit(said.stderr)
        return Path(json.loads(said.stdout.splitlines()[-1])["path"])

    def _moments(self) -> list[int]:
        """The steps at which it strikes, evenly over the run, each half an interval after a save."""
        options, count = self.options, 0 if self.fault == UNDISTURBED else self.options.times
        whole = options.steps // options.every
        return [options.every * (whole * (2 * i + 1) // (2 * count)) + options.every // 2 for i in range(count)]

    def _strike(self, at: int) -> tuple[float, Blow]:
        """(when, what came of it) of one fault, once step `at` was done and a checkpoint is newer than the last one."""
        run = self.run
        self._until(lambda: run.step() >= at and run.saved() > self._saved, f"step {at} and a save")
        self._until(lambda: len(run.pids()) == NODES, "a sign of life of every rank")
        generation, pids, self._saved = run.generation(), run.pids(), run.saved()
        load, target = os.getloadavg()[0], pids[max(pids)]
        if self.fault == "crashed":
            marker = self.folder / "site" / RAISE
            marker.touch()
            self._until(lambda: not marker.exists(), "a step of the last rank")
        else:
            os.kill(target, signal.SIGKILL if self.fault == "killed" else signal.SIGSTOP)
        struck = time.time()
        self._until(lambda: sum(map(_alive, pids.values())) < len(pids), "the end of a rank")
        first = time.time() - struck
        self._until(lambda: not any(map(_alive, pids.values())), "the end of all ranks")
        blow = Blow(load, first, time.time() - struck)
        self._until(lambda: run.generation() > generation or run.ended(), "the next start")
        if run.generation() == generation:
            self._give_up(f"it did not go on: {run.ended()['message']}")
        return struck, blow

    def _look(self, generation: int, struck: float, blow: Blow) -> None:
        """Fill in what the run's own files say of the start after `generation`. All clocks are this machine's."""
        run = self.run
        before, after = (run.events("start", g)[0] for g in (generation, generation + 1))
        blow.start = after["time"] - struck
        blow.queued = after["restart_count"] > before["restart_count"]
        blow.cause = after["cause"]
        stacks = (row["time"] - struck for row in run.events("stalled", generation))
        blow.stacks = min((each for each in stacks if each > 0), default=0.0)  # a slow start has some, too
        restored = run.events("restored", generation + 1)[0]["time"]
        blow.restored = restored - struck
        for told in run.events("first_step", generation + 1):  # code before 2026-12 tells of none
            blow.account = told["seconds"]
            blow.ranks = told["time"] - sum(blow.account.values()) - struck
        steps = run.steps()
        last = max(row["step"] for row in steps if row["time"] < after["time"])
        later = [row for row in steps if row["time"] > restored]
        blow.step = later[0]["time"] - struck
        blow.new = next(row["time"] for row in later if row["step"] > last) - struck
        if blow.cause != FAULTS[self.fault]:
            print(f"{self.fault}: the ledger calls it {blow.cause}", file=sys.stderr)

    def _until(self, condition, what: str) -> None:
        before, moved = None, time.monotonic()
        for turn in itertools.count():
            if condition():
                return
            if turn % 50 == 0:
                now = (self.run.generation(), len(self.run.steps()))
                if now != before:
                    before, moved = now, time.monotonic()
                end = self.run.ended()
                if time.monotonic() - moved > PATIENCE or (end and not condition()):
                    self._give_up(f"waited for {what}, in vain: {end or 'no step for long'}")
            time.sleep(POLL_SECONDS)

    def _give_up(self, why: str) -> None:
        self.options.keep = True
        raise SystemExit(f"{self.code}, {self.fault}: {why}; see {self.run.path}")


def _alive(pid: int) -> bool:
    """Also of one that is stopped; a zombie is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def checkout(given: str, folder: Path) -> tuple[str, Path]:
    """(its name, the folder it lies in) of the code `given`: a checkout, or a commit, whose files go into `folder`."""
    if (Path(given) / "launcher").is_dir():
        root = Path(given).resolve()
        said = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty=+changes"], capture_output=True)
        return said.stdout.decode().strip() or str(root), root
    target = Path(tempfile.mkdtemp(prefix="code-", dir=folder))
    tree = subprocess.run(["git", "-C", ROOT, "archive", given], capture_output=True)
    if tree.returncode:
        raise SystemExit(f"--code={given}: neither a folder with a checkout nor a commit of this one")
    subprocess.run(["tar", "-x", "-C", target], input=tree.stdout, check=True)
    return given, target


def _middle(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def table(results: dict[tuple[str, str], Result]) -> str:
    """Markdown: one row a code and fault."""
    lines = [
        "| code | a rank is | seconds to the first new step | after the watch | starts again | time lost | exact |",
        "|---|---|---|---|---|---|---|",
    ]
    for (code, fault), result in results.items():
        if fault != UNDISTURBED:
            quiet, blows = results[code, UNDISTURBED], result.blows
            queued = sum(blow.queued for blow in blows)
            places = {0: "in place", len(blows): "in the queue"}.get(queued, f"{queued} of {len(blows)} in the queue")
            watch = _middle([blow.after_watch for blow in blows]) if fault == "stuck" else ""
            new, exact = _middle([blow.new for blow in blows]), "yes" if result.digest == quiet.digest else "no"
            lost = f"{1 - quiet.seconds / result.seconds:.2f}"
            lines.append(f"| {code} | {fault} | {new} | {watch} | {places} | {lost} | {exact} |")
    return "\n".join(lines)


def parts(results: dict[tuple[str, str], Result]) -> str:
    """Where the seconds go: medians, since the fault."""
    names = ("stacks", "first_gone", "all_gone", "start", "ranks", "restored", "step", "new")
    lines = [f"{'since the fault, medians':32}" + "".join(f"{name.replace('_', ' '):>12}" for name in names)]
    for (code, fault), result in results.items():
        if result.blows:
            medians = (statistics.median(getattr(blow, name) for blow in result.blows) for name in names)
            lines.append(f"{f'{code}, {fault}':32}" + "".join(f"{value:12.1f}" for value in medians))
            accounts = [blow.account for blow in result.blows if blow.account]
            words = (f"{name} {statistics.median(a[name] for a in accounts):.2f}" for name in (accounts or [{}])[0])
            lines.append("    of rank 0: " + ", ".join(words))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--code", nargs="+", default=[str(ROOT)], help="checkouts, or commits of this one; this tree by default"
    )
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--times", type=int, default=3, help="faults a run; no budget forgives more than three")
    parser.add_argument("--steps", type=int, default=594)
    parser.add_argument("--every", type=int, default=20, help="steps between two saves")
    parser.add_argument("--step-seconds", type=float, default=0.1)
    parser.add_argument("--stall-minutes", type=float, default=0.25)
    parser.add_argument("--at-once", type=int, default=1, help="runs; more than one makes starts slower")
    parser.add_argument("--json", action="store_true", help="a line of JSON a run")
    options = parser.parse_args()
    options.keep = False
    if options.steps % PER_EPOCH or options.steps // options.every < 2 * options.times:
        parser.error(f"--steps: epochs have {PER_EPOCH} of them, and between two faults there must be a save")
    if program := clusters.missing():
        parser.error(f"{program} is not on this machine; Debian and Ubuntu: apt-get install slurm-wlm munge")
    folder, began, loads = Path(tempfile.mkdtemp(prefix="in-place-")), time.monotonic(), [os.getloadavg()[0]]
    number = itertools.count()
    try:
        codes = dict(checkout(given, folder) for given in options.code)
        benches = {
            (name, fault): Bench(code, fault, options, folder / f"run{next(number)}")
            for name, code in codes.items()
            for fault in (UNDISTURBED, *options.faults)
        }
        with ThreadPoolExecutor(options.at_once) as pool:
            found = pool.map(Bench.measure, benches.values())
            results: dict[tuple[str, str], Result] = {}
            for (code, fault), result in zip(benches, found, strict=True):
                results[code, fault] = result
                loads += [blow.load for blow in result.blows]
                print(f"{code}, {fault}: {result.seconds:.0f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
                if options.json:
                    print(json.dumps({"code": code, "fault": fault, **asdict(result)}), flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    trained, minutes = math.floor(options.steps * options.step_seconds), (time.monotonic() - began) / 60
    print(
        f"{options.times} faults a run of {options.steps} steps ({trained} s at least), a save every {options.every},"
    )
    print(
        f"{options.at_once} at once, {minutes:.0f} minutes in all, load average {min(loads):.1f} to {max(loads):.1f}\n"
    )
    print(f"{table(results)}\n\n{parts(results)}")


if __name__ == "__main__":
    main()
