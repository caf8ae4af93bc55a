"""Order and workers of the tests, the command line, and runs that several tests look at (see tests/support)."""

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import away as unreadable
import pytest
from command_line import Answer, Sslrun
from forge import Forge
from victim import Victim
from watched import Watched, until

from launcher.run import waiting

# 40 steps, a checkpoint every 3 and a clustering every 4 from step 4 on: long enough to be killed in the middle.
JOURNEY = ("method=deepercluster", "recipe=tiny", "method.epochs=10")

# One thread a process, of tests and of what they launch here: several run at once, on few cores, and sums depend on
# how many there are. What computes reads it when it is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["SSLRUN_THREADS"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="sslrun-cache-")  # nobody's own is read or written
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every rank compiles what it runs
sys.dont_write_bytecode = False  # and every worker of pytest all tests: ten seconds of CPU
CONTRACT = "test_contract.py"  # of every method
WORKER = Path(__file__).parent / "support" / "pytest_worker.py"
FORGE = pytest.StashKey[Forge]()


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


@pytest.fixture(scope="session", name="until")
def until_fixture() -> Callable:
    """`until(condition, seconds=600)`, for tests."""
    return until


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config) -> None:
    """Pytest's workers are forks of one process, as what they start is."""
    config.stash[FORGE] = Forge(Path(tempfile.mkdtemp(prefix="forge-")))
    # Only execnet starts processes from here on. It has no public place to say how.
    subprocess.Popen = lambda command, **options: config.stash[FORGE].start([sys.executable, "-P", WORKER], **options)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    node.workerinput["forge"] = str(node.config.stash[FORGE].folder)


def pytest_unconfigure(config) -> None:
    if forge := config.stash.get(FORGE, None):
        forge.close()
        shutil.rmtree(forge.folder)


@pytest.fixture(scope="session")
def forge(request, tmp_path_factory):
    """The process that the others are forks of."""
    given = getattr(request.config, "workerinput", {}).get("forge")
    forge = Forge(Path(given), begin=False) if given else Forge(tmp_path_factory.mktemp("forge"))
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


@pytest.fixture(scope="session")
def signalled(sslrun) -> Callable[..., Answer]:
    """`signalled(word, ..., number=signal.SIGTERM, after=8)`: how such a command ended."""
    return lambda *words, **order: sslrun.signalling(**order)(*words, code=None)


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
    """`small("swav")`: overrides of a run of two epochs of four steps, with a save every two."""
    from launcher.spec import registry

    def overrides(method: str) -> tuple[str, ...]:
        images = 4 * registry.method(method).recipe("tiny").method.global_batch
        lengths = "method.epochs=2", f"data.images={images}", "method.checkpoint_every=2"
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
def interrupted(signalled, tmp_path_factory) -> tuple[Path, Answer]:
    """The journey, stopped with Ctrl-C in its middle, and what the launcher said; work on a copy of it (`copied`)."""
    watched = Watched(tmp_path_factory.mktemp("interrupted"))
    answer = signalled(*JOURNEY, f"runs={watched.runs}", number=signal.SIGINT, after=8)
    return watched.path, answer


@pytest.fixture
def copied(interrupted, tmp_path) -> Path:
    """A copy of the interrupted run that a test may change."""
    return Path(shutil.copytree(interrupted[0], tmp_path / "copied" / interrupted[0].name))


@pytest.fixture(params=[errno.EACCES, errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
def away(request, monkeypatch) -> Callable[..., None]:
    """`away(path, times)`: this process cannot read it, or what lies below, so many times, or ever (support/away.py);
    whoever waits for what stays away waits for a moment only."""
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.0)
    away = unreadable.install(monkeypatch, request.param)

    def gone(path: Path | None, times: float = math.inf) -> None:
        monkeypatch.setattr(waiting, "SECONDS", 0.05 if times == math.inf else 600.0)
        away(path, times)

    return gone


@pytest.fixture
def made_before(tmp_path) -> Path:
    """A folder of runs that a version of long ago made, with the code of that day (tests/launcher/run)."""
    with tarfile.open(Path(__file__).parent / "support" / "made_before.tar.xz") as kept:
        kept.extractall(tmp_path / "before", filter="data")
    return tmp_path / "before" / "runs"


@pytest.fixture
def with_method(sslrun, tmp_path) -> Callable[..., Sslrun]:
    """`with_method("toy", spec=text, trainer=text)`: the command line where a package of that name is installed, which
    registers the METHOD of its spec."""

    def installed(name: str, **files: str) -> Sslrun:
        package, info = tmp_path / "site" / name, tmp_path / "site" / f"{name}-1.dist-info"
        for folder in (package, info):
            folder.mkdir(parents=True)
        (package / "__init__.py").touch()
        for module, text in files.items():
            (package / f"{module}.py").write_text(textwrap.dedent(text))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[sslrun.methods]\n{name} = {name}.spec:METHOD\n")
        return sslrun.where(PYTHONPATH=str(tmp_path / "site"))

    return installed


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
