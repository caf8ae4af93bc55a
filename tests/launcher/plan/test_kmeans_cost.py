"""The arithmetic of the cost model, against figures that were worked out by hand."""

import runpy
from pathlib import Path

import pytest

from launcher.compose.clusters import shipped
from launcher.plan.kmeans_cost import Machine, Problem, iteration, machine

ROOT = Path(__file__).parents[3]
TABLE = runpy.run_path(str(ROOT / "benchmarks" / "kmeans_table.py"))

GPU = {"feature_bytes_s": 1e12, "memory_bytes_s": 1e12, "efficiency": 1.0}  # that reaches its peak
FIRST, SECOND = Problem(96_000_000, 4, 4096), Problem(23_000_000, 80_000, 4096)


def test_operations_of_the_thesis_levels():
    assert iteration(FIRST, Machine(64, 1e12, **GPU)).flop == pytest.approx(4.9e10, rel=0.01)
    assert iteration(SECOND, Machine(16, 1e12, **GPU)).flop == pytest.approx(9.42e14, rel=0.001)


@pytest.mark.parametrize(
    ("problem", "ranks", "tflops", "seconds"),
    [
        (FIRST, 64, 15.7, 0.003),  # V100, fp32
        (SECOND, 16, 15.7, 60),
        (SECOND, 16, 125, 7.5),  # its tensor cores
        (SECOND, 16, 495, 1.9),  # H100, TF32
        (SECOND, 16, 989, 0.95),  # bf16
    ],
)
def test_arithmetic_at_the_peaks_of_data_sheets(problem, ranks, tflops, seconds):
    assert iteration(problem, Machine(ranks, tflops * 1e12, **GPU)).arithmetic == pytest.approx(seconds, rel=0.05)


def test_reading_takes_the_place_of_arithmetic_where_clusters_are_few():
    over_pcie = iteration(FIRST, Machine(64, 15.7e12, **{**GPU, "feature_bytes_s": 12.3e9}))
    assert over_pcie.reading == pytest.approx(2.0, rel=0.01)
    assert over_pcie.seconds == pytest.approx(over_pcie.reading + over_pcie.update)
    in_place = Problem(96_000_000, 4, 4096, feature_bytes=2)
    hbm = iteration(in_place, Machine(64, 989e12, **{**GPU, "feature_bytes_s": 3.35e12}))
    assert hbm.reading == pytest.approx(3.7e-3, rel=0.01)


@pytest.mark.parametrize(("gb_s", "seconds"), [(10, 0.25), (50, 0.05)])
def test_a_ring_moves_sums_and_counts_once(gb_s, seconds):
    in_fp32 = Problem(23_000_000, 80_000, 4096, sum_bytes=4)
    cost = iteration(in_fp32, Machine(16, 989e12, **GPU, network_bytes_s=gb_s * 1e9))
    assert (
        cost.sent_bytes == pytest.approx(2 * 15 / 16 * 4 * 80_000 * 4097, rel=0.001) == pytest.approx(2.46e9, rel=0.001)
    )
    assert cost.network == pytest.approx(seconds, rel=0.02)


def test_the_thesis_took_252_times_the_bound_of_an_h100():
    bound = iteration(SECOND, Machine(16, 989e12, **GPU)).arithmetic
    assert TABLE["THESIS"][1][2] / bound == pytest.approx(252, rel=0.01)


def test_sub_clusterings_that_go_on_together_cost_the_operations_of_one_and_the_bytes_of_each():
    together, one = Problem(4 * 23_000_000, 80_000, 4096, m=4), SECOND
    assert together.flop == 4 * one.flop
    assert together.reduced_bytes == 4 * one.reduced_bytes


def test_realistic_is_what_the_reference_expects_of_16_h100():
    h100 = shipped("h100")
    level2 = Problem(23_000_000, 80_000, 4096, feature_bytes=2)
    level1 = Problem(23_000_000, 4, 4096, feature_bytes=2)
    assert 1.5 < iteration(level2, machine(h100, 2, 8, level2, bf16=True)).seconds < 2
    assert iteration(level1, machine(h100, 2, 8, level1, bf16=True)).seconds < 0.1


def test_features_that_do_not_fit_come_from_the_host():
    v100, small = shipped("v100_16gb"), Problem(1_000_000, 4, 4096)
    assert machine(v100, 8, 8, small, bf16=True).feature_bytes_s == 900e9
    assert machine(v100, 8, 8, FIRST, bf16=True).feature_bytes_s == 12e9


def test_ranks_of_one_machine_share_it():
    one, two = (iteration(SECOND, machine(shipped("local"), 1, ranks, SECOND, bf16=False)) for ranks in (1, 2))
    assert one.seconds == pytest.approx(two.seconds)
    assert one.sent_bytes == 0 < two.sent_bytes


def test_the_table_in_the_documentation_is_the_models():
    text = (ROOT / "docs" / "kmeans.md").read_text()
    lines = list(TABLE["table"]((shipped("v100_32gb"), shipped("h100"))))
    assert len(lines) == 2 + 3 * 2 * 2
    assert "\n".join(lines) in text
