"""The demo recipes learn something; minutes, so in `make test-full` only."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SSLRUN = Path(sys.executable).with_name("sslrun")


def knn(method: str, seed: int, runs: Path) -> dict[str, float]:
    launch = [SSLRUN, f"method={method}", "recipe=demo", f"seed={seed}", f"runs={runs}", "--json"]
    answer = subprocess.run(launch, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    show = [SSLRUN, "show", json.loads(answer)["id"], f"runs={runs}", "--json"]
    return json.loads(subprocess.run(show, capture_output=True, text=True, check=True).stdout)["evals"]["knn"]


@pytest.mark.slow
def test_deepercluster_beats_the_untrained_network_by_15_points(tmp_path):
    scores = [knn("deepercluster", seed, tmp_path) for seed in (0, 1, 2)]
    gains = [s["trained"] - s["untrained"] for s in scores]
    assert statistics.mean(gains) >= 15, scores
    assert all(s["trained"] > s["raw_pixels"] + 15 for s in scores)
    harder = [s["trained"] - s["untrained_adapted"] for s in scores]
    assert statistics.mean(harder) - 2 * statistics.stdev(harder) > 0, scores


@pytest.mark.slow
@pytest.mark.parametrize("method", ["smog", "swav"])
def test_a_method_of_views_beats_the_untrained_network_by_10_points(tmp_path, method):
    scores = [knn(method, seed, tmp_path) for seed in (0, 1, 2)]
    gains = [s["trained"] - s["untrained"] for s in scores]
    assert statistics.mean(gains) >= 10 and statistics.mean(gains) - 2 * statistics.stdev(gains) > 0, scores


@pytest.mark.slow
def test_dino_beats_the_untrained_network_by_10_points(tmp_path):
    scores = [knn("dino", seed, tmp_path) for seed in (0, 1, 2)]
    gains = [s["trained"] - s["untrained"] for s in scores]
    assert statistics.mean(gains) >= 10 and statistics.mean(gains) - 2 * statistics.stdev(gains) > 0, scores


@pytest.mark.slow
def test_rotnet_beats_the_untrained_network_clear_of_the_spread(tmp_path):
    scores = [knn("rotnet", seed, tmp_path) for seed in (0, 1, 2)]
    gains = [s["trained"] - s["untrained"] for s in scores]
    assert statistics.mean(gains) - 2 * statistics.stdev(gains) > 0, scores
