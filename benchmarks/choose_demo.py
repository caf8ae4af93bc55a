"""Tries a setting of a demo recipe on the validation split, which is cut from the train area of the photographs.

    python benchmarks/choose_demo.py swav method.augment=gentle method.epochs=15       # overrides of recipe=demo
    python benchmarks/choose_demo.py swav --seed 1 method.augment=gentle

What came out is appended to docs/demos.md, whatever it was; no test patch is ever seen. A method has at most eight
settings, its recipe as it stands among them: the ninth is refused. Finished runs are joined, never run again.
Overrides are of the recipe as it stands: once a choice has been put into it, what it had before must be given, too.
"""

import argparse
import fcntl
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

TRIED = Path(__file__).parents[1] / "docs/demos.md"
MOST, SEEDS = 8, (0, 1)  # of settings a method; the second seed is for the two best
RECIPE = "the recipe"
# Method, setting, seed, gain over the adapted network, and whether it is the one.
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (\d+) \|(?:[^|]+\|){3} (-?[\d.]+) \| (?:chosen )?\|$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("overrides", nargs="*", help="as for sslrun; none: the recipe as it stands")
    parser.add_argument("--seed", type=int, choices=SEEDS, default=SEEDS[0])
    parser.add_argument("--runs", default="runs/validation")
    given = parser.parse_intermixed_args()
    setting = " ".join(f"`{each}`" for each in sorted(given.overrides)) or RECIPE
    refused = refusal(TRIED.read_text(), given.method, setting, given.seed)
    if refused:
        sys.exit(refused)
    where = [f"runs={given.runs}"]
    line = [f"method={given.method}", "recipe=demo", "data.held_out=validation", f"seed={given.seed}"]
    run = _sslrun(*line, *given.overrides, *where)["id"]
    shown = _sslrun("show", run, *where)
    text = row(given.method, setting, given.seed, shown)
    with TRIED.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two may be trying at once
        again = refusal(file.read(), given.method, setting, given.seed)
        if not again:
            file.seek(0)
            page = chosen(file.read() + text)
            file.seek(0)
            file.write(page)
    print(again or text, end="\n" if again else "")


def refusal(tried: str, method: str, setting: str, seed: int) -> str | None:
    """Why the setting is not to be tried, or None. tried: the page with all rows."""
    rows = [found.groups()[:3] for found in ROW.finditer(tried) if found[1] == method]
    if (method, setting, str(seed)) in rows:
        return f"{method}, {setting}, seed {seed}: in {TRIED.name} already"
    settings = {each for _, each, _ in rows}
    if setting not in settings and len(settings) >= MOST:
        return f"{method}: {MOST} settings have been tried, which is all that there are"
    return None


def chosen(tried: str) -> str:
    """The page with every method's best setting marked: the largest mean gain among those that were tried with the most
    seeds."""
    gains: dict[str, dict[str, list[float]]] = {}
    for method, setting, _, gain in (found.groups() for found in ROW.finditer(tried)):
        gains.setdefault(method, {}).setdefault(setting, []).append(float(gain))
    best = {}
    for method, settings in gains.items():
        seeds = max(map(len, settings.values()))
        complete = {each: sum(found) for each, found in settings.items() if len(found) == seeds}
        best[method] = max(complete, key=complete.__getitem__)

    def marked(found: re.Match[str]) -> str:
        cells = found[0].removesuffix("|").removesuffix("chosen ")
        return f"{cells}chosen |" if found[2] == best[found[1]] else f"{cells}|"

    return ROW.sub(marked, tried)


def row(method: str, setting: str, seed: int, shown: dict[str, Any]) -> str:
    """shown: what `sslrun show --json` says of the run."""
    knn = shown["evals"]["knn"]
    trained, untrained, adapted = knn["trained"], knn["untrained"], knn["untrained_adapted"]
    figures = (trained, untrained, adapted, trained - adapted)
    return f"| `{method}` | {setting} | {seed} | " + " | ".join(f"{each:.1f}" for each in figures) + " | |\n"


def _sslrun(*words: str) -> dict[str, Any]:
    sslrun = Path(sys.executable).with_name("sslrun")
    done = subprocess.run([sslrun, *words, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
