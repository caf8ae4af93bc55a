"""Numbers and states as people read them, the same on a terminal, in Markdown and on a page."""

from typing import Any

from launcher.report.table import NOT_YET, SAID, STATES, Table, TableRow
from launcher.sweep import ablation

MISSING = "–"


def number(value: float | None) -> str:
    """Two decimals for small numbers, one for others; a dash where there is none."""
    if value is None:
        return MISSING
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def axis_value(given: Any) -> str:
    """Of an axis: a whole number in groups of three digits, yes and no as an override has them."""
    if isinstance(given, bool):
        return ablation.written(given)
    return f"{given:,}" if isinstance(given, int) else str(given)


def label(row: TableRow) -> str:
    """The value of a row at its scale, and the paper's where that is another."""
    return axis_value(row.at) if row.at == row.value else f"{axis_value(row.at)} (for {axis_value(row.value)})"


def score(given: float) -> str:
    """Of an evaluation."""
    return f"{given:.2f}" if abs(given) >= 1 else f"{given:.3f}"


def theirs(value: float | None) -> str:
    """As the paper prints it: at least one decimal."""
    if value is None:
        return MISSING
    text = f"{value:.10g}"
    return text if "." in text or "e" in text else f"{text}.0"


def ours(row: TableRow) -> str:
    """Mean and spread, and of how many seeds where some have no number."""
    if row.mean is None:
        return MISSING
    spread = f" ± {number(row.std)}" if row.std is not None else ""
    some = f" ({len(row.scores)} of {len(row.runs)})" if len(row.scores) < len(row.runs) else ""
    return f"{number(row.mean)}{spread}{some}"


def signed(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{'−' if value < 0 else '+'}{number(abs(value))}"


def state(row: TableRow) -> str:
    """The state of a point: that of all its runs, or how many runs are in which."""
    if row.state == NOT_YET:
        return f"{NOT_YET}: needs {', '.join(row.lacks)}"
    kinds = {run.state for run in row.runs}
    if len(kinds) == 1:
        return state_name(row.state)
    counted = ((sum(run.state == kind for run in row.runs), kind) for kind in STATES if kind in kinds)
    return ", ".join(f"{count} {state_name(kind)}" for count, kind in counted)


def state_name(kind: str) -> str:
    return SAID.get(kind, kind)


def steps(row: TableRow) -> str:
    """The fewest and the most steps that a run of the point has done, and how many are to be done."""
    begun = [run for run in row.runs if run.steps]
    if not begun:
        return MISSING
    low, high, of = min(r.step for r in begun), max(r.step for r in begun), max(r.steps for r in begun)
    if low == high == of:
        return f"{of:,}"
    return f"{low:,}–{high:,} of {of:,}" if low != high else f"{high:,} of {of:,}"


def cells(table: Table) -> tuple[str, list[dict[str, str]]]:
    """(what `hours` are counted in: GPU-hours, or minutes where no GPU was at work; {column: cell} of each point)."""
    gpus = any(run.gpu_hours for run in table.runs)
    rows = [
        {
            "point": label(row), "series": row.series, "state": state(row), "paper": theirs(row.paper),
            "ours": ours(row), "difference": signed(row.difference), "steps": steps(row), "hours": _spent(row, gpus),
        }
        for row in table.rows
    ]  # fmt: skip
    return "GPU-hours" if gpus else "minutes", rows


def _spent(row: TableRow, gpus: bool) -> str:
    if not any(run.hours for run in row.runs):
        return MISSING
    total = sum(run.gpu_hours if gpus else 60 * run.hours for run in row.runs)
    return f"{total:,.0f}" if total >= 10 else f"{total:.1f}"
