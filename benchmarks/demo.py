"""What the demo recipe learns: k-NN against the untrained network and raw pixels, mean and spread over three seeds.

    python benchmarks/demo.py deepercluster          # three runs of about two minutes; prints the README's table

The runs go through the command line, into `runs/`; a second call shows the finished ones.
"""

import json
import statistics
import subprocess
import sys
import time

SEEDS = (0, 1, 2)


def main(method: str) -> None:
    rows, minutes = [], []
    for seed in SEEDS:
        started = time.monotonic()
        command = ["sslrun", f"method={method}", "recipe=demo", f"seed={seed}", "--json"]
        launched = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        minutes.append((time.monotonic() - started) / 60)
        run = json.loads(launched.stdout.splitlines()[-1])["id"]
        shown = subprocess.run(["sslrun", "show", run, "--json"], stdout=subprocess.PIPE, text=True, check=True)
        evals = json.loads(shown.stdout)["evals"]
        knn = evals["knn"]
        nmi = evals.get("clusters", {}).get("nmi_labels")
        trained, untrained, adapted = knn["trained"], knn["untrained"], knn["untrained_adapted"]
        rows.append((trained, untrained, trained - untrained, adapted, trained - adapted, knn["raw_pixels"], nmi))
    print(f"\n{method}, recipe=demo, {statistics.mean(minutes):.1f} minutes a run, start-up included\n")
    print("| seed | k-NN trained | untrained | gain | untrained, adapted | gain | raw pixels | NMI with labels |")
    print("|---|---|---|---|---|---|---|---|")
    for seed, row in zip(SEEDS, rows, strict=True):
        print(f"| {seed} | " + " | ".join(_cell(value, i) for i, value in enumerate(row)) + " |")
    columns = [[v for v in column if v is not None] for column in zip(*rows, strict=True)]
    cells = [
        f"{_cell(statistics.mean(c), i)} ± {_cell(statistics.stdev(c), i)}" if c else "" for i, c in enumerate(columns)
    ]
    print("| mean ± std | " + " | ".join(cells) + " |")


def _cell(value: float | None, column: int) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if column == 6 else f"{value:.1f}"


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["deepercluster"]))
