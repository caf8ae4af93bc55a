"""The demo recipes learn something; minutes each, so in `make test-full` only."""

import statistics

import pytest

from benchmarks import demo
from launcher.spec import registry


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in registry.names() if "demo" in registry.method(name).recipes])
def test_a_demo_beats_the_untrained_network_clear_of_the_spread(tmp_path, method):
    seeds = [demo.measured(method, seed, str(tmp_path)) for seed in demo.SEEDS]
    assert demo.verdict(method, seeds).endswith("convincing"), seeds
    gains = [each.trained - each.untrained for each in seeds]
    assert statistics.mean(gains) >= max(2 * statistics.stdev(gains), 10), seeds
