"""What the outputs look like at the end of the runs of a sweep: the figures behind docs/collapse.md.

    python benchmarks/collapse.py dino/collapse     # after sslrun --multirun sweep=dino/collapse recipe=demo
    python benchmarks/collapse.py smog/tricks method.epochs=9     # where that was typed, too

Prints a table of what the last row of each run's metrics says of a collapse, whatever the method: mean and spread over
the seeds. Entropies are shares of ln K, where K is how many classes the method's heads tell apart.
"""

import argparse
import json
import math
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.spec import registry

OF_CLASSES, OTHERS = ("_entropy", "_use"), ("likeness", "_hit", "_kl")  # how scalars that tell of a collapse are called


def main(sweep: str, *given: str) -> None:
    rows = []
    for point in _told("report", f"sweep={sweep}", "recipe=demo", *given)["points"]:
        runs = [_end(Path(run["path"])) for run in point["runs"] if run["state"] == "done"]
        if runs:
            rows.append((f"{point['series']} {point['value']}".strip(), runs))
    names = list(dict.fromkeys(name for _, runs in rows for name in runs[0]["figures"]))
    print(f"| run | {' | '.join(names)} | said by the run |")
    print("|---" * (len(names) + 2) + "|")
    for value, runs in rows:
        cells = [_cell([run["figures"].get(name) for run in runs]) for name in names]
        said = "; ".join(sorted({run["said"] for run in runs}))
        print(f"| {value} | {' | '.join(cells)} | {said} |")


def _end(run: Path) -> dict[str, Any]:
    """Figures of the end of one run, by the titles of their columns."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(metrics) if "loss" in row)
    most = math.log(_classes(json.loads((run / "spec.json").read_text())["method"]))
    found = {f"{_title(name)} / ln K": value / most for name, value in last.items() if name.endswith(OF_CLASSES)}
    found |= {_title(name): value for name, value in last.items() if name.endswith(OTHERS)}
    shown = _told("show", str(run))
    knn = shown["evals"]["knn"]
    return {
        "figures": found | {"k-NN": knn["trained"], "untrained": knn["untrained"]},
        "said": shown["health"] or "nothing",
    }


def _classes(config: dict[str, Any]) -> int:
    """The scores of the method's widest head; where there are none, nothing is a share of them."""
    method = registry.method(config["name"])
    heads = method.outline(method.config(**config)).heads
    return max([head.scores for head in heads.values()] + [2])


def _told(*words: str) -> dict[str, Any]:
    """What `sslrun VERB ... --json` answers."""
    done = subprocess.run(["sslrun", *words, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _title(name: str) -> str:
    return name.replace("_", " ")


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    digits = 1 if max(known) > 2 else 3
    spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.{digits}f}{spread}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep")
    parser.add_argument("given", nargs="*", help="what else was typed behind --multirun")
    options = parser.parse_args()
    main(options.sweep, *options.given)
