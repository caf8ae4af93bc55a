"""Sweeps whose runs never trained: their folders and ledgers, written by the launcher's own code."""

import json
import os
from pathlib import Path

import pytest

from launcher.plan import plan as planning
from launcher.report import table
from launcher.run.folder import RunDir
from launcher.run.snapshot import Snapshot
from launcher.sweep import asked, record

TABLE = """
paper: Nobody (1999)
table: Table 1
claim: A higher rate is better.
numbers: top-1 (%)
method: rotnet
axis: learning rate
sets: method.lr={value}
scales:
  paper: {metric: knn.trained, gpu_hours: 8, fixed: [cluster=generic]}
  demo: {metric: knn.trained, minutes: 2, seeds: [0, 1]}
points:
  - {value: 0.01, paper: 50.0}
  - {value: 0.02, paper: 52.5, at: {demo: 0.03}}
  - {value: 0.04, paper: 54}
  - {value: another method, paper: 60.0, sets: method=nobodys, needs: nobodys}
"""


NO_BROWSER = "no Chromium on this machine: apt-get install chromium (Debian, Ubuntu)"


def pytest_terminal_summary(terminalreporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if NO_BROWSER in str(report.longrepr)]
    if skipped:
        terminalreporter.section("NO PAGE WAS LOOKED AT", red=True, bold=True)
        terminalreporter.line(f"{len(skipped)} tests were skipped: {NO_BROWSER}", red=True)


@pytest.fixture(scope="session")
def no_browser():
    """`no_browser()`: skip the tests of pages, where nobody counts on them."""

    def give_up() -> None:
        # On CI a test that was skipped is one that nobody will ever miss.
        (pytest.fail if os.environ.get("CI", "").lower() in ("true", "1") else pytest.skip)(NO_BROWSER)

    return give_up


class Tabled:
    """The sweep nobody/rates of a folder, and what became of its runs."""

    text = TABLE

    def __init__(self, home: Path, ledgers):
        self.config_dir, self.ledgers, self.folder = home / "config", ledgers, ledgers.folder
        self.write(TABLE)

    def write(self, text: str) -> Path:
        file = self.config_dir / "sweeps" / "nobody" / "rates.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def asked(self, *words: str) -> asked.Asked:
        words = words if any(word.startswith("recipe=") for word in words) else (*words, "recipe=demo")
        return asked.read(["sweep=nobody/rates", *words], self.config_dir)

    def submit(self, *words: str) -> dict[tuple[object, int], RunDir]:
        """What `--multirun` makes before anything runs: {(value, seed): run}."""
        wanted = self.asked(*words, f"runs={self.folder}")
        members, _ = asked.members(wanted, self.config_dir)
        code, runs, of_each = Snapshot(self.folder / ".code" / "digest", "digest", ""), {}, []
        for member in members:
            spec = member.point.spec
            run = RunDir(self.folder / spec.run_id)
            if not (run.path / "spec.json").exists():
                run.create(spec, planning.make(spec, member.point.recipe), lambda: code)
            runs[member.row.value, spec.seed] = run
            of_each.append(run)
        rows = [asked.described(wanted, member) for member in members]
        record.record(list(words), [member.point for member in members], of_each, rows)
        return runs

    def done(self, run: RunDir, score: float | None, step: int = 100) -> None:
        """It trained to its end, and was judged unless `score` is None."""
        self.ledgers.start(run)
        self.ledgers.progress(run, step)
        self.ledgers.save(run, step)
        if score is not None:
            self.ledgers.say(run, "eval", protocol="knn", step=step, scores={"trained": score, "untrained": 10.0})
        self.ledgers.end(run)

    def table(self, *words: str, folder: Path | None = None) -> table.Table:
        return table.gather(self.asked(*words), folder or self.folder)

    def states(self, *words: str, folder: Path | None = None) -> list[str]:
        return [row.state for row in self.table(*words, folder=folder).rows]


@pytest.fixture
def tabled(tmp_path, ledgers) -> Tabled:
    return Tabled(tmp_path, ledgers)


@pytest.fixture
def finished(tabled):
    """Every run of it done: 40, 45 and 50, and half a point more under the second seed."""
    for (value, seed), run in tabled.submit().items():
        tabled.done(run, {0.01: 40.0, 0.02: 45.0, 0.04: 50.0}[value] + seed / 2)
    return tabled


@pytest.fixture
def torn():
    """`torn(file, *rows)`: lines of JSON, and the last one half-written."""

    def write(file: Path, *rows: dict) -> None:
        lines = [json.dumps(row) for row in rows]
        file.write_text("\n".join([*lines, lines[-1][: len(lines[-1]) // 2]]))

    return write
