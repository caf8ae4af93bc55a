"""The table that a drill ends with: one row for each fault."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.drill.engine import FaultResult


def show(results: Sequence[FaultResult], screen: Console) -> None:
    """The table, and below it what was not as expected."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("fault", no_wrap=True)
    for name in ("expected", "seen"):
        table.add_column(name, overflow="fold")
    for name in ("lost", "first step", "exact"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in sorted((r for r in results if not r.skipped), key=lambda r: r.fault.number):
        seen = result.seen
        table.add_row(
            str(result.fault),
            result.expected,
            Text("not as expected" if seen.problems else "as expected", style="red" if seen.problems else "green"),
            "" if result.lost is None else str(result.lost),
            f"{seen.seconds:.1f} s" if seen.seconds is not None else "",
            {True: "yes", False: "no", None: ""}[result.exact],
        )
    screen.print(table)
    for result in results:
        for problem in result.seen.problems:
            screen.print(f"{result.fault}: {problem}", soft_wrap=True)
        if result.seen.problems:
            screen.print(f"  its run: {result.run}", soft_wrap=True)
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.skipped:
            reasons.setdefault(result.skipped, []).append(str(result.fault))
    for reason, names in reasons.items():
        screen.print(f"left out, {reason}: {', '.join(names)}", soft_wrap=True)
