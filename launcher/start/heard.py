"""What the srun of some ranks says of them."""

import re
import subprocess
import threading

from launcher.slurm import notation

# srun: error: n2: task 3: Killed        srun: error: n2: tasks 2-3: Exited with exit code 4
# srun: error: task 3 launch failed: Slurmd could not execve job
BLAME = re.compile(r"error: (?:(?P<node>\S+): )?tasks? (?P<rank>\d+)\S*:? (?P<how>.+)")
GONE = re.compile(r"Node failure on (?P<nodes>\S+)")


class Heard:
    """Passed on to the job's log. `failed`: the line about the first rank that did; `lost`: nodes of which Slurm knows
    that they are gone; `last`: the last line."""

    def __init__(self, step: subprocess.Popen):
        self.failed: re.Match | None = None
        self.lost: set[str] = set()
        self.last = ""
        self._step = step
        self.listening = threading.Thread(target=self._listen, daemon=True)
        self.listening.start()

    def _listen(self) -> None:
        for line in self._step.stderr:
            print(line, end="", flush=True)
            self.last = line.strip() or self.last
            self.failed = self.failed or BLAME.search(line)
            if gone := GONE.search(line):
                self.lost |= {*notation.expand(gone["nodes"])}
