"""python benchmarks/preemption/run.py [--only sslrun submitit hydra]        as root, about a quarter of an hour.

The same training under the same three preemptions, on real Slurm clusters of one node (tests/slurm/cluster.py): started
with sslrun, with submitit and its `checkpoint()`, and with Hydra's submitit launcher. A job in partition `high` takes
the node when a step is first reached. Printed: steps lost (executed and not part of the result), restarts, goodput
(steps / steps executed), and whether the weights are those of a run that nobody interrupted.

A step is RotNet's tiny recipe and takes --step-seconds at least, as if a GPU did it. What is saved is padded to
--pad-mb, on a loop device of --disk-mb-s (which needs root), so that a save takes seconds. All save every --every
steps: sslrun behind the training, the others with torch.save, fsync and a rename.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from padded.spec import STEPS_AN_EPOCH, bench  # noqa: E402 (Python is told of it above)

from launcher.run.folder import RunDir  # noqa: E402

_spec = importlib.util.spec_from_file_location("cluster", HERE.parents[1] / "tests" / "slurm" / "cluster.py")
clusters = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(clusters)

BPS = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")  # of all processes, by device
SSLRUN = Path(sys.executable).with_name("sslrun")
LIMIT_SECONDS = 1200  # of one run


@dataclass(frozen=True)
class Setting:
    """How long a preempted job may go on: GraceTime, then KillWait; by which signal it is told."""

    name: str
    grace_s: int
    kill_wait: int = 1
    user_signal: bool = False


# With KillWait=1 and MessageTimeout=1, Slurm looks after 2 s whether the grace is over.
SETTINGS = {
    "none": Setting("none: GraceTime 0, killed after 2 s", 0),
    "short": Setting("shorter than a save: GraceTime 1, killed after 4 s", 1),
    "long": Setting("longer: GraceTime 60", 60),
    "told": Setting("longer, and told by USR2: GraceTime 60, send_user_signal", 60, user_signal=True),
}


@dataclass
class Result:
    lost: int
    restarts: int
    goodput: float
    minutes: float
    exact: bool


class Harness:
    """One way to start the job. `folder`: on the slow disk; `notes`: beside it."""

    def __init__(self, options, folder, notes):
        self.options, self.folder, self.executed, self.done = options, folder, notes / "executed", notes / "done"

    def plain(self):
        """JSON of plain.Options."""
        options = self.options
        return {
            "folder": str(self.folder),
            "executed": str(self.executed),
            "done": str(self.done),
            "steps": options.steps,
            "every": options.every,
            "pad_mb": options.pad_mb,
            "step_seconds": options.step_seconds,
            "images": bench().images,
        }

    def ended(self):
        """The hash of the final weights; None before the end."""
        return self.done.read_text() or None if self.done.exists() else None

    def steps(self):
        """(starts, steps executed, the furthest of them)."""
        lines = self.executed.read_text().splitlines() if self.executed.exists() else []
        steps = [int(line) for line in lines if line != "start"]
        return lines.count("start"), len(steps), max(steps, default=0)


class Sslrun(Harness):
    def launch(self, cluster=None):
        options = self.options
        # As an installed package would register its method.
        package = self.executed.parent / "package"
        (package / "padded-1.dist-info").mkdir(parents=True)
        (package / "padded-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: padded\nVersion: 1\n")
        (package / "padded-1.dist-info" / "entry_points.txt").write_text(
            "[sslrun.methods]\npadded = padded.spec:METHOD\n"
        )
        shutil.copytree(HERE / "padded", package / "padded")
        (package / "cluster").mkdir()
        about = {"name": "bench", "partition": "low", "gpus_per_node": 0, "cpus_per_node": 2, "preemptible": True}
        about |= {"disk_gb_s": options.disk_mb_s / 1000, "environment": {"GLOO_SOCKET_IFNAME": "lo"}}
        (package / "cluster" / "bench.yaml").write_text(json.dumps(about))  # JSON is YAML
        words = [
            f"runs={self.folder}", "method=padded", "recipe=bench", f"method.epochs={options.steps // STEPS_AN_EPOCH}",
            f"method.pad_mb={options.pad_mb}", f"method.checkpoint_every={options.every}",
            f"method.executed={self.executed}",
        ]  # fmt: skip
        words += ["cluster=bench", f"method.step_seconds={options.step_seconds}"] if cluster else ["cluster=local"]
        environment = {**(cluster.environ() if cluster else os.environ), "PYTHONPATH": str(package)}
        command = [SSLRUN, *words, "--config-dir", str(package), "--json"]
        said = subprocess.run(command, env=environment, cwd=package, capture_output=True, text=True)
        if said.returncode:
            raise SystemExit(said.stderr)
        self._run = RunDir(json.loads(said.stdout.splitlines()[-1])["path"])

    def ended(self):
        if not any(e["event"] == "end" and e["state"] in ("done", "failed") for e in self._run.history()):
            return None
        with contextlib.suppress(OSError, IndexError):
            return json.loads((self._run.checkpoints()[-1] / "manifest.json").read_text())["digest"]
        return "failed"


class Submitit(Harness):
    def launch(self, cluster):
        command = [sys.executable, HERE / "with_submitit.py", json.dumps(self.plain())]
        subprocess.run(
            command, env=_importing(cluster), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


class Hydra(Harness):
    def launch(self, cluster):
        launcher = {"partition": "low", "timeout_min": 120, "cpus_per_task": 1, "signal_delay_s": 60}
        words = [f"hydra.launcher.{name}={value}" for name, value in launcher.items()]
        words += [f"+{name}={value}" for name, value in self.plain().items()]
        words += ["hydra/launcher=submitit_slurm", f"hydra.sweep.dir={self.folder}/multirun"]
        command = [sys.executable, HERE / "with_hydra.py", "--multirun", *words]
        log = (self.executed.parent / "launcher.log").open("w")
        # It blocks until the job is over; the cluster's keeper ends it otherwise.
        subprocess.Popen(command, env=_importing(cluster), cwd=self.folder, stdout=log, stderr=log)


HARNESSES = {"sslrun": Sslrun, "submitit": Submitit, "hydra": Hydra}


def _importing(cluster):
    return {**cluster.environ(), "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}


@contextlib.contextmanager
def slow_disk(parent, mb_s, size_mb):
    """A folder on a file system of `size_mb` that takes `mb_s`; both in 1e6 bytes."""
    image, folder = parent / "disk", parent / "slow"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(int(size_mb * 1e6))
    quiet = {"check": True, "capture_output": True, "text": True}
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], **quiet)
    device = subprocess.run(["losetup", "--find", "--show", image], **quiet).stdout.strip()
    number = Path("/sys/block", Path(device).name, "dev").read_text().strip()
    try:
        subprocess.run(["mount", device, folder], **quiet)
        BPS.write_text(f"{number} {int(mb_s * 1e6)}")
        yield folder
    finally:
        BPS.write_text(f"{number} 0")
        subprocess.run(["umount", "--lazy", folder])
        subprocess.run(["losetup", "--detach", device])


def measure(name, setting, options, expected):
    """A Result. Raises SystemExit when the run takes over LIMIT_SECONDS."""
    notes = Path(tempfile.mkdtemp(dir=options.folder))
    config = {"KillWait": setting.kill_wait, "MessageTimeout": 1}
    try:
        with (
            slow_disk(notes, options.disk_mb_s, 4 * options.pad_mb + 500) as folder,
            clusters.Cluster(
                nodes=1, cpus=2, grace_s=setting.grace_s, user_signal=setting.user_signal, config=config
            ) as cluster,
        ):
            harness = HARNESSES[name](options, folder, notes)
            began = time.monotonic()
            harness.launch(cluster)
            for step in options.preempt:
                _wait(lambda step=step: harness.steps()[2] >= step or harness.ended(), harness, cluster, began)
                cluster.run("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
                _wait(
                    lambda: not cluster.run("squeue", "--noheader", "--partition=high").stdout, harness, cluster, began
                )
            _wait(harness.ended, harness, cluster, began)
            starts, executed, _ = harness.steps()
            minutes = (time.monotonic() - began) / 60
            exact = harness.ended() == expected
            return Result(executed - options.steps, starts - 1, options.steps / executed, minutes, exact)
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def _wait(condition, harness, cluster, began):
    while not condition():
        if time.monotonic() - began > LIMIT_SECONDS:
            queue = cluster.run("squeue", check=False).stdout
            raise SystemExit(f"{type(harness).__name__}: no end after {LIMIT_SECONDS} s: {harness.steps()}\n{queue}")
        time.sleep(0.05)


def undisturbed(options):
    """{harness: hash of the weights of a run that nobody interrupts, and that does not wait}."""
    hashes = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        notes = Path(folder)
        if "sslrun" in options.only:
            harness = Sslrun(options, notes / "runs", notes)
            harness.launch()
            hashes["sslrun"] = harness.ended()
            harness.executed.unlink()
        if set(options.only) - {"sslrun"}:
            harness = Harness(options, notes, notes)
            code = "import json, sys, plain; plain.Training(plain.Options(**json.loads(sys.argv[1]))).run()"
            given = json.dumps({**harness.plain(), "step_seconds": 0.0, "every": options.steps + 1})
            environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
            subprocess.run([sys.executable, "-c", code, given], env=environment, check=True)
            hashes |= dict.fromkeys(("submitit", "hydra"), harness.ended())
    return hashes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=HARNESSES, default=list(HARNESSES))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=300, help="steps between two saves")
    parser.add_argument("--preempt", type=int, nargs="*", default=[150, 450, 750], help="when these are first reached")
    parser.add_argument("--step-seconds", type=float, default=0.1)
    parser.add_argument("--pad-mb", type=int, default=400)
    parser.add_argument("--disk-mb-s", type=float, default=50)
    parser.add_argument("--at-once", type=int, default=1, help="runs, each on a cluster and a disk of its own")
    parser.add_argument("--folder", type=Path, help="for images of the disks, if not that of temporary files")
    parser.add_argument("--json", action="store_true", help="a line of JSON a run")
    options = parser.parse_args()
    if options.steps % STEPS_AN_EPOCH:
        parser.error(f"--steps: epochs have {STEPS_AN_EPOCH} of them")
    if os.geteuid() or not BPS.exists() or clusters.missing():
        parser.error("this needs root, cgroup v1's blkio throttle, loop devices, and Debian's slurm-wlm")
    expected = undisturbed(options)
    pairs = [(name, setting) for setting in options.settings for name in options.only]
    with ThreadPoolExecutor(options.at_once) as pool:
        results = pool.map(lambda pair: measure(pair[0], SETTINGS[pair[1]], options, expected[pair[0]]), pairs)
        print(f"{options.steps} steps, a save every {options.every}, preempted at {options.preempt}\n")
        print(f"{'':>56} {'':9} {'lost':>5} {'restarts':>8} {'goodput':>8} {'minutes':>8}  exact")
        for (name, setting), result in zip(pairs, results, strict=True):
            row = f"{SETTINGS[setting].name:>56} {name:9} {result.lost:5} {result.restarts:8} {result.goodput:8.3f}"
            print(f"{row} {result.minutes:8.1f}  {'yes' if result.exact else 'no'}", flush=True)
            if options.json:
                print(json.dumps({"setting": setting, "harness": name, **asdict(result)}), flush=True)


if __name__ == "__main__":
    main()
