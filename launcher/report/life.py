"""One run from its first submission to now: every start, why it began and how it ended, its scores and pictures."""

import base64
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.compose import evaluation
from launcher.durations import short
from launcher.report import curves, nodes
from launcher.report.curves import Curve
from launcher.report.svg import Span
from launcher.run import goodput
from launcher.run.files import read
from launcher.run.folder import RunDir
from launcher.run.ledger import History
from launcher.slurm import queue, reasons
from launcher.spec.runspec import flat

Event = Mapping[str, Any]
MOST_PICTURES = 6  # of one folder
PICTURE_BYTES = 8_000_000  # of one picture; a larger one is named in place of being shown


@dataclass(frozen=True)
class PastStart:
    """One start of the run. Seconds; `waited` is None where nobody submitted it, `lost` are steps done again. `through`
    what it began: same job, queue or by hand, of the first nothing; `why`: only Slurm could mend its end."""

    number: int
    began: str
    cause: str
    where: str
    ranks: int | None  # that it had; None where it does not say
    waited: float | None
    worked: float
    first: int
    last: int
    lost: int
    ended: str
    message: str
    through: str
    why: str


@dataclass(frozen=True)
class Picture:
    """`source`: for an <img>; empty where the file is too large for a page, or no PNG of the run's own."""

    name: str
    path: Path
    source: str


@dataclass(frozen=True)
class Life:
    """A run as its page shows it. `scores`: (evaluation, step, {score: number}); `remarks`: on its nodes."""

    id: str
    path: Path
    summary: Mapping[str, Any]
    starts: Sequence[PastStart]
    remarks: Sequence[str]
    spans: Sequence[Span]
    curves: Sequence[Curve]
    scores: Sequence[tuple[str, int, Mapping[str, float]]]
    pictures: Sequence[Picture]

    def to_json(self) -> dict[str, Any]:
        """The answer of `--json`."""
        starts = [vars(start) for start in self.starts]
        pictures = [str(picture.path) for picture in self.pictures]
        return {**self.summary, "starts": starts, "curves": [c.name for c in self.curves], "pictures": pictures}


def of(run: RunDir) -> Life:
    """Read a run. Raises InputError where its spec was edited."""
    jobs, _ = queue.of_runs([run])
    summary, history = run.summary(jobs), run.history()
    summary["message"] = queue.last_words(run) or summary["message"]
    if summary["state"] == "pending":
        summary["message"] = reasons.of(summary["message"]).short()
    starts = _starts(history, summary, run.spoke())
    return Life(
        id=run.id,
        path=run.path,
        summary=summary,
        starts=starts,
        remarks=[*_remarks(summary, starts)],
        spans=_spans(starts),
        curves=curves.read(run.path / "metrics.jsonl"),
        scores=_scores(history),
        pictures=[_picture(file, more, run) for file, more in _files(run)],
    )


def _starts(history: History, summary: Mapping[str, Any], spoke: float) -> list[PastStart]:
    """spoke: when the run said last what it does."""
    found, before, last_end = [], None, {}
    for start in history.all("start"):
        mine = history.of(start["generation"])
        restored, end = mine.first("restored"), mine.last("end")
        asked = [e["time"] for e in mine.all("submitted")]
        since = max([*asked, *([before] if before else [])], default=None)
        heard = [e["time"] for e in mine if e["writer"] not in ("afterwards", "submit")]
        steps = [e["step"] for e in mine.all("checkpoint", "finished", "restored")]
        running = not end and summary["state"] == "running"
        until = max([*heard, *([spoke] if running else [])], default=start["time"])
        found.append(
            PastStart(
                number=start["generation"],
                began=f"{datetime.fromtimestamp(start['time']):%Y-%m-%d %H:%M:%S}",
                cause=start.get("cause", ""),
                where=str(start.get("nodes") or start.get("host", "")),
                ranks=start.get("world_size"),
                waited=None if since is None else max(0.0, start["time"] - since),
                worked=max(0.0, until - start["time"]),
                first=restored.get("step", 0),
                last=max([*steps, *([summary["step"]] if running else [])], default=0),
                lost=restored.get("lost_steps", 0),
                ended="running" if running else end["cause"] if end else "killed",
                message=end.get("message", ""),
                through=goodput.where(start, last_end, history) if found else "",
                why=goodput.reason(end),
            )
        )
        before, last_end = until, end
    return found


def _remarks(summary: Mapping[str, Any], starts: Sequence[PastStart]) -> Iterator[str]:
    for each in summary["left_out"]:
        yield f"{each['node']} {each['why']}: left out since start {each['start']}."
    for start in starts:
        if start.why:
            yield f"Start {start.number} could not go on in its job: {start.why}."
    if fewer := nodes.fewer(summary):
        yield f"The latest start has {fewer} nodes."
    if summary["spares"]:
        yield f"Spare nodes: {nodes.spares(summary['spares'])}."


def _spans(starts: Sequence[PastStart]) -> list[Span]:
    """Waiting and working, one after the other; time in which nobody asked for the run is left out."""
    spans, now = [], 0.0
    for start in starts:
        if start.waited:
            spans.append(Span(now, now + start.waited, "waited", f"start {start.number} waited {short(start.waited)}"))
            now += start.waited
        style = {"done": "done", "running": "worked"}.get(start.ended, "cut")
        said = f"start {start.number} worked {short(start.worked)}, to step {start.last}: {start.ended}"
        spans.append(Span(now, now + start.worked, style, said))
        now += start.worked
    return spans


def _scores(history: History) -> list[tuple[str, int, dict[str, float]]]:
    """The numbers of every evaluation, by step; the same evaluation of the same step counts once."""
    found: dict[tuple[int, str], dict[str, float]] = {}
    for event in history.judged():
        found[event["step"], event["protocol"]] = _numbers(event["scores"])
    return [(protocol, step, numbers) for (step, protocol), numbers in found.items()]


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """Of a score that several settings gave, each under the name of its setting."""
    found = flat(scores, " ").items()
    return {name: value for name, value in found if isinstance(value, int | float) and not isinstance(value, bool)}


def _files(run: RunDir) -> Iterator[tuple[Path, int]]:
    """(a picture that the run or one of its evaluations left, how many of its folder are left out behind it)."""
    for folder in (run.path, *(found.path for found in evaluation.every(run))):
        for place in (folder, *sorted(path for path in folder.iterdir() if _own(path) and path.name != "evals")):
            there = sorted(place.glob("*.png"))
            shown = there[:MOST_PICTURES]
            yield from ((file, len(there) - len(shown) if file == shown[-1] else 0) for file in shown)


def _own(path: Path) -> bool:
    """A folder, and no link to one: what lies elsewhere is not the run's."""
    return path.is_dir() and not path.is_symlink()


def _picture(file: Path, more: int, run: RunDir) -> Picture:
    name = str(file.relative_to(run.path)) + (f", and {more} more beside it" if more else "")
    with contextlib.suppress(OSError, ValueError):  # too large, or no picture of the run's own
        content = read(file, PICTURE_BYTES)
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            return Picture(name, file, f"data:image/png;base64,{base64.b64encode(content).decode()}")
    return Picture(name, file, "")
