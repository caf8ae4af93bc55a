"""Holds the daemons of one test cluster, and takes everything down when whoever started it stops or dies.

    python -I -S keeper.py FOLDER

The kernel makes this process the parent of every orphan below it (a subreaper), and Slurm's job steps detach
themselves: so whatever a daemon, a step or a job started is still a descendant of this process and can be found and
killed. One JSON request a line on stdin, one JSON answer a line on stdout; the end of stdin, or of the parent, ends
everything, and FOLDER is removed.

Requests: {"do": "start", "name", "argv", "environment"}, {"do": "kill", "name"} (the daemon and the steps of the node
of that name), {"do": "end", "name"} (SIGTERM to the daemon alone, as an administrator would), {"do": "running"}.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class Keeper:
    """The daemons by name, and all that descends from them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons: dict[str, int] = {}  # name -> process id

    def answer(self, request: dict) -> dict:
        name = request.get("name", "")
        match request["do"]:
            case "start":
                self.daemons[name] = self._spawn(name, request["argv"], request["environment"])
            case "kill":
                # The daemon first: it would report the end of its steps, which a lost node cannot do.
                self._kill([self.daemons.pop(name)] if name in self.daemons else [])
                # Then all at once, children first: what watches an srun would end its step elsewhere.
                while steps := list(having(f"SLURMD_NODENAME={name}", descendants())):
                    self._signal(steps, signal.SIGSTOP)
                    self._kill(reversed(steps))
            case "end":
                if name in self.daemons:
                    os.kill(self.daemons[name], signal.SIGTERM)
                    while name in self.daemons:
                        self.reap()
                        time.sleep(0.01)
        self.reap()
        return {"running": sorted(self.daemons)}

    def reap(self) -> None:
        """Bury the dead, daemons and orphans alike."""
        try:
            while (dead := os.waitpid(-1, os.WNOHANG)[0]) > 0:
                self.daemons = {name: pid for name, pid in self.daemons.items() if pid != dead}
        except ChildProcessError:
            self.daemons = {}

    def end(self) -> None:
        """Kill every descendant, those born meanwhile too, and whoever uses the cluster; remove the folder."""
        self._kill(self.daemons.values())  # they are what starts further processes
        for _ in range(10):  # not for ever: a process in uninterruptible sleep cannot be killed by anybody
            # An srun, or a script of them, would wait for its tasks for ever.
            if not (left := [*descendants(), *having(f"SLURM_CONF={self.folder}/slurm.conf")]):
                break
            self._kill(left)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, name: str, argv: list[str], environment: dict[str, str]) -> int:
        if child := os.fork():
            return child
        try:
            os.setsid()
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # for the case that this process itself is killed
            log = os.open(self.folder / "log" / f"{name}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for number, file in ((0, nothing), (1, log), (2, log)):
                os.dup2(file, number)
            os.closerange(3, 64)
            os.execvpe(argv[0], argv, environment)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error}\n".encode())
        finally:
            os._exit(127)

    def _signal(self, pids: Iterable[int], number: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _kill(self, pids: Iterable[int]) -> None:
        """SIGKILL, and wait until they are gone; a process in uninterruptible sleep is given five seconds."""
        pids = list(pids)
        self._signal(pids, signal.SIGKILL)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            self.reap()
            if not any(alive(pid) for pid in pids):
                return
            time.sleep(0.01)


def alive(pid: int) -> bool:
    """A zombie is not alive: its parent has only not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descendants() -> Iterator[int]:
    """Living processes below this one, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    below = [os.getpid()]
    for pid in below:
        below += children.get(pid, [])
    return (pid for pid in below[1:] if alive(pid))


def having(setting: str, pids: Iterable[int] | None = None) -> Iterator[int]:
    """Those of the processes (all on this machine by default) that were started with the environment's NAME=value."""
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pids is None else pids:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if setting.encode() in environment and alive(pid):
            yield pid


def main(folder: Path) -> None:
    """Serve requests until stdin or the parent ends."""
    keeper = Keeper(folder)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    parent = os.getppid()
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _: ended.append(number))
    received = b""
    try:
        while not ended and os.getppid() == parent:
            keeper.reap()
            # The pipe alone does not tell: a forked child of the parent may hold it open.
            if not select.select([0], [], [], 0.5)[0]:
                continue
            if not (more := os.read(0, 1 << 16)):
                break
            received += more
            while b"\n" in received:
                line, _, received = received.partition(b"\n")
                os.write(1, json.dumps(keeper.answer(json.loads(line))).encode() + b"\n")
    finally:
        keeper.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
