"""What the demo recipes learn: k-NN against the untrained network, mean and spread over three seeds.

    python benchmarks/demo.py --write              # every method: the README's table; two to three minutes a run
    python benchmarks/demo.py swav smog            # prints the table with these two rows anew, the others as they stand

The runs go through the command line, into `runs/`; those that have finished are joined, so that a second call, or one
that was interrupted, measures only what is missing. Minutes are those that the ledgers of the runs give.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from launcher.run.folder import RunDir
from launcher.run.goodput import worked_seconds
from launcher.spec import registry

README = Path(__file__).parents[1] / "README.md"
SEEDS = (0, 1, 2)
HEAD = (
    "| `make run METHOD=` | k-NN, seeds 0, 1, 2 | mean ± std | untrained | gain | untrained, adapted | gain | minutes |"
)
MARK = "<!-- made by: python benchmarks/demo.py --write -->"
TABLE = re.compile(r"^<!-- made by: python benchmarks/demo\.py.*-->\n((?:\|.*\n)+)", re.MULTILINE)
CONVINCING = 5.0  # points over the adapted network, and twice the spread of that


class Measured(NamedTuple):
    """One seed: k-NN in percent, and how long all of the run took."""

    trained: float
    untrained: float
    adapted: float
    minutes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="none: all that have a recipe called demo")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    readme, made = README.read_text(), {}
    for method in given.methods or [name for name in registry.names() if "demo" in registry.method(name).recipes]:
        seeds = [measured(method, seed, given.runs) for seed in SEEDS]
        made[method] = row(method, seeds)
        print(verdict(method, seeds), file=sys.stderr)
    lines = table(readme, made)
    print("\n".join(lines))
    if given.write:
        README.write_text(written(readme, lines))


def measured(method: str, seed: int, runs: str) -> Measured:
    shown = _sslrun(f"method={method}", "recipe=demo", f"seed={seed}", f"runs={runs}")
    shown = _sslrun("show", shown["id"], f"runs={runs}")
    knn, seconds = shown["evals"]["knn"], worked_seconds(RunDir(shown["path"]).history())
    return Measured(knn["trained"], knn["untrained"], knn["untrained_adapted"], seconds / 60)


def row(method: str, seeds: list[Measured]) -> str:
    """Of the README's table."""
    columns = [
        [each.trained for each in seeds],
        [each.untrained for each in seeds],
        [each.trained - each.untrained for each in seeds],
        [each.adapted for each in seeds],
        [each.trained - each.adapted for each in seeds],
    ]
    scores, minutes = ", ".join(f"{each:.1f}" for each in columns[0]), sorted(each.minutes for each in seeds)
    taken = f"{minutes[0]:.1f}" if minutes[-1] - minutes[0] < 0.3 else f"{minutes[0]:.1f} to {minutes[-1]:.1f}"
    return (
        f"| `{method}` | {scores} | "
        + " | ".join(f"{m:.1f} ± {s:.1f}" for m, s in map(_spread, columns))
        + f" | {taken} |"
    )


def verdict(method: str, seeds: list[Measured]) -> str:
    mean, std = _spread([each.trained - each.adapted for each in seeds])
    least = max(CONVINCING, 2 * std)
    found = "convincing" if mean >= least else f"short of {least:.1f}, five points and twice the spread"
    return f"{method}: {mean:.1f} ± {std:.1f} over the adapted network: {found}"


def table(readme: str, made: dict[str, str]) -> list[str]:
    """Its lines: the rows of `made`, by method, and those of `readme` for all others, which stand where they stood."""
    stand = TABLE.search(readme)
    if stand is None:
        raise SystemExit(f"{README.name} has no table below a line that begins as {MARK}")
    rows = {line.split("`")[1]: line for line in stand[1].splitlines()[2:]} | made
    return [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|", *rows.values()]


def written(readme: str, lines: list[str]) -> str:
    """`readme` with the table of these lines in the place of its own."""
    return TABLE.sub(lambda _: "\n".join([MARK, *lines]) + "\n", readme, count=1)


def _spread(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values)


def _sslrun(*words: str) -> dict[str, Any]:
    sslrun = Path(sys.executable).with_name("sslrun")
    done = subprocess.run([sslrun, *words, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
