"""Faults planted on purpose, one at a time, each in a copy of the tree: which test finds it?

    python tests/mutants.py               every fault of the mutants.toml in tests/, two at a time
    python tests/mutants.py NAME ...      some of them
    python tests/mutants.py --list        what they are

A fault is one that people make and that no exception tells of: a sign, an index, a sum over ranks that is missing.
Each is given to the test files that ought to see it; one that they do not see needs a test first. Before that those
files run once on a copy without a fault: they must pass, or what follows would mean nothing.

Exit code 0 when every fault was found, 1 when not, 2 when the table does not fit the tree or a test fails as it is.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]
TABLES = tuple(sorted(Path(__file__).parent.rglob("mutants.toml")))
TREE = (
    "launcher", "methods", "cluster_configs", "sweeps", "tests", "docs", "benchmarks", "pyproject.toml", "README.md",
    "Makefile",
)  # fmt: skip
WHERE = "tests/test_what_is_tested_is_this_tree.py"  # on a copy: that the copy is what runs, also on ranks
PATIENCE = 1800.0  # seconds that the tests of one fault may take: a rank that waits for ever is not found, but hangs
FAILED = re.compile(r"^(?:FAILED|ERROR) (?P<test>.+?)(?: - .*)?$", re.MULTILINE)
PYTEST_FAILED = 1  # tests ran, and some failed; any other code tells of a tree in which none could


@dataclass(frozen=True)
class Mutant:
    """A fault: what it `breaks` in a sentence, the text of `file` that it stands in place of, and the test files that
    ought to see it, the fastest first."""

    name: str
    breaks: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def planted(self, text: str) -> str:
        """`text` of the file with the fault. Raises ValueError unless it has one place for it."""
        if (count := text.count(self.before)) != 1:
            raise ValueError(f"{self.name}: its text occurs {count} times in {self.file}, and must occur once")
        return text.replace(self.before, self.after)


@dataclass(frozen=True)
class Verdict:
    """`found`: the first test that failed, or None; `why` there is none."""

    found: str | None
    why: str
    seconds: float


class Copies:
    """Copies of the tree in a temporary folder, and pytest in them."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self.original = folder / "tree"  # the others are copies of this one: whoever edits the tree meanwhile, may
        for name in TREE:
            _copy(ROOT / name, self.original / name)

    def judge(self, number: int, mutant: Mutant) -> Verdict:
        begin = time.monotonic()
        tree = self._folder / str(number)
        try:
            _copy(self.original, tree)
            file = tree / mutant.file
            file.write_text(mutant.planted(file.read_text()))
            code, said = self.pytest(tree, mutant.tests, "-x")
        finally:
            shutil.rmtree(tree, ignore_errors=True)
        seconds = time.monotonic() - begin
        first = FAILED.search(said)
        if code == PYTEST_FAILED and first:
            return Verdict(first["test"], "", seconds)
        passed = code == 0
        return Verdict(None, "" if passed else f"pytest ended with {code}: {_last_line(said)}", seconds)

    def pytest(self, tree: Path, tests: Iterable[str], *options: str) -> tuple[int, str]:
        """(exit code, what it said) of this interpreter's pytest, whose imports come from `tree`."""
        # Before site-packages, where an editable installation points to the checkout.
        path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "COLUMNS": "1000"}
        _refuse_another_tree(tree, environment)
        scratch = tree / "t"  # short: the paths of sockets are
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [*command, f"--basetemp={scratch}", *options, *tests],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        with self._lock:
            self._running.add(process)
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            _kill(process)
            said, _ = process.communicate()
            said += f"\nno end in {PATIENCE:.0f} s"
        finally:
            with self._lock:
                self._running.discard(process)
        return process.returncode, said

    def stop(self) -> None:
        with self._lock:
            for process in self._running:
                _kill(process)


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    elif source.is_dir():
        # Without what Python compiled: it is known by a file's second and size, which a fault may share.
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "t", "*.egg-info"))


def _refuse_another_tree(tree: Path, environment: dict[str, str]) -> None:
    """Fails where the packages under test would be imported from anywhere but `tree`."""
    asks = "import launcher, methods; print(launcher.__file__, methods.__file__, sep='\\n')"
    said = subprocess.run([sys.executable, "-c", asks], cwd=tree, env=environment, capture_output=True, text=True)
    found = said.stdout.splitlines()
    if len(found) != 2 or not all(Path(file).is_relative_to(tree) for file in found):
        _give_up(f"{tree} would not be tested, but {' and '.join(found) or said.stderr.strip()}")


def _kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # its ranks end with it


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or ["nothing was said"])[-1]


def _give_up(line: str) -> NoReturn:
    print(f"mutants: {line}", file=sys.stderr)
    sys.exit(2)


def table(*files: Path) -> list[Mutant]:
    """The faults of these files, of all rooms by default."""
    rows = [row for file in files or TABLES for row in tomllib.loads(file.read_text()).items()]
    return [Mutant(name, **{**fields, "tests": tuple(fields["tests"])}) for name, fields in rows]


def chosen(mutants: Sequence[Mutant], names: Sequence[str]) -> list[Mutant]:
    unknown = sorted(set(names) - {mutant.name for mutant in mutants})
    if unknown:
        _give_up(f"{', '.join(unknown)}: no such fault; --list tells which there are")
    return [mutant for mutant in mutants if not names or mutant.name in names]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these faults")
    parser.add_argument("--list", action="store_true", help="say what they are, and run nothing")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at a time (2)")
    given = parser.parse_args(words)
    mutants = chosen(table(), given.names)
    if given.list:
        for mutant in mutants:
            print(f"{mutant.name}: {mutant.breaks} ({mutant.file})")
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        copies = Copies(Path(folder))
        try:
            return _run(copies, mutants, given.jobs)
        except KeyboardInterrupt:
            return 130
        finally:
            copies.stop()


def _run(copies: Copies, mutants: Sequence[Mutant], jobs: int) -> int:
    for mutant in mutants:
        try:
            mutant.planted((copies.original / mutant.file).read_text())
        except (OSError, ValueError) as error:
            _give_up(str(error))
    tests = [WHERE, *sorted({test for mutant in mutants for test in mutant.tests})]
    _say(f"{len(tests)} test files on a copy without a fault")
    begin = time.monotonic()
    code, said = copies.pytest(copies.original, tests, f"--numprocesses={jobs}", "--dist=loadfile")
    if code:
        print(said, file=sys.stderr)
        _give_up("these tests must pass where nothing is broken")
    _say(f"all pass ({time.monotonic() - begin:.0f} s)")
    verdicts = _verdicts(copies, mutants, jobs)
    width = max(len(mutant.name) for mutant in mutants)
    for mutant in mutants:
        verdict = verdicts[mutant.name]
        print(f"{mutant.name:{width}}  {verdict.seconds:5.0f} s  {_said(verdict)}")
    found = sum(verdict.found is not None for verdict in verdicts.values())
    print(f"found {found} of {len(mutants)}")
    return 0 if found == len(mutants) else 1


def _verdicts(copies: Copies, mutants: Sequence[Mutant], jobs: int) -> dict[str, Verdict]:
    """{name: verdict}, told as they come."""
    verdicts: dict[str, Verdict] = {}
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(copies.judge, number, mutant): mutant for number, mutant in enumerate(mutants)}
        try:
            for done in as_completed(running):
                mutant, verdict = running[done], done.result()
                verdicts[mutant.name] = verdict
                _say(f"[{len(verdicts)}/{len(mutants)}] {mutant.name}: {_said(verdict)} ({verdict.seconds:.0f} s)")
        except BaseException:
            for future in running:
                future.cancel()
            copies.stop()
            raise
    return verdicts


def _said(verdict: Verdict) -> str:
    return verdict.found or f"NOT FOUND{verdict.why and ': '}{verdict.why}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
