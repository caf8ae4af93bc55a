"""Memory and hours of a plan beside those that SwAV's and DINO's authors measured; the table is in docs/plans.md."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.compose.training import resolve
from launcher.plan import plan as planning
from launcher.spec import registry

ROOT = Path(__file__).parents[3]
TABLE = runpy.run_path(str(ROOT / "benchmarks" / "plan_tables.py"))
ROWS = {f"{row.where} {row.method} {row.crops} {row.epochs}": row for row in TABLE["rows"]()}
CROPS = ("image_size", "local_crops")
OUT = "Table 4.4 swav 2x160 + 4x96 100"  # docs/plans.md says why


def planned(*overrides, cluster="v100_16gb"):
    return planning.make(*resolve([*overrides, f"cluster={cluster}"], planning=True))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.memory_gb])
def test_memory_is_within_15_percent_of_the_papers_peak(name):
    plan = TABLE["planned"](ROWS[name])
    assert plan.per_gpu_batch == 64
    assert plan.memory_gb == pytest.approx(ROWS[name].memory_gb, rel=0.15)


@pytest.mark.parametrize("name", [name for name in ROWS if name != OUT])
def test_hours_are_within_25_percent_of_the_papers(name):
    plan = TABLE["planned"](ROWS[name])
    assert not plan.hours_assumed
    assert plan.hours == pytest.approx(ROWS[name].hours, rel=0.25)


def test_the_row_that_is_out_is_what_the_page_says_of_it():
    plan, thesis = TABLE["planned"](ROWS[OUT]), ROWS[OUT].hours
    assert 0.72 < plan.hours / thesis < 0.75
    said = (ROOT / "docs" / "plans.md").read_text()
    assert f"the plan says {int(plan.hours)} h {60 * (plan.hours % 1):.0f} min" in said and "4 h 50 min" in said


def test_no_rows_hours_are_planned_from_themselves():
    """A recipe's rate is that of one row, which it only repeats: another row's hours and its operations tell of it."""
    repeated = [row for row in ROWS.values() if row.by]
    assert {(row.method, row.crops) for row in repeated} >= {("swav", "2x224 + 6x96"), ("dino", "2x224 + 10x96")}
    for row in ROWS.values():
        itself, recipe = resolve(row.words, planning=True)
        same_crops = all(getattr(itself.method, crop) == getattr(recipe.method, crop) for crop in CROPS)
        repeats = same_crops and planning.make(itself, recipe).hours == pytest.approx(row.hours, rel=0.01)
        assert (row.by is not None) == repeats
    for row in repeated:
        took = row.by.hours * row.by.gpus / row.by.epochs * _operations(row) / _operations(row.by)
        assert TABLE["planned"](row).hours == pytest.approx(took * row.epochs / row.gpus, rel=0.01)


def _operations(row):
    (_, size), *local = [map(int, crop.split("x")) for crop in row.crops.split(" + ")]
    method = registry.method(row.method)
    config = method.recipe("paper").method
    crops = dict(zip(CROPS, (size, next(local[0]) if local else 0), strict=True))
    return method.sizes(replace(config, **crops), 64).flops_per_image


def test_the_table_in_the_documentation_is_the_plans():
    lines = list(TABLE["table"]())
    assert len(lines) == 2 + len(ROWS) and len(ROWS) >= 14
    assert "\n".join(lines) in (ROOT / "docs" / "plans.md").read_text()


def test_what_the_papers_needed_12_gb_for_does_not_fit_12():
    for method, nodes in (("swav", 8), ("dino", 2)):
        given = (f"method={method}", f"nodes={nodes}")
        assert "do not fit its 12 GB" in planned(*given, "cluster.gpu_mem_gb=12").waste
        assert planned(*given).waste is None  # 16 GB, as the thesis had for SwAV


def test_it_says_what_was_calibrated_and_on_what():
    said = planned("method=dino", "nodes=2").why["memory_gb"]
    for part in (
        "weights in fp16 0.09",
        "workspace and fragmentation",
        "calibrated on thesis Tables 4.4 and 5.14",
        "CUDA",
    ):
        assert part in said
    assert "weights in" not in planned("method=dino", "nodes=2", "method.precision=fp32").why["memory_gb"]


def test_a_process_without_gpu_has_no_workspace_and_no_cuda():
    said = planned("method=dino", "nodes=1", "recipe=demo", cluster="local").why["memory_gb"]
    assert said.startswith("a process: ") and "workspace" not in said and "CUDA" not in said
