"""The counts of a range of nodes on which a run can be laid out, and that each of them can go on from any other."""

import dataclasses

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import worlds
from launcher.spec import registry
from launcher.spec.runspec import freeze

SIZES = [factor * 2**power for factor in (1, 3) for power in range(10)]  # worlds, of which each method takes some


def spec_of(*overrides, method="swav"):
    return resolve([f"method={method}", "cluster=generic", *overrides], planning=True)[0]


@pytest.mark.parametrize(
    ("words", "found", "asked"),
    [
        (["nodes=4-8"], (8, 4), (4, 8)),
        (["nodes=3-8", "cluster.spare_nodes=1"], (8, 4), (5, 9)),
        (["nodes=5-15"], (8,), (8, 8)),
        (["nodes=4-16", "tasks_per_node=1"], (16, 8), (8, 16)),
        (["nodes=8", "cluster.spare_nodes=2"], (8,), (10, 10)),
    ],
)
def test_the_counts_that_fit_the_largest_first_and_what_a_job_asks_for(words, found, asked):
    spec = spec_of(*words)
    assert (worlds.counts(spec), worlds.asked(spec)) == (found, asked)


@pytest.mark.parametrize("nodes", ["5-7", "9-15", "600-700"])
def test_a_range_in_which_none_fits_is_refused_with_the_counts_that_do(nodes):
    with pytest.raises(InputError) as refused:
        worlds.counts(spec_of(f"nodes={nodes}"))
    line = str(refused.value)
    assert line.startswith(f"nodes={nodes}: none of these x 8 tasks a node")
    assert line.endswith("use nodes=1, 2, 4, 8, 16, 32, 64, 128, 256, 512")


def test_one_count_that_does_not_fit_is_refused_as_ever():
    with pytest.raises(InputError, match="nodes x tasks_per_node=24"):
        worlds.counts(spec_of("nodes=3"))


@pytest.mark.parametrize("work", ["kmeans", "weights"])
def test_what_trains_nothing_runs_on_any_count(work):
    ranged = spec_of("nodes=3-5", "cluster.spare_nodes=1")
    spec = dataclasses.replace(ranged, method=freeze(registry.method(work).config()))
    assert (worlds.counts(spec), worlds.asked(spec)) == ((5, 4, 3), (4, 6))


@pytest.mark.parametrize("method", registry.names())
def test_every_world_that_fits_holds_the_same_files_of_a_checkpoint(method):
    """The other half, that what is in them goes on as it was, each method shows on 1, 2 and 4 ranks (test_contract)."""
    from methods.deepercluster.targets import hosted_groups
    from methods.parts.layout import memory_parts

    config = spec_of(method=method).method
    outline, fitting = registry.method(method).outline(config), []
    for size in SIZES:
        try:
            layout = registry.method(method).layout(config, size)
        except InputError:
            continue
        fitting.append(size)
        if any(outline.remembered.values()):
            assert memory_parts(config.global_batch) % size == 0
        if layout.groups > 1:
            held = {group for rank in range(size) for group in hosted_groups(rank, size, layout.groups)}
            assert held == set(range(layout.groups))
    assert len(fitting) > 5
