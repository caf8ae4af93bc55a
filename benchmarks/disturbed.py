"""A run that loses its terminal, its reader, its disk, its clocks and its files, one after the other, beside one that
nobody disturbs: both must end in the same state, byte for byte.

    sudo python benchmarks/disturbed.py --seconds 1800

The terminal closes, and the run is resumed with a pipe whose reader goes at once. Then the disk is full, twice; the
clock of each process in turn is set back by an hour; no rank can read the run's folder, and, after a kill, none can
read its checkpoints. Files and clocks are simulated, in the processes' own Python; the rest is real. To make the disk
full it mounts a small tmpfs, for which it must be root.
"""

import argparse
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from launcher.drill.simulated import AWAY_FILE, PROGRAM
from launcher.run.folder import RunDir, every

STEPS = 40
WORDS = ("method=deepercluster", "recipe=tiny", "method.epochs=10", "method.log_every=1", "tasks_per_node=2")
BACK_SECONDS = 3600
# Beside what a drill simulates: a step that takes so long, and a clock that is set back while the process lives.
MORE = f"""
here = os.path.dirname(__file__)
who = "rank" + os.environ["RANK"] if "RANK" in os.environ else "launcher"
now, opens, opened = time.time, io.open, os.open

def shifted():
    with opens(os.path.join(here, "back")) as file:
        return now() - {BACK_SECONDS} * (file.read() == who)

def slow(file, *words, **more):
    if str(file).endswith("metrics.jsonl") and who == "rank0":
        time.sleep(float(os.environ["DISTURBED_STEP_S"]))
    return opened(file, *words, **more)

time.time = shifted
os.open = slow
os.supports_dir_fd.add(slow)  # as it does; shutil looks
"""


class Disturbed:
    """The run, what is done to it, and what it is told."""

    def __init__(self, runs: Path, aside: Path, step_s: float):
        self.runs, self._aside = runs, aside
        aside.mkdir()
        self._tell("back", "")
        self._tell(AWAY_FILE, "")
        (aside / "sitecustomize.py").write_text(PROGRAM + MORE)
        path = os.pathsep.join(filter(None, [str(aside), os.environ.get("PYTHONPATH")]))
        self._environment = {
            **os.environ, "PYTHONPATH": path, "DRILL_SIMULATES": "files away", "DISTURBED_STEP_S": str(step_s),
        }  # fmt: skip
        self._process: subprocess.Popen | None = None

    @property
    def run(self) -> RunDir:
        return next(every(self.runs))

    def _tell(self, name: str, text: str) -> None:
        beside = self._aside / f".{name}"
        beside.write_text(text)
        beside.rename(self._aside / name)

    def start(self, *words: str, screen: int) -> None:
        words = (sys.executable, "-P", "-m", "launcher.cli", *words, f"runs={self.runs}")
        options = {"stdin": screen, "stdout": screen, "stderr": screen, "env": self._environment}
        self._process = subprocess.Popen(words, start_new_session=True, preexec_fn=_take_terminal, **options)

    def said(self) -> str:
        """The end of what its first rank printed."""
        return (self.run.path / "logs" / "rank0.log").read_text(errors="replace")[-2000:]

    def ended(self) -> bool:
        return self._process.poll() is not None

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Raises RuntimeError where the run ends before."""
        while not condition():
            if self.ended() and not condition():
                raise RuntimeError(f"it ended before {what}: {self.run.state()}\n{self.said()}")
            time.sleep(0.05)

    def step(self) -> int:
        return self.run.progress().get("step", 0) if any(self.runs.glob("*/spec.json")) else 0

    def count(self, event: str) -> int:
        return len(self.run.history().all(event))

    # -- what is done to it ----------------------------------------------------------------------------------------

    def close_the_terminal(self) -> None:
        """It saves and stops."""
        master, slave = pty.openpty()
        self.start(*WORDS, screen=slave)
        os.close(slave)
        self.until(lambda: self.step() >= 4, "step 4")
        os.close(master)
        self._process.wait()
        self.expect("stopped")

    def cut_the_pipe(self) -> None:
        """`| head -1`: it trains on."""
        reader, writer = os.pipe()
        head = subprocess.Popen(["head", "-1"], stdin=reader, stdout=subprocess.DEVNULL)
        os.close(reader)
        self.start("resume", self.run.id, screen=writer)
        os.close(writer)
        head.wait()
        before = self.step()
        self.until(lambda: self.step() > before, "its next step")

    def fill_the_disk(self) -> None:
        """A save fails, and the next one that finds room does not. That it failed may have no room in the ledger."""
        failed, filler = self.count("save_failed"), self.runs / "filler"
        with filler.open("wb", buffering=0) as file:
            while _write(file, bytes(1 << 16)):
                pass
        self.until(lambda: self.count("save_failed") > failed or "No space left" in self.said(), "a save that failed")
        filler.unlink()
        saved = self.count("checkpoint")
        self.until(lambda: self.count("checkpoint") > saved, "the next checkpoint")

    def set_clocks_back(self, seconds: float) -> None:
        for who in ("launcher", "rank0", "rank1"):
            self._tell("back", who)
            self.wait(seconds / 3)
        self._tell("back", "")

    def take_the_folder_away(self, seconds: float) -> None:
        self._tell(AWAY_FILE, str(self.run.path))
        self.wait(seconds)
        self._tell(AWAY_FILE, "")
        saved = self.count("checkpoint")
        self.until(lambda: self.count("checkpoint") > saved, "the next checkpoint")

    def take_the_checkpoints_away(self, seconds: float) -> None:
        """After a kill; the start waits."""
        os.killpg(self._process.pid, signal.SIGKILL)  # its ranks end with it
        self._process.wait()
        self._tell(AWAY_FILE, str(self.run.path / "checkpoints"))
        self.start("resume", self.run.id, screen=os.open(os.devnull, os.O_RDWR))
        self.until(lambda: self.run.progress().get("stage", "").startswith("waiting: "), "a word that it waits")
        self.wait(seconds)
        self._tell(AWAY_FILE, "")

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, "the disturbance was over")

    def finish(self) -> str:
        """The digest of its state."""
        self._process.wait()
        self.expect("done")
        return self.run.summary()["state_digest"]

    def expect(self, state: str) -> None:
        found = self.run.state()
        if found.name != state:
            raise RuntimeError(f"it is {found.name}, not {state}: {found.message}")


def _take_terminal() -> None:
    """As a shell's child has it: whoever's terminal closes is told."""
    import fcntl
    import termios

    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _write(file, content: bytes) -> bool:
    try:
        file.write(content)
    except OSError:
        return False
    return True


def main(folder: Path, seconds: float, say: Callable[[str], None] = print) -> tuple[str, str]:
    """(digest of the undisturbed run, of the disturbed one). Raises RuntimeError where one does not end well,
    PermissionError where no disk can be mounted."""
    disk, quiet = folder / "disk", folder / "quiet"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        raise PermissionError(f"mounting a small file system is not permitted here: {mounted.stderr.strip()}")
    try:
        twin = Disturbed(quiet, folder / "quietly", 0.0)
        twin.start(*WORDS, screen=os.open(os.devnull, os.O_RDWR))
        expected = twin.finish()
        say(f"undisturbed: {expected}")
        run, part = (
            Disturbed(disk, folder / "believes", seconds / STEPS),
            min(60.0, seconds / 8),
        )  # longer than the steps between two clusterings of a short one
        disturbances = {
            "the terminal closed": run.close_the_terminal,
            "the pipe was cut": run.cut_the_pipe,
            "the disk was full": run.fill_the_disk,
            "clocks were set back": lambda: run.set_clocks_back(3 * part),
            "its folder was away": lambda: run.take_the_folder_away(part),
            "the disk was full again": run.fill_the_disk,
            "killed, and its checkpoints were away": lambda: run.take_the_checkpoints_away(part),
        }
        for what, disturb in disturbances.items():
            disturb()
            say(f"{what}: step {run.step()} of {STEPS}")
        found = run.finish()
        say(f"disturbed: {found}, {run.count('start')} starts, {run.count('save_failed')} saves failed")
        return expected, found
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0, help="that the run takes, at least")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="disturbed-"))
    began = time.monotonic()
    quiet_digest, digest = main(place, given.seconds)
    print(f"{'the same' if digest == quiet_digest else 'ANOTHER'} state, after {time.monotonic() - began:.0f} s")
    shutil.rmtree(place, ignore_errors=True)
    sys.exit(digest != quiet_digest)
