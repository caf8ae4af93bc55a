"""Processes that begin behind their imports: forks of one process that has loaded torch and whatever else is slow.

`import torch` takes seconds of CPU, a fork of a process that has done it a hundredth of that. The fork then does what
the interpreter would: `python -P -m launcher.worker RUN` runs that module, from the very files that PYTHONPATH names.
Ranks and scripts load all of this project themselves; the command line begins with those of its modules that need no
torch. No thread is running, and a rank is the launcher's own child, so that
signals, kills and exit codes are real. What a test of starting itself needs is started as usual: `cold`.

Run as a script, this file is that process. Linux only, as the test clusters are.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import importlib.util
import inspect
import io
import json
import os
import re
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SSLRUN = Path(sysconfig.get_path("scripts")) / "sslrun"

LIGHT = (
    "hydra", "omegaconf", "rich.console", "rich.live", "rich.progress", "rich.table", "jinja2", "submitit", "argparse",
    "sqlite3",
)  # fmt: skip
LIBRARIES = (
    *LIGHT, "torch", "torch.distributed", "torch.utils.data", "torch.utils.tensorboard", "torch.nn.parallel",
    "torchvision", "torchvision.models.vgg", "torchvision.models.resnet", "timm", "faiss", "numpy", "PIL.Image",
    "safetensors.torch", "skimage.io", "skimage.color", "sklearn.linear_model", "multiprocessing.managers", "pytest",
)  # fmt: skip
# What starts no rank here is a fork of a process that has loaded LIGHT alone: the smaller it is, the cheaper its forks.
LOOKS = {"plan", "status", "show", "logs", "cancel", "prune", "report", "sweep", "doctor"}
# Not loaded for the command line: what runs in jobs, and what acts as soon as it is loaded.
IN_JOBS = re.compile(r"launcher\.(runtime|kmeans|worker|batch|probe|drill\.simulated)\b|methods\.(?!.*\bspec$)")
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
COMMAND_LINE = 8192  # bytes that /proc/PID/cmdline of a fork has room for
_loaded: frozenset[str] = frozenset()  # modules that every fork begins with
_ours: frozenset[str] = frozenset()  # and those of this project that the command line begins with
_path: list[str] = []  # what is on sys.path without PYTHONPATH


# -- becoming a program ----------------------------------------------------------------------------------------------


def interpreted(command: Sequence[Any]) -> list[str] | None:
    """What a command gives to the interpreter, if it is one of ours; None for others, which are started as usual."""
    words = [os.fspath(word) for word in command]
    if words[0] == str(SSLRUN):
        return words
    if words[:2] != [sys.executable, "-P"]:
        return None
    ours = words[2].endswith(".py") or (words[2] == "-m" and words[3].startswith("launcher."))
    return words[2:] if ours else None


def become(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `["-m", MODULE, ...]` or `[SCRIPT, ...]` in this fork as a new interpreter would, and end the process."""
    code = 1
    try:
        _begin_anew([sys.executable, "-P", *words], environment)
        sys.argv = list(words[1:] if words[0] == "-m" else words)
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = _exit_code(end)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        _end(code)


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _end(code: int) -> None:
    try:
        atexit._run_exitfuncs()  # what a new interpreter does, and os._exit does not
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        if code == -signal.SIGINT:  # as an interpreter ends that nobody kept from it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code)


def _begin_anew(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Forget what the process that was forked had of its own."""
    atexit._clear()  # of the process that was forked: its folders are not ours to remove
    os.environ.clear()
    os.environ.update(environment)
    # PYTHONPATH may hold another version of this project, or a method of its own.
    kept = _loaded | _ours if command[2] == str(SSLRUN) and "PYTHONPATH" not in environment else _loaded
    for name in set(sys.modules) - kept:
        del sys.modules[name]
    importlib.invalidate_caches()
    # PYTHONPATH, and no folder of the script: -P.
    added = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*added, *_path]
    sys.path_importer_cache.clear()
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    # Lines to a terminal or with PYTHONUNBUFFERED, blocks elsewhere.
    now = bool(environment.get("PYTHONUNBUFFERED"))
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw = io.BufferedWriter(io.FileIO(number, "wb", closefd=False))
        errors = "strict" if name == "stdout" else "backslashreplace"
        text = io.TextIOWrapper(raw, "utf-8", errors, line_buffering=name == "stderr" or os.isatty(number))
        text.reconfigure(write_through=now)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    subprocess.Popen = Popen  # its own processes are forks, too
    _say_command(command)
    sys.orig_argv = list(command)
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ImportError):  # of its own PYTHONPATH: how drills simulate what they cannot bring about
        importlib.import_module("sitecustomize")


def _say_command(command: Sequence[str]) -> None:
    """Let /proc/PID/cmdline tell what this fork is: that is where processes are looked for."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])  # arg_start and arg_end
    said = b"".join(os.fsencode(word) + b"\0" for word in command)[: end - begin - 1]
    ctypes.memmove(begin, said.ljust(end - begin, b"\0"), end - begin)


class Popen(subprocess.Popen):
    """Forks instead of starting an interpreter, where the command is ours. Everything else is subprocess' own.

    `_execute_child` is private to subprocess: it has no public place for this. tests/test_warm.py pins what it does.
    """

    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(super()._execute_child).bind(*given).arguments
        words = None if isinstance(asked["args"], (str, bytes, os.PathLike)) else interpreted(asked["args"])
        if words is None:
            super()._execute_child(*given)
            return
        self.pid = self._begin(words, asked)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in pipes))

    def _begin(self, words: list[str], asked: Mapping[str, Any]) -> int:
        environment = dict(os.environ if asked["env"] is None else asked["env"])
        files = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]]
        sys.stdout.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a thread is left behind: one that refreshes a screen
            if pid := os.fork():
                return pid
        try:
            if asked["start_new_session"]:
                os.setsid()
            _take(files, asked["pass_fds"])
            if asked["cwd"] is not None:
                os.chdir(asked["cwd"])
            if asked["preexec_fn"]:
                asked["preexec_fn"]()
            become(words, environment)
        finally:
            os._exit(127)


def _take(files: Sequence[int], kept: Sequence[int] = ()) -> None:
    """Make `files` 0, 1 and 2, where they are not -1, and close all others but `kept`."""
    files = [os.dup(file) if 0 <= file < 3 else file for file in files]
    for number, file in enumerate(files):
        if file >= 0:
            os.dup2(file, number)
    low = 3
    for number in (*sorted(number for number in kept if number > 2), 4096):
        os.closerange(low, number)
        low = number + 1


# -- the process that is forked --------------------------------------------------------------------------------------


def serve(path: str) -> None:
    """Load LIBRARIES, or LIGHT alone, then fork whatever is asked for on the socket `path`, until the one who started
    this is gone."""
    global _loaded, _ours, _path
    _path = [path for path in sys.path if path]
    for name in LIGHT if path.endswith("light") else LIBRARIES:
        importlib.import_module(name)
    _loaded = frozenset(sys.modules)
    for package in ("launcher", "methods"):
        root = Path(importlib.import_module(package).__path__[0])
        for file in sorted(root.rglob("*.py")):
            name = ".".join((package, *file.relative_to(root).with_suffix("").parts))
            if not (IN_JOBS.match(name) or file.name == "__init__.py"):
                importlib.import_module(name)
    _ours = frozenset(sys.modules) - _loaded
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads are running: a fork would lack them"
    gc.collect()
    gc.freeze()  # forks share these pages
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen()
    bell, ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(ring)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    forks: dict[int, socket.socket] = {}  # who asked for each
    with selectors.DefaultSelector() as waiting:
        for file in (door, bell, sys.stdin):
            waiting.register(file, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in waiting.select()]
            if bell in ready:
                os.read(bell, 4096)
                _bury(forks)
            if door in ready:
                asking, _ = door.accept()
                forks[_fork(asking)] = asking
            if sys.stdin in ready:
                break
    for pid in forks:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)  # some libraries complain of what is left at an ordinary end


def _fork(asking: socket.socket) -> int:
    size, files, _, _ = socket.recv_fds(asking, 4, 3)
    length = int.from_bytes(size, "little")
    request = json.loads(asking.recv(length, socket.MSG_WAITALL))
    if pid := os.fork():
        for file in files:
            os.close(file)
        asking.sendall(pid.to_bytes(4, "little"))
        return pid
    try:
        _take(files)
        os.chdir(request["cwd"])
        become(request["words"], request["environment"])
    finally:
        os._exit(127)


def _bury(forks: dict[int, socket.socket]) -> None:
    """Tell those who asked how their processes ended."""
    while forks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with forks.pop(pid) as asking, contextlib.suppress(OSError):
            asking.sendall(status.to_bytes(4, "little"))


# -- the side of the tests -------------------------------------------------------------------------------------------


class Forge:
    """Starts that process and the light one, which answer at `folder`/warm and /light, and forks of them; with
    `begin=False` somebody else starts them, and they are waited for. Harmless to close twice."""

    def __init__(self, folder: Path, *, begin: bool = True):
        self.folder = folder
        self._servers = {}
        for name in ("warm", "light") if begin else ():
            command = [sys.executable, "-P", __file__, folder / name, "-" * COMMAND_LINE]
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
        command = [sys.executable, "-P", __file__, "--rank", file, function.__name__, folder, *map(str, sizes)]
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


def rank(file: str, name: str, folder: Path, sizes: Sequence[int]) -> None:
    """What each fork of `Forge.ranks` does."""
    import torch

    from launcher.runtime import dist

    torch.set_num_threads(1)  # ranks that wait for one another, on few cores
    spec = importlib.util.spec_from_file_location("ranks_of_a_test", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = torch.load(folder / "arguments.pt", weights_only=False)
    for size in sizes:
        if int(os.environ["RANK"]) >= size:
            continue
        os.environ["WORLD_SIZE"] = str(size)
        world = dist.init((folder / f"rendezvous-{size}").as_uri())
        answer = getattr(module, name)(world, *arguments)
        torch.save(answer, folder / f"{size}-{world.rank}.pt")
        world.barrier()
        dist.shutdown()


if __name__ == "__main__":
    if sys.argv[1] == "--rank":
        rank(*sys.argv[2:4], Path(sys.argv[4]), [int(size) for size in sys.argv[5:]])
    else:
        serve(sys.argv[1])
