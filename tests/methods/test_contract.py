"""What every registered method promises, shown on its tiny recipe: an installed package's method is one of them.

A method's share of this file is planned to take 15 s on two quiet cores: the last test adds up what is run. What it
took stands at the end of `make test`.
"""

import dataclasses
import functools
import math
import re
from pathlib import Path

import in_float64
import pytest
import torch
from odd_values import odd_values

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from launcher.spec import registry

METHODS = registry.names()
EPOCHS, STEPS = 2, 4  # and steps of an epoch, as `small` has them

# -- ranks -----------------------------------------------------------------------------------------

SAME = 1e-9  # of a tensor's largest: float64 has 1e-16, and a sum of thousands a few more
# Of what is smaller, a part of this much: a gradient that is zero but for rounding, as that of a bias before batch
# normalisation, is no quantity, nor is what Adam makes of it.
SMALL = 1e-3
ROUNDING = 2.0**-50
AMPLIFIED = 100.0
# What is trained by how many ranks, in this order.
WORLDS = {2: ("whole", "early", "half", "moved"), 1: ("whole", "perturbed", "moved"), 4: ("moved",)}


def in_worlds(world, spec, folder):
    """{name: what it came to}: 2 ranks, then 1, then 4. Those of 2 also stop between their epochs, go on, and stop in
    the second one, from where each world goes on."""
    folder, found, watched = Path(folder), {}, "half" in WORLDS[world.size]
    if "whole" in WORLDS[world.size]:
        found["whole"] = in_float64.train(world, spec, folder / f"{world.size}", watched=watched)
    if "half" in WORLDS[world.size]:
        in_float64.train(world, spec, folder / "half", stop_after=STEPS - 1)  # which is a step before it stops
        found["half"] = in_float64.train(world, spec, folder / "half", stop_after=STEPS + 1, watched=True)
    if "perturbed" in WORLDS[world.size]:
        found["perturbed"] = in_float64.train(world, spec, folder / "perturbed", perturbed=ROUNDING)
    there = in_float64.copied(world, folder / "half", f"moved-{world.size}")
    return {**found, "moved": in_float64.train(world, spec, there, watched=watched)}


@pytest.fixture(scope="module")
def worlds(ranks, small, tmp_path_factory):
    """`worlds(method)`: {size: {name: Trained, with the state of all ranks}}, made once."""
    made = {}

    def train(method: str) -> dict:
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            spec, _ = resolve([*small(method), "method.checkpoint_every=1000"])
            answers = ranks(tuple(WORLDS), in_worlds, spec.to_json(), str(folder))
            made[method] = {size: {name: merged(each, name) for name in each[0]} for size, each in answers.items()}
        return made[method]

    return train


def merged(answers: list[dict], name: str) -> in_float64.Trained:
    """Rank 0's word, and the state that others have alone; what several have is the same bytes on each. What they held
    is told apart by rank."""
    state = {}
    for answer in answers:
        for key, value in answer[name].state.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(state.setdefault(key, value), value), key
            state.setdefault(key, value)
    held = {
        step: {
            f"rank {rank}: {key}": value
            for rank, each in enumerate(answers)
            for key, value in each[name].held[step].items()
        }
        for step in answers[0][name].held
    }
    return in_float64.Trained(answers[0][name].losses, state, held, answers[0][name].scalars)


def apart(one: in_float64.Trained, other: in_float64.Trained) -> dict[str, float]:
    """How far losses and tensors are apart, of their largest value; fails where a decision differs."""
    assert one.losses.keys() == other.losses.keys() and one.state.keys() == other.state.keys()
    found = {f"loss {step}": abs(loss - other.losses[step]) / abs(loss) for step, loss in one.losses.items()}
    for key, value in one.state.items():
        theirs = other.state[key]
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            largest = max([float(value.abs().max()), SMALL] if value.numel() else [1.0])
            found[key] = float((value - theirs).abs().max()) / largest if value.numel() else 0.0
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs), f"{key}: decided otherwise"
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_step_from_the_same_state_is_the_same_on_one_two_and_four_ranks(worlds, method):
    """The first steps, and the first ones after a move in the second epoch: losses to the rounding of float64."""
    made = worlds(method)
    whole = made[2]["whole"]
    assert len(whole.losses) == EPOCHS * STEPS
    assert made[1]["whole"].losses[1] == pytest.approx(whole.losses[1], rel=SAME)
    for size in (1, 4):
        losses = made[size]["moved"].losses
        assert losses.keys() == whole.losses.keys()
        moved = min(step for step in losses if step > STEPS + 2)
        assert losses[moved] == pytest.approx(whole.losses[moved], rel=SAME)


@pytest.mark.parametrize("method", METHODS)
def test_trainings_on_other_ranks_agree_as_two_that_a_rounding_sets_apart(worlds, method):
    """To the end, decisions all the same. What a training makes of a rounding is seen on one rank: Adam, which divides
    by what may itself be a rounding, makes the most of it."""
    made = worlds(method)
    one, two = made[1]["whole"], made[2]["whole"]
    allowed = SAME + AMPLIFIED * max(apart(one, made[1]["perturbed"]).values())
    assert allowed < 1e-3, "so sensitive a recipe shows nothing; use a smaller rate"
    pairs = {"1 rank": (one, two), "2 -> 1": (made[1]["moved"], two), "2 -> 4": (made[4]["moved"], two)}
    for name, (ours, theirs) in pairs.items():
        for key, distance in apart(ours, theirs).items():
            assert distance < allowed, f"{name}: {key}"


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_gone_on_with_it_is_the_same_bytes(worlds, method):
    whole, moved = worlds(method)[2]["whole"], worlds(method)[2]["moved"]
    assert whole.losses == moved.losses
    assert whole.state.keys() == moved.state.keys()
    for key, value in whole.state.items():
        same = torch.equal(value, moved.state[key]) if isinstance(value, torch.Tensor) else value == moved.state[key]
        assert same, key


@pytest.mark.parametrize("method", METHODS)
def test_nothing_that_changes_is_left_out_of_its_checkpoints(worlds, method):
    """Resumed between two epochs, and in one, a trainer holds what one holds that nobody stopped, attribute by
    attribute."""
    made = worlds(method)[2]
    assert (min(made["half"].held), min(made["moved"].held)) == (STEPS, STEPS + 2)
    for resumed in (made["half"], made["moved"]):
        assert all(len(held) > 100 for held in resumed.held.values())
        assert in_float64.left_out(made["whole"], resumed) == ([], [])


@pytest.mark.parametrize("method", METHODS)
def test_its_sizes_are_those_of_its_networks(worlds, method):
    known = registry.method(method)
    config = known.recipe("tiny").method
    sizes, replicated = known.sizes(config, 1), sum(known.outline(config).replicated.values())
    found = worlds(method)[1]["whole"].scalars
    assert (sizes.parameters, sizes.following_parameters - replicated) == (found["module"], found["follower"])


# -- one life after another ----------------------------------------------------------------------------------------


def ranks_of(method: str) -> int:
    """Two; four where a method has groups of ranks only then."""
    tiny = registry.method(method).recipe("tiny").method
    return 4 if registry.method(method).layout(tiny, 4).group_size not in (1, 4) else 2


@pytest.mark.fault
@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_it_ends_as_never_interrupted(victim, undisturbed, sslrun, small, method):
    """In its second epoch: the launcher, or one rank of several, without a word."""
    given, ranks = small(method), ranks_of(method)
    whole = sslrun.show(undisturbed(ranks, given))
    assert whole["steps"] == EPOCHS * STEPS
    run = victim(given, ranks)
    whom = "launcher" if METHODS.index(method) % 2 else ranks - 1
    # The last save before may still be under way.
    assert run.killed_after(STEPS + 3, whom=whom) in (STEPS, STEPS + 2)
    assert run.resumed_to_the_end()["state_digest"] == whole["state_digest"]


# -- plans -----------------------------------------------------------------------------------------------------------

PUBLISHED = [
    (method, recipe)
    for method in METHODS
    for recipe in registry.method(method).recipes
    if not registry.method(method).recipe(recipe).here
]


@functools.cache
def published(method: str, recipe: str):
    """(its spec on one node of eight GPUs with 32 GB, its recipe)."""
    return resolve([f"method={method}", f"recipe={recipe}", "cluster=v100_32gb"], planning=True)


@pytest.mark.parametrize("gpus", [16, 64, 256, 512])
@pytest.mark.parametrize(("method", "recipe"), PUBLISHED)
def test_each_recipe_is_sized_or_refused_with_the_numbers_of_ranks_that_fit(method, recipe, gpus):
    spec, origin = published(method, recipe)
    try:
        plan = planning.make(dataclasses.replace(spec, nodes=gpus // 8), origin)
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


@pytest.mark.parametrize(("method", "recipe"), PUBLISHED)
def test_its_memory_falls_with_the_number_of_gpus(method, recipe):
    found = []
    spec, origin = published(method, recipe)
    for nodes in (1, 2, 8, 64):
        try:
            found.append(planning.make(dataclasses.replace(spec, nodes=nodes), origin).memory_gb)
        except InputError:
            continue
    assert found and found == sorted(found, reverse=True)


@pytest.mark.parametrize(("method", "recipe"), PUBLISHED)
def test_its_parameters_are_those_of_the_network_that_it_trains(method, recipe):
    from methods import backbones

    known = registry.method(method)
    config = known.recipe(recipe).method
    with torch.device("meta"):
        kind = registry.load_trainer(method).network_type
        network = kind(backbones.build(config.backbone), known.outline(config).heads)
    assert known.sizes(config, 64).parameters == sum(parameter.numel() for parameter in network.parameters())


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_an_odd_value_of_any_field_is_refused_by_its_name_or_sized(method):
    """One line that names a field, or a plan whose figures are figures; never anything else."""
    known = registry.method(method)
    config, refused = known.recipe("tiny").method, set()
    for field, value in odd_values(config):
        odd = dataclasses.replace(config, **{field: value})
        try:
            known.validate(odd, 304)
            known.layout(odd, 2)
            sizes = known.sizes(odd, 2)
        except InputError as error:
            line = str(error)
            assert "\n" not in line and re.search(r"method\.\w+=|nodes x tasks_per_node=|data", line), line
            refused.add(field)
            continue
        within = value if isinstance(value, list | tuple) else [value]
        assert not any(isinstance(each, float) and math.isnan(each) for each in within), f"{field}={value} passed"
        for name, figure in vars(sizes).items():
            if isinstance(figure, (int, float)):
                assert math.isfinite(figure) and figure >= 0, f"{field}={value}: {name}={figure}"
    assert len(refused) > 20, sorted(refused)


# -- the budget ------------------------------------------------------------------------------------------------------

BUDGET_S, CORES = 15.0, 2
# CPU seconds of a rank, rounded up: of a training in process, of one behind the command line with its evaluation, and
# of a step beside its arithmetic; and the float64 and float32 arithmetic that a core does in a second.
IN_PROCESS_S, LAUNCHED_S, STEP_S, FLOAT64, FLOAT32 = 0.4, 1.5, 0.02, 4e9, 8e9


@pytest.mark.parametrize("method", METHODS)
def test_what_is_run_of_a_method_fits_its_budget(method):
    """Of the plan of this file, not of the time that it took: a recipe that is too large for it is no tiny one."""
    known = registry.method(method)
    config = known.recipe("tiny").method
    arithmetic = known.sizes(config, 1).flops_per_image * config.global_batch
    whole, early, half = EPOCHS * STEPS, STEPS, STEPS + 2
    steps = {"whole": whole, "early": early, "half": half - early, "perturbed": whole, "moved": whole - half}
    plan = [(size, IN_PROCESS_S, steps[name], FLOAT64) for size, names in WORLDS.items() for name in names]
    # Uninterrupted, killed in its second epoch, and the rest of that.
    plan += [(ranks_of(method), LAUNCHED_S, count, FLOAT32) for count in (whole, STEPS + 3, STEPS)]
    seconds = sum(size * (start + count * STEP_S) + count * arithmetic / flops for size, start, count, flops in plan)
    assert seconds / CORES < BUDGET_S, f"{seconds:.0f} CPU seconds; a step is {arithmetic / 1e9:.2f} GFLOP"
