"""The real command line, in processes of its own, and what it said."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from forge import Forge
from warm import SSLRUN


@dataclass
class Answer:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The last line of stdout."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def complaint(self) -> str:
        """The one line on stderr that begins with `sslrun: `; fails where there is none, or more, or a traceback."""
        assert "Traceback" not in self.out + self.err
        lines = [line for line in self.err.splitlines() if line.startswith("sslrun: ")]
        assert len(lines) == 1, self.err
        return lines[0]


class Sslrun:
    """`sslrun(verb_or_override, ...)` waits for the command; `start` leaves it running. Both, and the ranks of what
    they launch here, are forks of a process that has loaded torch; with `cold=True` they are started as a person
    would, each with its imports."""

    def __init__(self, home: Path, forge: Forge):
        self.home, self._forge = home, forge
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONSAFEPATH", "PYTHONPATH")}
        self.environment = {**kept, "XDG_CACHE_HOME": str(home / "cache"), "TERM": "dumb", "COLUMNS": "100"}
        self._started: list[subprocess.Popen] = []

    def __call__(
        self,
        *arguments: object,
        code: int | None = 0,
        cwd: Path | None = None,
        timeout: float = 600,
        cold: bool = False,
    ):
        answer = self.start(*arguments, cwd=cwd, cold=cold)
        out, err = answer.communicate(timeout=timeout)
        if code is not None:
            assert answer.returncode == code, f"exit code {answer.returncode}, not {code}\n{out}\n{err}"
        return Answer(answer.returncode, out, err)

    def start(self, *arguments: object, cwd: Path | None = None, cold: bool = False) -> subprocess.Popen:
        process = (subprocess.Popen if cold else self._forge.start)(
            [SSLRUN, *map(str, arguments)],
            cwd=cwd or self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def where(self, **variables: str) -> "Sslrun":
        """The same command with more environment variables."""
        other = Sslrun(self.home, self._forge)
        other.environment, other._started = {**self.environment, **variables}, self._started
        return other

    def finish(self, process: subprocess.Popen, timeout: float = 600) -> Answer:
        out, err = process.communicate(timeout=timeout)
        return Answer(process.returncode, out, err)

    def show(self, run: Path) -> dict:
        return self("show", run, "--json").json

    def close(self) -> None:
        """A test that failed in the middle leaves nothing running; the ranks die with their launcher."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()

    def signalling(self, *, number: int, rank: int = 0, whom: str = "launcher", **when: object) -> "Sslrun":
        """The command where a rank signals itself or the launcher at that point of its work: `after` so many steps, or
        in the `stage` before a `step` (see at_work)."""
        order = {"rank": rank, "whom": whom, "number": number, **when}
        planted = str(Path(__file__).parent / "at_work")
        return self.where(PYTHONPATH=planted, SSLRUN_TEST_SIGNAL=json.dumps(order))
