"""Processes that begin behind their imports: forks of one process that has loaded torch and whatever else is slow.

`import torch` takes seconds of CPU, a fork of a process that has done it a hundredth of that. The fork then does what
the interpreter would: `python -P -m launcher.start.worker RUN` runs that module, from the very files that PYTHONPATH
names. Ranks and scripts load all of this project themselves; the command line begins with those of its modules that
need no torch. No thread is running, and a rank is the launcher's own child, so that signals, kills and exit codes are
real. What a test of starting itself needs is started as usual: `cold`.

Run as a script, this file is that process. Linux only, as the test clusters are.
"""

import _imp
import atexit
import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
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
import traceback
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
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
# Not loaded for the command line: what runs in jobs, and what acts as soon as it is loaded.
IN_JOBS = re.compile(
    r"launcher\.(runtime|kmeans|start\.worker|start\.batch|slurm\.probe|drill\.simulated)\b|methods\.(?!.*\bspec$)"
)
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


# subprocess' own, also where this module is loaded by a fork, in which ours is in its place.
OWN = next(kind for kind in subprocess.Popen.__mro__ if kind.__module__ == "subprocess")


class Popen(OWN):
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
    _ask_once()
    _loaded = frozenset(sys.modules)
    for package in ("launcher", "methods"):
        root = Path(importlib.import_module(package).__path__[0])
        for file in sorted(root.rglob("*.py")):
            name = ".".join((package, *file.relative_to(root).with_suffix("").parts))
            if not (IN_JOBS.match(name) or file.name == "__init__.py"):
                importlib.import_module(name)
    _ours = frozenset(sys.modules) - _loaded
    if not path.endswith("light"):  # forks of that one start no rank
        _compile_once()
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


def _ask_once() -> None:
    """What a process finds out once, and slowly: which packages are installed, Hydra's plugins, its grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.plugins import Plugins

    importlib.metadata.entry_points()
    Plugins.instance()
    OverridesParser.create().parse_overrides(["a=b_1", "+c.d=0.5", "~e", "f=[g,'h i']", "j@k={l: true}", "m=null"])


def _compile_once() -> None:
    """The first ranks of every copy of the code would compile it again: forks know what each of our files becomes, by
    what it says, so that code that was edited is compiled as usual."""
    compiled = {}
    for package in ("launcher", "methods"):
        for file in Path(sys.modules[package].__path__[0]).rglob("*.py"):
            source = file.read_bytes()
            compiled[source] = compile(source, file, "exec", dont_inherit=True)
    usual = SourceFileLoader.source_to_code

    def source_to_code(self, data, path, **options):
        if code := compiled.pop(bytes(data), None):
            _imp._fix_co_filename(code, os.fspath(path))  # as when it is read from __pycache__
            return code
        return usual(self, data, path, **options)

    SourceFileLoader.source_to_code = source_to_code


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


# -- one rank of a test's world --------------------------------------------------------------------------------------


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
