"""The real command line in processes of its own, and finished runs that several tests look at."""

import fcntl
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import warm
from victim import Victim

# 40 steps, a checkpoint every 3 and a clustering every 4 from step 4 on: long enough to be killed in the middle.
JOURNEY = ("method=deepercluster", "recipe=tiny", "method.epochs=10")

# One thread a process, of tests and of what they launch here: several run at once, on few cores, and sums depend on
# how many there are. What computes reads it when it is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["SSLRUN_THREADS"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every rank compiles what it runs
CONTRACT = "test_contract.py"  # of every method
FORGE = pytest.StashKey[warm.Forge]()


def pytest_collection_modifyitems(items) -> None:
    """What is long first, or it would keep one worker busy at the end: files of few tests are, and the contract."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name != CONTRACT, tests[item.path]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file to a worker; of the contract, a method."""
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrMethod(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return f"{file} {method_of(nodeid)}" if file.endswith(CONTRACT) else file

    return ByFileOrMethod(config, log) if config.getvalue("dist") == "loadfile" else None


def method_of(nodeid: str) -> str:
    """Of a test of the contract: its first parameter."""
    return nodeid.rpartition("[")[2].rstrip("]").partition("-")[0]


def pytest_terminal_summary(terminalreporter) -> None:
    """What each method's contract took (tests/methods/test_contract.py); a budget that another test holds, by plan."""
    took: Counter = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and CONTRACT in report.nodeid:
                took[method_of(report.nodeid)] += report.duration
    if took:
        terminalreporter.section("contract of each method: planned for 15 s on two quiet cores")
        terminalreporter.line(", ".join(f"{method} {seconds:.0f} s" for method, seconds in sorted(took.items())))


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

    def __init__(self, home: Path, forge: warm.Forge):
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
            [warm.SSLRUN, *map(str, arguments)],
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


def signalling(sslrun: Sslrun, *, number: int, rank: int = 0, whom: str = "launcher", **when: object) -> Sslrun:
    """The command where a rank signals itself or the launcher at that point of its work: `after` so many steps, or in
    the `stage` before a `step` (see support/at_work)."""
    order = {"rank": rank, "whom": whom, "number": number, **when}
    planted = str(Path(__file__).parent / "support" / "at_work")
    return sslrun.where(PYTHONPATH=planted, SSLRUN_TEST_SIGNAL=json.dumps(order))


def signalled(sslrun: Sslrun, *words: object, **order: object) -> Answer:
    """How such a command ended."""
    return signalling(sslrun, **order)(*words, code=None)


class Watched:
    """A run seen from outside, through its files and /proc."""

    def __init__(self, runs: Path):
        self.runs = runs

    @property
    def path(self) -> Path:
        """The only run of the folder, once it is there."""
        return until(lambda: next(iter(self.runs.glob("*/spec.json")), None)).parent

    def step(self) -> int:
        try:
            return json.loads((self.path / "progress.json").read_text())["step"]
        except FileNotFoundError:
            return 0

    def rows(self) -> list[dict]:
        """The metrics of all lives. With method.log_every=1 they tell each step, where `step` looks thrice a second."""
        file = next(iter(self.runs.glob("*/metrics.jsonl")), None)
        lines = file.read_text().splitlines(keepends=True) if file else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def reach(self, step: int, launcher: subprocess.Popen) -> None:
        """Wait until the run has done `step` steps; fails when its launcher ends before."""

        def reached() -> bool:
            assert launcher.poll() is None, f"it ended before step {step}: {launcher.communicate()}"
            return any(self.runs.glob("*/spec.json")) and self.step() >= step

        until(reached, poll=0.01)

    def processes(self) -> list[int]:
        """Ranks and their children: every process with the run's path in its command line."""
        return [pid for pid, words in _commands() if str(self.path) in words]

    def gone(self, seconds: float = 300) -> bool:
        """Waits until they have ended. One that dies loses its command line before it lets go of the run's lock."""
        from launcher.rundir import RunDir

        return bool(until(lambda: not self.processes() and not RunDir(self.path).held(), seconds=seconds))

    def events(self, name: str) -> list[dict]:
        lines = [line for file in sorted((self.path / "events").iterdir()) for line in file.read_text().splitlines()]
        return [event for event in map(json.loads, lines) if event["event"] == name]


def _commands():
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "launcher.worker" in words:
                yield int(entry.name), words


def until(condition: Callable, *, seconds: float = 600, poll: float = 0.05):
    """The first true value of `condition()`; fails when it takes too long.

    A look at what others do takes time from them: one that starts a process (`sslrun show`) is taken more rarely.
    """
    end = time.monotonic() + seconds
    while True:
        begin = time.monotonic()
        if value := condition():
            return value
        now = time.monotonic()
        assert now < end, f"waited {seconds} s in vain"
        time.sleep(max(poll, min(1.0, 3 * (now - begin))))


@pytest.fixture(scope="session", name="until")
def until_fixture() -> Callable:
    """`until(condition, seconds=600)`, for tests."""
    return until


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """All of pytest's workers fork one process, which the one that starts them has started."""
    if FORGE not in node.config.stash:
        node.config.stash[FORGE] = warm.Forge(Path(tempfile.mkdtemp(prefix="forge-")))
    node.workerinput["forge"] = str(node.config.stash[FORGE].folder)


def pytest_unconfigure(config) -> None:
    if forge := config.stash.get(FORGE, None):
        forge.close()
        shutil.rmtree(forge.folder)


@pytest.fixture(scope="session")
def forge(request, tmp_path_factory):
    """The process that the others are forks of."""
    given = getattr(request.config, "workerinput", {}).get("forge")
    forge = warm.Forge(Path(given), begin=False) if given else warm.Forge(tmp_path_factory.mktemp("forge"))
    yield forge
    forge.close()


@pytest.fixture(scope="session")
def sslrun(tmp_path_factory, forge):
    command = Sslrun(tmp_path_factory.mktemp("home"), forge)
    yield command
    command.close()


@pytest.fixture(scope="session")
def ranks(tmp_path_factory, forge) -> Callable:
    """`ranks(size, function, *arguments)`: what `function(world, *arguments)` returned on each of `size` real ranks,
    by rank. `ranks((1, 2), ...)`: {size: the same}, of one world after another. The function is one of a test file's
    own, and is found there by its name; arguments and answers are what torch.save can write."""

    def run(size: int | Sequence[int], function: Callable, *arguments: object, timeout: float = 600) -> list | dict:
        sizes = [size] if isinstance(size, int) else list(size)
        answers = forge.ranks(sizes, function, arguments, tmp_path_factory.mktemp("ranks"), timeout)
        return answers[size] if isinstance(size, int) else answers

    return run


@pytest.fixture
def watched(tmp_path) -> Watched:
    """The run that a test starts with `runs={watched.runs}`."""
    return Watched(tmp_path / "runs")


@pytest.fixture(scope="session", name="signalled")
def signalled_fixture(sslrun) -> Callable[..., Answer]:
    """`signalled(word, ..., number=signal.SIGTERM, after=8)`, for tests."""
    return functools.partial(signalled, sslrun)


@pytest.fixture(scope="session", name="signalling")
def signalling_fixture(sslrun) -> Callable[..., Sslrun]:
    """`signalling(number=signal.SIGSTOP, whom="rank", after=8).start(word, ...)`, for tests."""
    return functools.partial(signalling, sslrun)


@pytest.fixture(scope="session")
def journey() -> tuple[str, ...]:
    """The overrides of the run that the tests interrupt."""
    return JOURNEY


@pytest.fixture(scope="session")
def endless() -> tuple[str, ...]:
    """The overrides of a run that is still running when a test is through with it."""
    return (*JOURNEY[:2], "method.epochs=1000")


@pytest.fixture(scope="session")
def small() -> Callable[[str], tuple[str, ...]]:
    """`small("swav")`: overrides of a run of three epochs of four steps, each of which begins behind a save."""
    from launcher import registry

    def overrides(method: str) -> tuple[str, ...]:
        images = 4 * registry.method(method).recipe("tiny").method.global_batch
        lengths = "method.epochs=3", f"data.images={images}", "method.checkpoint_every=4"
        return f"method={method}", "recipe=tiny", *lengths, "method.log_every=1"

    return overrides


@pytest.fixture(scope="session")
def two_epochs() -> Callable:
    """`two_epochs(method, ranks)`: overrides of a run with room for several kills in an epoch, and whatever the method
    does between epochs in its middle: 76 small steps, a line of metrics each, a checkpoint every 12. On four ranks
    steps take longer, and are half as many."""

    def overrides(method: str, ranks: int = 1) -> tuple[str, ...]:
        batch, every = (8, 12) if ranks < 4 else (16, 6)
        small = f"method.global_batch={batch}", f"method.checkpoint_every={every}", "method.log_every=1"
        return f"method={method}", "recipe=tiny", "method.epochs=2", *small

    return overrides


@pytest.fixture(scope="session")
def undisturbed(sslrun, tmp_path_factory):
    """`undisturbed(ranks=2, overrides=...)`: a finished run that nobody interrupted, to be looked at only. Made once,
    for all of pytest's workers."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "undisturbed"
    shared.mkdir(exist_ok=True)

    def run(ranks: int = 1, overrides: tuple[str, ...] = JOURNEY) -> Path:
        key = hashlib.sha256(json.dumps([ranks, *overrides]).encode()).hexdigest()[:12]
        with (shared / f"{key}.txt").open("a+") as where:
            fcntl.flock(where, fcntl.LOCK_EX)
            where.seek(0)
            if path := where.read():
                return Path(path)
            answer = sslrun(*overrides, f"tasks_per_node={ranks}", f"runs={shared / key}", "--json")
            where.write(answer.json["path"])
            return Path(answer.json["path"])

    return run


@pytest.fixture
def victim(sslrun, watched, signalled) -> Callable:
    """`victim(overrides, ranks)`: a run to be killed."""
    return lambda overrides, ranks: Victim(sslrun, watched, signalled, overrides, ranks)


@pytest.fixture(scope="session")
def interrupted(sslrun, tmp_path_factory) -> tuple[Path, Answer]:
    """The journey, stopped with Ctrl-C in its middle, and what the launcher said; work on a copy of it (`copied`)."""
    watched = Watched(tmp_path_factory.mktemp("interrupted"))
    answer = signalled(sslrun, *JOURNEY, f"runs={watched.runs}", number=signal.SIGINT, after=8)
    return watched.path, answer


@pytest.fixture
def copied(interrupted, tmp_path) -> Path:
    """A copy of the interrupted run that a test may change."""
    return Path(shutil.copytree(interrupted[0], tmp_path / "copied" / interrupted[0].name))


@pytest.fixture(scope="session")
def one_line():
    """`one_line(answer)`: the only thing said about bad input; `inside` a run it may follow lines of progress."""

    def check(answer: Answer, *, inside: bool = False) -> str:
        assert answer.code == 2, answer
        line = answer.complaint
        lines = answer.err.splitlines()
        assert lines[-1] == line if inside else lines == [line], answer.err
        return line

    return check


@pytest.fixture
def float64() -> Iterator[None]:
    """What asks for float32 gets float64. In float32 a ReLU whose input is zero but for rounding decides otherwise on
    each kind of CPU."""
    import in_float64  # and torch

    with in_float64.Float64():
        yield


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """`threads(2)`: so many for torch in this process, until the test is over."""
    import torch  # seconds, and most tests here do without

    yield torch.set_num_threads
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def drilled(request, tmp_path_factory):
    """`drilled(sslrun, *words)`: {fault: its row} of one `sslrun drill`, with `faults`, or with those that the selected
    tests of the module are about, as the parameters called `fault` say."""

    def run(command: Sslrun, *words: object, faults=None, timeout: float = 2400) -> dict[str, dict]:
        mine = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
        wanted = faults or sorted({item.callspec.params["fault"] for item in mine if "fault" in item.callspec.params})
        runs = tmp_path_factory.mktemp("drilled")
        given = (f"faults={','.join(wanted)}", f"runs={runs}", "--timeout", "600", "--json")
        answer = command("drill", *words, *given, code=None, timeout=timeout)
        assert answer.code in (0, 4), answer.err
        rows = {row["name"]: row for row in answer.json["faults"] if row["name"] in wanted}
        assert answer.code == (0 if all(row["as_expected"] for row in rows.values()) else 4), answer.err
        return rows

    return run


@pytest.fixture(scope="session")
def right() -> Callable[[dict], None]:
    """`right(row)`: fails where a drilled fault was left out, or anything but what should have come of it did."""

    def check(row: dict) -> None:
        assert not row["skipped"], row["skipped"]
        assert not row["problems"], row
        assert row["exact"] and row["lost_steps"] is not None

    return check
