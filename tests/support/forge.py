"""How tests ask for forks: they start the processes of warm.py, and get what subprocess.Popen would give."""

import functools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import warm
from warm import COMMAND_LINE, SSLRUN, Popen, interpreted

# What starts no rank here is a fork of a process that has loaded LIGHT alone: the smaller it is, the cheaper its forks.
LOOKS = {"plan", "status", "show", "logs", "cancel", "prune", "report", "sweep", "doctor"}
# What it loads its libraries with: no thread, and what is freed is kept, because new pages cost a fork dear.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
STARTING_S = 600  # the most that loading may take


class Forge:
    """Starts that process and the light one, which answer at `folder`/warm and /light, and forks of them; with
    `begin=False` somebody else starts them, and they are waited for. Harmless to close twice."""

    def __init__(self, folder: Path, *, begin: bool = True):
        self.folder = folder
        self._servers = {}
        for name in ("warm", "light") if begin else ():
            command = [sys.executable, "-P", warm.__file__, folder / name, "-" * COMMAND_LINE]
            self._servers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **QUIET})

    def start(self, command: Sequence[Any], **options: Any) -> "Asked":
        """As subprocess.Popen with one of our commands; of its options cwd, env and those of files and text."""
        assert interpreted(command) is not None, command
        words, environment = [os.fspath(word) for word in command], options.get("env") or os.environ
        looks = words[0] == str(SSLRUN) and ((words[1:2] and words[1] in LOOKS) or "SLURM_CONF" in environment)
        name = "light" if looks and "PYTHONPATH" not in environment else "warm"
        return Asked(functools.partial(self._connect, name), command, **options)

    def ranks(
        self,
        sizes: Sequence[int],
        function: Callable,
        arguments: Sequence[Any],
        folder: Path,
        timeout: float,
    ) -> dict[int, list]:
        """{size: what `function(world, *arguments)`, of the file that defines it, returned on each of `size` ranks}:
        one world after another, in the same processes. Where one of them fails, all end, and every log is shown."""
        import torch

        torch.save(list(arguments), folder / "arguments.pt")
        file = Path(function.__code__.co_filename)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "GLOO_SOCKET_IFNAME": "lo",
            "CUDA_VISIBLE_DEVICES": "",
        }
        logs = [folder / f"{rank}.log" for rank in range(max(sizes))]
        command = [sys.executable, "-P", warm.__file__, "--rank", file, function.__name__, folder, *map(str, sizes)]
        started = []
        for rank, log in enumerate(logs):
            with log.open("wb") as out:
                given = {**environment, "RANK": str(rank)}
                started.append(self.start(command, env=given, stdin=subprocess.DEVNULL, stdout=out, stderr=out))
        end = time.monotonic() + timeout
        try:
            # One that failed is not waited for by the others: they would sit in a collective.
            while None in (codes := [process.poll() for process in started]) and not any(codes):
                if time.monotonic() > end:
                    break
                time.sleep(0.01)
        finally:
            for process in started:
                process.kill()
        said = [f"--- rank {n}, exit code {code}\n{logs[n].read_text()}" for n, code in enumerate(codes)]
        assert codes == [0] * len(codes), "\n".join(said)
        return {
            size: [torch.load(folder / f"{size}-{rank}.pt", weights_only=False) for rank in range(size)]
            for size in sizes
        }

    def close(self) -> None:
        for server in self._servers.values():
            server.stdin.close()
            server.wait()

    def _connect(self, name: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + STARTING_S
        while True:
            try:
                connection.connect(str(self.folder / name))
                return connection
            except OSError:
                ended = name in self._servers and self._servers[name].poll() is not None
                assert not ended and time.monotonic() < end, "the process to be forked did not start"
                time.sleep(0.05)


class Asked(Popen):
    """A fork of another process than this one, which tells how it ended."""

    def __init__(self, connect: Callable[[], socket.socket], command: Sequence[Any], **options: Any):
        self._connect = connect
        super().__init__(command, **options)

    def _begin(self, words: list[str], asked: Mapping[str, Any]) -> int:
        assert not (asked["preexec_fn"] or asked["pass_fds"] or asked["start_new_session"]), "not for a fork"
        self._told = self._connect()
        request = {
            "words": words,
            "environment": dict(os.environ if asked["env"] is None else asked["env"]),
            "cwd": os.fspath(asked["cwd"] or os.getcwd()),
        }
        text = json.dumps(request).encode()
        own = (0, 1, 2)
        files = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]]
        files = [number if file < 0 else file for number, file in zip(own, files, strict=True)]
        socket.send_fds(self._told, [len(text).to_bytes(4, "little")], files)
        self._told.sendall(text)
        pid = self._told.recv(4, socket.MSG_WAITALL)
        assert len(pid) == 4, "the process to be forked is gone"
        return int.from_bytes(pid, "little")

    # These two are where subprocess waits for a child.

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        flags = socket.MSG_WAITALL | (socket.MSG_DONTWAIT if wait_flags & os.WNOHANG else 0)
        try:
            status = self._told.recv(4, flags)
        except BlockingIOError:
            return 0, 0
        self._told.close()
        assert len(status) == 4, "the process to be forked is gone"
        return self.pid, int.from_bytes(status, "little")
