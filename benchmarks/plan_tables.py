"""Plans beside the hours and gigabytes that the thesis prints, Tables 4.4 and 5.14, and beside other hours of the same
authors: of 4.3.3, and of the pages of their released code.

    python benchmarks/plan_tables.py        # prints the table of docs/plans.md

A recipe's rate is the hours of one row, so that row would say nothing: its hours are planned from another row's, by
operations, as the plan itself does it for all that nobody timed. The column "by" says which row it was.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

from launcher.compose.training import resolve
from launcher.plan import plan as planning
from launcher.plan.plan import Plan
from launcher.spec import registry
from launcher.spec.contract import Rate

IMAGES, TFLOPS = 1_281_167, 125  # of ImageNet; peak of a V100 in fp16


@dataclass(frozen=True)
class Timed:
    """A row. hours: the authors', of all epochs. memory_gb: likewise, of a GPU; None where they give none."""

    where: str
    method: str
    crops: str
    gpus: int
    epochs: int
    hours: float
    memory_gb: float | None = None
    by: "Timed | None" = None  # None: by what the recipe has, which is of other crops
    recipe: str = "paper"
    given: tuple[str, ...] = ()  # overrides

    @property
    def words(self) -> list[str]:
        """The command line."""
        (_, size), *local = [map(int, crop.split("x")) for crop in self.crops.split(" + ")]
        count = next(local[0]) if local else 0
        nodes, tasks = (self.gpus // 8, []) if self.gpus >= 8 else (1, [f"tasks_per_node={self.gpus}"])
        crops = [f"method.image_size={size}", f"method.local_crops={count}", f"method.epochs={self.epochs}"]
        world = [f"nodes={nodes}", *tasks, "cluster=v100_16gb"]
        return [f"method={self.method}", f"recipe={self.recipe}", *world, *crops, *self.given]


SWAV = Timed("Table 4.4", "swav", "2x224 + 6x96", 64, 100, 6.25, 12.8)
LESS = Timed("Table 4.4", "swav", "2x224", 64, 100, 4 + 9 / 60, 8.6)
DINO = Timed("Table 5.14", "dino", "2x224", 16, 300, 45.9, 9.3)
ROWS = (
    Timed("Table 4.4", "simclr", "2x224", 64, 100, 4.0, 8.6, by=SWAV),
    LESS,
    Timed("Table 4.4", "swav", "2x160 + 4x96", 64, 100, 4 + 50 / 60, 8.5),
    replace(SWAV, by=LESS),
    Timed("4.3.3", "swav", "2x160 + 4x96", 4, 200, 102, recipe="small_batch"),
    Timed("SwAV's page", "swav", "2x224 + 6x96", 4, 200, 200 * (52 + 10 / 60) / 60, recipe="small_batch"),
    Timed("DINO's page", "dino", "2x224 + 8x96", 8, 100, 1.75 * 24, given=("method.global_batch=512",)),
    *(
        Timed("Table 5.14", "dino", crops, 16, epochs, hours, memory, by)
        for epochs, part in ((100, 0), (300, 1))
        for crops, both, memory, by in (
            ("2x224", (15.3, 45.9), 9.3, None),
            ("2x224 + 2x96", (17.0, 51.0), 10.5, None),
            ("2x224 + 6x96", (20.3, 60.9), 12.9, None),
            ("2x224 + 10x96", (24.2, 72.6), 15.4, DINO),
        )
        for hours in both[part : part + 1]
    ),
)


def rows() -> list[Timed]:
    """Those whose method is here."""
    return [row for row in ROWS if row.method in registry.names()]


def planned(row: Timed) -> Plan:
    """The plan of a row, its hours by the rate that the row names."""
    spec, recipe = resolve(row.words, planning=True)
    if row.by:
        sizes = registry.method(row.method).sizes
        share = _images_per_s(row.by) * _flops(row.by) / (TFLOPS * 1e12)
        rate = share * TFLOPS * 1e12 / sizes(recipe.method, spec.world_size).flops_per_image
        recipe = recipe.but(rate=Rate(rate, tflops=TFLOPS, gpu=True, source=f"thesis, {row.by.where}"))
    return planning.make(spec, recipe)


def table() -> Iterator[str]:
    """Lines of Markdown."""
    yield "| where | method | crops | GPUs | epochs | hours | planned | | by | GB a GPU | planned | |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---|---:|---:|---:|"
    for row in rows():
        plan = planned(row)
        by = f"{row.by.method}, {row.by.crops}" if row.by else "the recipe"
        memory = f"{row.memory_gb} | {plan.memory_gb:.1f} | {_off(plan.memory_gb, row.memory_gb)}"
        times = f"{row.hours:.4g} | {plan.hours:.3g} | {_off(plan.hours, row.hours)}"
        start = f"{row.where} | {row.method} | {row.crops} | {row.gpus} | {row.epochs}"
        yield f"| {start} | {times} | {by} | {memory if row.memory_gb else '| |'} |"


def _images_per_s(row: Timed) -> float:
    return row.epochs * IMAGES / (3600 * row.hours * row.gpus)


def _flops(row: Timed) -> float:
    spec, _ = resolve(row.words, planning=True)
    return registry.method(row.method).sizes(spec.method, spec.world_size).flops_per_image


def _off(ours: float, theirs: float | None) -> str:
    return f"{100 * (ours / theirs - 1):+.0f} %" if theirs else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print("\n".join(table()))
