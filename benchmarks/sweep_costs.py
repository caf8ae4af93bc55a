"""What the papers' scale of every sweep costs, as a plan has it, beside what its file says.

    python benchmarks/sweep_costs.py                         # all of them
    python benchmarks/sweep_costs.py dino/components --write # and writes the plan's figure into the files named

A plan is that of the file's own first command, with the hours that `sslrun plan sweep=` counts; of rows that are "not
here yet" it knows nothing. Figures are rounded to two digits, to hundreds from 10,000 on. Where a file's own comment
says how else it comes to its figure, leave it out.
"""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from launcher.plan import plan
from launcher.sweep import ablation, asked


def main(wanted: Sequence[str], writes: bool) -> None:
    print("| sweep | GPU-hours, file | plan | rows | not here yet |\n|---|---:|---:|---:|---:|")
    for name in wanted or ablation.names():
        file = ablation.names()[name]
        hours, rows, absent = planned(file)
        said = ablation.load(name).scales["paper"].gpu_hours
        print(f"| {name} | {said:,.0f} | {rounded(hours):,} | {rows} | {absent} |")
        if wanted and writes:
            write(file, rounded(hours))


def planned(file: Path) -> tuple[float, int, int]:
    """(GPU-hours, one seed a row; rows that it covers; rows that are not here yet)."""
    command = shlex.split(file.read_text().partition("\n")[0].removeprefix("# ").partition("  #")[0])
    members, absent = asked.members(asked.read([*command[2:], "cluster=generic"]), planning=True)
    once = {member.point.spec.run_id: member.point for member in members}  # of several columns one run
    plans = [plan.make(point.spec, point.recipe) for point in once.values()]
    return sum(made.reckoned_gpu_hours for made in plans), len(once), len(absent)


def rounded(hours: float) -> int:
    """Two digits, or hundreds.

    >>> [rounded(hours) for hours in (694.4, 7484.0, 89_733.0)]
    [690, 7500, 89700]
    """
    return int(float(f"{hours:.2g}")) if hours < 10_000 else 100 * round(hours / 100)


def write(file: Path, hours: int) -> None:
    text = file.read_text()
    text = re.sub(r"(\A.*  # )[\d,]+ GPU-hours", rf"\g<1>{hours:,} GPU-hours", text, count=1)
    file.write_text(re.sub(r"(gpu_hours: )[\d.]+", rf"\g<1>{hours}", text, count=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="*", help="none: all of them")
    parser.add_argument("--write", action="store_true", help="the plan's figure into their files")
    options = parser.parse_args()
    main(options.sweeps, options.write)
