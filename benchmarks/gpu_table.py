"""python benchmarks/gpu_table.py FOLDER      the tables of docs/benchmarks.md from what benchmarks/gpu.sh left there

To stdout, and to FOLDER/table.md. A part of which there is no JSON is named as not measured.
"""

import argparse
import json
from pathlib import Path
from xml.etree import ElementTree

STEPS = {"bf16": "bf16", "fp16": "fp16", "compiled": "bf16, through torch.compile"}
OTHERS = "plain", "lightly"


def read(folder, name):
    """What a part measured; None where it left nothing."""
    try:
        return json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def table(head, rows):
    lines = [f"| {' | '.join(cells)} |" for cells in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def span(figures, form):
    low, median, high = (figures[key] for key in ("low", "median", "high"))
    return f"{median:{form}} ({low:{form}} to {high:{form}})"


def steps(folder):
    """Of each method and arithmetic: images/s, ratios, idleness, memory."""
    rows, missing = [], []
    for part, how in STEPS.items():
        found = read(folder, part)
        if found is None:
            missing.append(part)
            continue
        for row in found["rows"]:
            cells = [f"`{row['method']}`", how, str(row["batch"]), f"{row['images_per_s']['engine']['median']:.0f}"]
            for side in OTHERS:
                known = side in row["engine_to"]
                cells.append(f"{row['images_per_s'][side]['median']:.0f}" if known else "")
                cells.append(span(row["engine_to"][side], ".3f") if known else "")
            cells.append("" if row["idle"] is None else f"{row['idle']:.1%}")
            peaks = [f"{row['peak_gb'][side]:.1f}" if side in row["peak_gb"] else "" for side in ("engine", *OTHERS)]
            rows.append([*cells, *peaks, f"{row['planned_gb']:.1f}"])
    head = ["method", "arithmetic", "images", "engine, images/s", "plain loop", "engine / plain", "lightly"]
    head += ["engine / lightly", "no kernel", "peak GB, engine", "plain", "lightly", "planned"]
    return [table(head, rows)] if rows else [], missing


def photometrics(folder):
    """images/s of the stage, and the share of the engine's step that it is."""
    found, of_steps = read(folder, "photometrics"), read(folder, "bf16") or {"rows": []}
    if found is None:
        return [], ["photometrics"]
    rates = {row["method"]: row["images_per_s"]["engine"]["median"] for row in of_steps["rows"]}
    rows = []
    for row in found["rows"]:
        stage = row["images_per_s"]["stage"]
        share = f"{rates[row['method']] / stage['median']:.1%}" if row["method"] in rates else ""
        cells = [span(stage, ".0f"), span(row["images_per_s"]["copy and stage"], ".0f")]
        rows.append([f"`{row['method']}`", *cells, share])
    return [table(["crops of", "stage, images/s (lowest to highest)", "with the copy", "share of a step"], rows)], []


def saves(folder):
    found = read(folder, "saves")
    if found is None:
        return [], ["saves"]
    rows = [
        [name, what, span(dict(zip(("low", "median", "high"), ratio, strict=True)), ".3f"), str(found["limits"][name])]
        for name, each in found["ratios"].items()
        for what, ratio in each.items()
    ]
    head = ["save", "delay", f"to torch.save's, {found['gb']:g} GB on {found['device']}", "limit"]
    return [table(head, rows)], []


def flat(value, name=""):
    """[(a.b, value), ...] of nested objects."""
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in flat(part, f"{name}.{key}" if name else key)]
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return [pair for number, part in enumerate(value) for pair in flat(part, f"{name}[{number}]")]
    return [(name, f"{value:.4g}" if isinstance(value, float) else str(value))]


def kmeans(folder):
    """Whatever benchmarks/kmeans.py has measured, a figure a line."""
    found = read(folder, "kmeans")
    return ([table(["k-means", ""], map(list, flat(found)))], []) if found else ([], ["kmeans"])


def tests(folder):
    try:
        suite = next(ElementTree.parse(folder / "tests.xml").iter("testsuite"))
    except (OSError, ElementTree.ParseError, StopIteration):
        return [], ["tests"]
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    more = ", ".join(f"{counts[key]} {key}" for key in ("failures", "errors", "skipped"))
    return [f"Tests marked for a GPU: {passed} of {counts['tests']} passed ({more})."], []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    versions = read(folder, "versions") or {}
    parts = [", ".join(f"{name} {value}" for name, value in versions.items() if value is not None)]
    missing = [] if versions else ["versions"]
    for made in (tests, kmeans, steps, photometrics, saves):
        found, left_out = made(folder)
        parts += found
        missing += left_out
    ended = [f"{row['part']} ({row['code']})" for row in read(folder, "parts") or [] if row["code"]]
    if ended:
        parts.append(f"Parts that failed (exit code; 124: took too long): {', '.join(ended)}.")
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.")
    text = "\n\n".join(part for part in parts if part) + "\n"
    (folder / "table.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
