"""Trainings of 1, 2 and 4 ranks beside Algorithm 1 of He et al. 2020, in float64, on the whole batch of each step.

The reference shares the layers of the backbone with the trainer, and of what it draws the first weights, the first
queue, the crops and the orders of the keys; all else is written out: groups of batch statistics, head, Eqs. 1 and 2,
the optimiser and the queue.
"""

import copy
import dataclasses
from pathlib import Path

import in_float64
import pytest
import torch

from launcher.compose.training import resolve
from methods import backbones
from methods.mocov2 import trainer as trained
from methods.mocov2.spec import outline
from methods.mocov2.trainer import MoCoV2

STEPS, IMAGES, RATE, DECAY, M, TAU = 4, 32, 0.02, 0.01, 0.7, 0.2
FIXED = (
    "method.schedule=constant", "method.warmup_epochs=0", f"method.lr={RATE}", f"method.weight_decay={DECAY}",
    f"method.encoder_momentum={M}", f"method.temperature={TAU}", "method.final_weight_decay=null",
    "method.checkpoint_every=1000", "method.epochs=1", f"data.images={STEPS * IMAGES}",
)  # fmt: skip
AS_VIT = ("method.backbone=small_vit", "method.head_batch_norm=true", "method.optimizer=adamw", "method.lr=0.001")
# Where two images are nearly alike, statistics of both enlarge a rounding, up to 1000 times with each step.
FOUR = ("method.global_batch=4", "method.queue=8", "method.local_crops=0", "method.lr=0.0001")
CASES = {  # what is set, and on how many ranks
    "one group": ((), (1, 2, 4)),
    "groups": (("method.batch_norm_group=16", "method.queue=64"), (2, 4)),
    "groups as they come": (("method.batch_norm_group=16", "method.shuffle=false"), (2,)),
    "a queue of one batch": (("method.queue=32", "method.local_crops=0"), (2,)),
    "one image a rank": ((*FOUR, "method.batch_norm_group=2"), (4,)),
    "a transformer": ((*AS_VIT, "method.batch_norm_group=16"), (2,)),  # images meet in its head alone
}
MIXED = {"groups", "one image a rank", "a transformer"}  # whose keys are


@dataclasses.dataclass
class Seen:
    """By one rank: the state before the first step, each step's crops, and in which orders rows were exchanged."""

    before: dict = dataclasses.field(default_factory=dict)
    crops: list = dataclasses.field(default_factory=list)
    orders: list = dataclasses.field(default_factory=list)


def in_a_world(world, folder, specs):
    """{case: (what a rank saw, what its training came to)}"""
    return {
        case: noted(world, spec, Path(folder) / f"{case} {world.size}")
        for case, spec in specs.items()
        if world.size in CASES[case][1]
    }


def noted(world, spec, folder):
    seen = Seen()

    class Noted(MoCoV2):
        def __init__(self, job):
            super().__init__(job)
            encoders = {"f_q": self.module.state_dict(), "f_k": self.follower.state_dict()}
            seen.before = copy.deepcopy({**encoders, "queue": self.queue.keys()})

        def crops(self, batch):
            seen.crops.append(super().crops(batch))
            return seen.crops[-1]

    exchange = trained.permute_over_ranks
    trained.permute_over_ranks = lambda x, order: (seen.orders.append(order), exchange(x, order))[1]
    try:
        found = in_float64.train(world, spec, folder, trainer=Noted, stop_after=STEPS)  # or a step later
    finally:
        trained.permute_over_ranks = exchange
    return dataclasses.asdict(seen), dataclasses.asdict(found)


@pytest.fixture(scope="module")
def told(ranks, small, tmp_path_factory):
    """{size: [{case: ...} of each rank]}"""
    specs = {case: spec.to_json() for case, spec in specs_of(small).items()}
    return ranks((1, 2, 4), in_a_world, str(tmp_path_factory.mktemp("runs")), specs)


@pytest.fixture(scope="module")
def configs(small):
    return {case: spec.method for case, spec in specs_of(small).items()}


def specs_of(small):
    return {case: resolve([*small("mocov2"), *FIXED, *sets])[0] for case, (sets, _) in CASES.items()}


def encoder(config, state):
    network = trained.Network(backbones.build(config.backbone), outline(config).heads)
    network.load_state_dict(state)
    return network


class Reference:
    def __init__(self, config, before):
        self.f_q, self.f_k = (encoder(config, before[name]) for name in ("f_q", "f_k"))
        self.config, self.images, self.queue = config, config.global_batch, before["queue"].clone()
        self.group = config.batch_norm_group or self.images
        self.oldest, self.steps, self.moving, self.squares = 0, 0, {}, {}

    def embed(self, network, resolutions):
        """Unit vectors [sum V_i B, d]; images next to each other share statistics, all their crops of a resolution."""
        groups = []
        split = [x.unflatten(0, (-1, self.images)).split(self.group, dim=1) for x in resolutions]
        for part in zip(*split, strict=True):
            x = self.project(network.projection, torch.cat([network.backbone(some.flatten(0, 1)) for some in part]))
            groups.append(x.unflatten(0, (-1, self.group)))
        x = torch.cat(groups, dim=1).flatten(0, 1)
        return x / x.square().sum(1, keepdim=True).sqrt()

    def project(self, head, x):
        first, *normalisation, _, last = head
        x = x @ first.weight.T + (0 if normalisation else first.bias)
        for each in normalisation:
            x = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() * each.weight + each.bias
        return x.clamp(min=0) @ last.weight.T + last.bias

    def step(self, resolutions, order):
        large, *small = resolutions
        with torch.no_grad():  # Eq. 2, and then the keys
            for slow, fast in zip(self.f_k.parameters(), self.f_q.parameters(), strict=True):
                slow.copy_(M * slow + (1 - M) * fast)
            keys = torch.empty_like(self.queue[: self.images])
            keys[order] = self.embed(self.f_k, [large[self.images :][order]])
        queries = self.embed(self.f_q, [large[: self.images], *small])
        losses = []
        for number, q in enumerate(queries):
            scores = torch.cat([(keys[number % self.images] @ q).view(1), self.queue @ q]) / TAU
            losses.append(scores.exp().sum().log() - scores[0])  # Eq. 1
        loss = sum(losses) / len(losses)
        named = dict(self.f_q.named_parameters())
        with torch.no_grad():
            self.steps += 1
            for (name, p), g in zip(named.items(), torch.autograd.grad(loss, named.values()), strict=True):
                (self.adamw if self.config.optimizer == "adamw" else self.sgd)(name, p, g)
        self.queue[self.oldest : self.oldest + self.images] = keys
        self.oldest = (self.oldest + self.images) % len(self.queue)
        return loss.item()

    def sgd(self, name, p, g):
        self.moving[name] = 0.9 * self.moving.get(name, 0) + g + DECAY * p
        p -= self.config.lr * self.moving[name]

    def adamw(self, name, p, g):
        """Loshchilov & Hutter 2019, Algorithm 2, where what has one dimension does not decay."""
        self.moving[name] = 0.9 * self.moving.get(name, 0) + 0.1 * g
        self.squares[name] = 0.999 * self.squares.get(name, 0) + 0.001 * g**2
        mean, square = self.moving[name] / (1 - 0.9**self.steps), self.squares[name] / (1 - 0.999**self.steps)
        p *= 1 - self.config.lr * DECAY * (p.ndim > 1)
        p -= self.config.lr * mean / (square.sqrt() + 1e-8)


def whole(answers, case, step):
    """The crops of all ranks, in order of rank, view by view."""
    each = [answer[case][0]["crops"][step] for answer in answers]
    own = len(each[0][0]) // 2  # of two global crops each
    return [torch.cat([x.unflatten(0, (-1, own)) for x in parts], 1).flatten(0, 1) for parts in zip(*each, strict=True)]


RUNS = [(case, size) for case, (_, sizes) in CASES.items() for size in sizes]


@pytest.mark.parametrize(("case", "size"), RUNS)
def test_losses_encoders_and_queue_are_those_of_the_algorithm(float64, told, configs, case, size):
    answers = told[size]
    seen, found = answers[0][case]
    reference, slack = Reference(configs[case], seen["before"]), 1000 if case == "one image a rank" else 1
    for step in range(len(seen["crops"])):
        order = seen["orders"][2 * step] if seen["orders"] else torch.arange(reference.images)
        assert found["losses"][step + 1] == pytest.approx(
            reference.step(whole(answers, case, step), order), rel=slack * 1e-9
        )
    for answer in answers:
        state = answer[case][1]["state"]
        torch.testing.assert_close(state["queue/rows"], reference.queue, rtol=slack * 1e-7, atol=slack * 1e-9)
        for name, network in (("network", reference.f_q), ("follower", reference.f_k)):
            for key, value in network.named_parameters():
                torch.testing.assert_close(
                    state[f"{name}/{key}"], value.detach(), rtol=slack * 1e-6, atol=max(1e-8, slack * 1e-9), msg=key
                )


def test_keys_are_mixed_anew_in_each_step_and_alike_on_any_number_of_ranks(told):
    orders = [answer["groups"][0]["orders"] for size in (2, 4) for answer in told[size]]
    for step in range(STEPS):
        out, back = orders[0][2 * step : 2 * step + 2]
        assert torch.equal(out.sort().values, torch.arange(IMAGES)) and torch.equal(out[back], torch.arange(IMAGES))
        assert all(torch.equal(each[2 * step], out) for each in orders)
    assert len({tuple(out.tolist()) for out in orders[0][::2]}) == STEPS
    assert {len(each) for each in orders} == {2 * STEPS}


def test_nothing_is_exchanged_where_all_images_share_their_statistics(told):
    for size, answers in told.items():
        for case in answers[0]:
            assert bool(answers[0][case][0]["orders"]) == (case in MIXED), (case, size)


def test_two_and_four_ranks_with_the_same_groups_agree(told):
    two, four = told[2][0]["groups"][1], told[4][0]["groups"][1]
    assert two["losses"] == pytest.approx(four["losses"], rel=1e-9)
    torch.testing.assert_close(two["state"]["queue/rows"], four["state"]["queue/rows"], rtol=1e-7, atol=1e-9)


def test_batch_statistics_are_the_momentum_encoders_own(told):
    state = told[1][0]["one group"][1]["state"]
    names = [key.removeprefix("network/") for key in state if key.startswith("network/") and "running_mean" in key]
    assert names
    for name in names:
        own = state[f"follower/{name}"]
        assert own.any() and (own - state[f"network/{name}"]).abs().max() > 1e-6
