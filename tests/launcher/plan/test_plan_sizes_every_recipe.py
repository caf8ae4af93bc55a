"""Every published recipe of every method is sized for 16, 64 and 512 GPUs, or refused with the sizes that work."""

import re

import pytest

from launcher import plan as planning
from launcher import registry
from launcher.compose import resolve
from launcher.errors import InputError

PUBLISHED = [
    (method, recipe)
    for method in registry.names()
    for recipe in registry.method(method).recipes
    if recipe not in ("demo", "tiny")
]


@pytest.mark.parametrize("gpus", [16, 64, 512])
@pytest.mark.parametrize(("method", "recipe"), PUBLISHED)
def test_it_says_memory_disk_and_hours_or_what_would_fit(method, recipe, gpus):
    wanted = [f"method={method}", f"recipe={recipe}", f"nodes={gpus // 8}", "cluster=v100_32gb"]
    try:
        plan = planning.make(*resolve(wanted, planning=True))
    except InputError as refused:
        fits = [int(n) for n in re.search(r"use ([\d, ]+) ranks", str(refused))[1].split(", ")]
        assert gpus not in fits and max(fits) >= 4
        return
    said = plan.to_json()
    batch = registry.method(method).recipe(recipe).method.global_batch
    assert said["world_size"] == gpus and said["global_batch"] == batch
    assert said["per_gpu_batch"] * said["accumulation"] * gpus == batch
    assert said["hours"] > 0 and said["disk_gb"] > 0
    # 32 GB a GPU: what was sized for more of them says so.
    assert (said["memory_gb"] > 32) == ("GB a GPU do not fit its 32 GB" in (said["waste"] or ""))
    assert "activations" in said["why"]["memory_gb"]


def test_memory_falls_with_the_number_of_gpus():
    for method, recipe in PUBLISHED:
        found = []
        for nodes in (1, 2, 8, 64):
            try:
                spec = resolve(
                    [f"method={method}", f"recipe={recipe}", f"nodes={nodes}", "cluster=generic"], planning=True
                )
                found.append(planning.make(*spec).to_json()["memory_gb"])
            except InputError:
                continue
        assert found and found == sorted(found, reverse=True), (method, recipe)
