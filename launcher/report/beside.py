"""Evaluations of several runs side by side: `sslrun eval RUN RUN`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from launcher.report import best, listing
from launcher.report.index import RunRow
from launcher.run.folder import RunDir
from launcher.run.state import Queue


@dataclass(frozen=True)
class Judged:
    """One evaluation: the run's id, its own, where it stands, and what it has told: {protocol: scores}."""

    run: str
    id: str
    path: str
    state: str
    step: int | None
    evals: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, evaluation: RunDir, jobs: Queue | None) -> "Judged":
        told = evaluation.history().all("eval")
        scores = {event["protocol"]: event["scores"] for event in told}
        step, state = told[-1]["step"] if told else None, evaluation.state(jobs).name
        return cls(evaluation.owner.id, evaluation.id, str(evaluation.path), state, step, scores)


def table(found: Sequence[Judged]) -> Text:
    """A row for each, with the first score of each protocol."""
    rows = [RunRow({"state": each.state, "evals": each.evals}) for each in found]
    names = list(dict.fromkeys(name for each in found for name in each.evals))
    metrics = [best.named(name, rows) for name in names if any(best.numbers(row, name) for row in rows)]
    numbers = [[best.numbers(row, protocol).get(score) for protocol, score in metrics] for row in rows]
    cells = [
        [each.run, each.state, "" if each.step is None else str(each.step), *(_plain(value) for value in own)]
        for each, own in zip(found, numbers, strict=True)
    ]
    titles = ["run", "state", "step", *(".".join(metric) for metric in metrics)]
    return listing.lines(rows, titles, cells)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
