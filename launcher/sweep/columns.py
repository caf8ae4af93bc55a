"""A paper's table with several numbers of each run: columns, each an evaluation of its own of runs that train once.

columns:
  Places205:
    paper: [linear.top1, eval_data=places205, eval_data.path=/data/places205]   # at that scale: the number of ours, and
    demo: [logistic.top1, eval_data=made/attributes]                            # what stands behind `sslrun eval RUN`
    papers: [53.2, 56.7]                                                        # of the rows, in their order
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from launcher.errors import InputError

OWN_SCORES = ("knn", "clusters")  # evaluations that a training makes by itself
PATH = "eval_data.path"
METRIC = re.compile(r"\w+\.\w+")
KEYS = ("papers", "needs")  # of a column, beside the scales


@dataclass(frozen=True)
class OurNumber:
    """Our number of a point. metric: PROTOCOL.SCORE; words: the overrides of its evaluation, beside its protocol; of a
    table with columns alone, where runs are launched without `eval_after`."""

    metric: str
    words: tuple[str, ...] = ()

    @property
    def protocol(self) -> str:
        return self.metric.partition(".")[0]

    @property
    def score(self) -> str:
        return self.metric.partition(".")[2]

    @property
    def asked(self) -> list[str]:
        """The overrides of `sslrun eval RUN`; none where the training gives the number."""
        own = self.protocol in OWN_SCORES and not self.words
        return [] if own else [f"protocol={self.protocol}", *self.words]

    @property
    def data(self) -> str:
        """The data set that it judges on; empty where that is the run's own."""
        return next((word.partition("=")[2] for word in self.words if word.startswith("eval_data=")), "")

    @property
    def left_out(self) -> bool:
        """Whether somebody does not have its data set: `coco.path=null`."""
        return f"{PATH}=null" in self.words

    @property
    def of_data(self) -> dict[str, str]:
        """What is said of the data set, besides where it lies: {"year": "2019"}."""
        said = (word.removeprefix("eval_data.").partition("=") for word in self.words if word.startswith("eval_data."))
        return {key: value for key, _, value in said if key != "path"}

    def at(self, typed: Iterable[str]) -> "OurNumber":
        """With what a person typed of its data set: `places205.path=/mnt/places205`."""
        mine = [word for word in typed if self.data and word.startswith(f"{self.data}.")]
        said = {f"eval_data{word[len(self.data) :].partition('=')[0]}": word.partition("=")[2] for word in mine}
        kept = (word for word in self.words if word.partition("=")[0] not in said)
        return OurNumber(self.metric, (*kept, *(f"{key}={value}" for key, value in said.items())))


class Columns(dict[str, OurNumber]):
    """Scale -> our number of a point, where the table has columns. series: the row's own, whatever the column."""

    series = ""


def spread(columns: Any, rows: Any, scales: Any) -> list[dict[str, Any]]:
    """The points of a table: each row once a column, whose series is called after the column. scales: as the file has
    them; each gets the first column's metric. Raises ValueError where the columns cannot be read."""
    if not (columns and isinstance(columns, dict) and all(isinstance(column, dict) for column in columns.values())):
        raise ValueError("columns: each has a name, and below it the scales and `papers`")
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise ValueError("points: each is written like {value: SwAV}")
    if not (isinstance(scales, dict) and all(isinstance(scale, dict) for scale in scales.values())):
        raise ValueError("scales: each has a name, and below it what it costs")
    points = []
    for name, column in columns.items():
        where, papers = f"columns.{name}", column.get("papers", [None] * len(rows))
        strange = sorted({*column} - {*KEYS} - {*scales})
        if strange or not {*scales} <= {*column}:
            raise ValueError(f"{where}: it has papers, and of each scale a list: {', '.join(scales)}")
        if not isinstance(papers, list) or len(papers) != len(rows):
            raise ValueError(f"{where}.papers: of {len(rows)} points a number or null each")
        judged = {scale: _judged(f"{where}.{scale}", column[scale]) for scale in scales}
        for row, paper in zip(rows, papers, strict=True):
            mine = Columns(judged)
            mine.series = str(row.get("series", ""))
            series = ", ".join(filter(None, (mine.series, str(name))))
            needs = [*_listed(row.get("needs")), *_listed(column.get("needs"))]
            points.append({**row, "paper": paper, "series": series, "needs": needs, "judged": mine})
    for scale, given in scales.items():
        given.setdefault("metric", next(iter(columns.values()))[scale][0])
    return points


def refuse_strangers(typed: Iterable[str], judged: Iterable[OurNumber]) -> None:
    """Raises InputError for a word about a data set on which no column judges."""
    there = {each.data for each in judged} - {""}
    for word in typed:
        key, _, value = word.partition("=")
        if key.partition(".")[0] not in there:
            known = ", ".join(sorted(f"{name}.path" for name in there)) or "none"
            raise InputError.of(key, value, "no column of the table judges on it", f"there are: {known}")


def _judged(where: str, given: Any) -> OurNumber:
    if not isinstance(given, list) or not given or not all(isinstance(word, str) for word in given):
        raise ValueError(f"{where}: write it like [linear.top1, eval_data=places205]")
    metric, *words = given
    if not METRIC.fullmatch(metric):
        raise ValueError(f"{where}={metric}: it is protocol.score; write it like knn.trained")
    if any("=" not in word for word in words):
        raise ValueError(f"{where}: behind the metric stand overrides of `sslrun eval RUN`, key=value")
    return OurNumber(metric, tuple(words))


def _listed(given: Any) -> list[Any]:
    """What is no list is for whoever checks the point."""
    return given if isinstance(given, list) else [] if given is None else [given]
