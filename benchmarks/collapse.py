"""What the outputs look like at the end of the runs of a sweep: the figures behind docs/collapse.md.

    python benchmarks/collapse.py dino/collapse     # after sslrun --multirun sweep=dino/collapse recipe=demo
    python benchmarks/collapse.py smog/tricks

Prints a table; entropies as shares of ln K, mean and spread over the seeds, of the last row of each run's metrics.
"""

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

CLASSES = {"dino": "outputs", "smog": "groups", "swav": "prototypes"}
ENTROPIES = ("teacher_entropy", "teacher_use", "group_entropy", "prototype_entropy")


def main(sweep: str) -> None:
    command = ["sslrun", "report", f"sweep={sweep}", "recipe=demo", "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = []
    for point in json.loads(answer.splitlines()[-1])["points"]:
        runs = [_end(Path(run["path"])) for run in point["runs"] if run["state"] == "done"]
        if runs:
            rows.append((point["value"], runs))
    names = [name for name in [*ENTROPIES, "teacher_kl", "k-NN", "untrained"] if name in rows[0][1][0]]
    titles = [f"{name.replace('_', ' ')} / ln K" if name in ENTROPIES else name.replace("_", " ") for name in names]
    print(f"| left out or used | {' | '.join(titles)} | said by the run |")
    print("|---" * (len(names) + 2) + "|")
    for value, runs in rows:
        cells = [_cell([run[name] for run in runs]) for name in names]
        said = "; ".join(sorted({run["said"] for run in runs})) or "nothing"
        print(f"| {value} | {' | '.join(cells)} | {said} |")


def _end(run: Path) -> dict:
    """Figures of the end of one run."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(metrics) if "loss" in row)
    method = json.loads((run / "spec.json").read_text())["method"]
    most = math.log(method[CLASSES[method["name"]]])
    shown = subprocess.run(["sslrun", "show", str(run), "--json"], stdout=subprocess.PIPE, text=True, check=True)
    summary = json.loads(shown.stdout.splitlines()[-1])
    knn = summary["evals"]["knn"]
    found = {name: value / most for name, value in last.items() if name in ENTROPIES}
    found |= {name: last[name] for name in ("teacher_kl",) if name in last}
    found |= {"k-NN": knn["trained"], "untrained": knn["untrained"]}
    return found | {"said": summary["health"] or "nothing"}


def _cell(values: list[float]) -> str:
    digits = 1 if max(values) > 2 else 3
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main(*sys.argv[1:])
