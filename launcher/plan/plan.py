"""(spec, recipe) -> Plan: how the run lies on the cluster, what it takes, and why. Pure: computes, touches nothing."""

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from launcher.durations import rough
from launcher.plan import cost, layouts, rates, script, worlds
from launcher.plan.layouts import OnNodes
from launcher.plan.rates import Reached
from launcher.spec import registry
from launcher.spec.contract import Layout, Recipe, Sizes
from launcher.spec.planned import Planned
from launcher.spec.runspec import RunSpec
from launcher.spec.schema import TrainConfig

LEAST_STEPS = 10  # between two saves
NEARLY = 0.05  # by which hours may differ and are the same to whoever plans


@dataclass(frozen=True)
class CommunicationGroups:
    """Communication groups: how many, and ranks in each."""

    count: int
    size: int


@dataclass(frozen=True)
class Plan(Planned):
    """Of a training: the JSON of `sslrun plan`. GB are 1e9 bytes; hours are wall-clock without waiting in the queue.
    Of a range of nodes all numbers are for the largest count that fits, and `layouts` has every one."""

    method: str
    recipe: str
    run: str
    cluster: str
    nodes: int
    gpus_per_node: int
    world_size: int
    per_gpu_batch: int
    accumulation: int
    global_batch: int
    lr: float
    groups: CommunicationGroups
    groups_per_rank: int
    batch_norm_ranks: int
    cpus_per_task: int
    steps: int
    checkpoint_every: int
    save_seconds: float
    signal_delay_s: int
    timeout_min: int
    memory_gb: float
    host_memory_gb: float  # a node
    disk_gb: float
    hours: float
    hours_assumed: bool  # nobody measured the recipe, nor the method's `paper`, on such a device
    hours_published: tuple[float, float] | None  # then: at the lowest and highest rate published of such networks
    gpu_hours: float  # of the GPUs that train
    spare_nodes: int
    spare_gpu_hours: float  # held idle beside those
    layouts: tuple[OnNodes, ...]  # on each count of nodes that fits, the largest first
    sbatch: str | None
    waste: str | None
    variant: tuple[str, ...]
    warnings: tuple[str, ...]
    why: dict[str, str]

    @property
    def reckoned_gpu_hours(self) -> float:
        """Those to reckon with. A run that nobody timed counts at the lowest published rate of such networks, where
        there is one: beside runs that were, the share of the peak that a cluster assumes makes it cost too little."""
        return self.hours_published[1] * self.world_size if self.at_lowest_rate else self.gpu_hours

    @property
    def at_lowest_rate(self) -> bool:
        """Whether it is reckoned so."""
        return bool(self.hours_published and self.gpus_per_node)


@dataclass(frozen=True)
class _Times:
    """Seconds, and what they rest on."""

    step: float
    all_reduce: float
    features: float  # a round
    kmeans: float  # a round
    kmeans_gb: float  # that a rank sends in it
    labels: float  # a round
    save: float
    every: int  # steps between saves
    mtbf: float

    @property
    def per_step(self) -> float:
        """The gradients travel while the backward pass goes on."""
        return max(self.step, self.all_reduce)

    def whole(self, steps: int, rounds: int) -> float:
        """Of a run of so many steps and rounds of clustering."""
        saves = steps / self.every * self.save
        return steps * self.per_step + rounds * (self.features + self.kmeans + self.labels) + saves


def make(spec: RunSpec, recipe: Recipe) -> Plan:
    """Size the job. The number of images is the data's where its config tells, the recipe's own otherwise.

    Raises InputError when the method cannot be laid out on this world, or on none of a range, naming the sizes that
    work, and when the cluster's figures cannot be or its queue's cannot stand in a batch script.
    """
    cluster = spec.cluster
    cluster.validate()
    slurm = cluster.kind == "slurm"
    if slurm:
        script.gpus_per_node(spec)
    plans = [_on(spec.on(nodes), recipe) for nodes in worlds.counts(spec)]
    largest, laid_out = plans[0], tuple(map(layouts.of, plans))
    return replace(
        largest,
        spare_nodes=cluster.spare_nodes,
        spare_gpu_hours=round(layouts.spare_gpu_hours(spec, laid_out[0].hours), 3),
        layouts=laid_out,
        sbatch=script.of(spec, largest.signal_delay_s) if slurm else None,
        warnings=(*largest.warnings, *layouts.remarks(spec, laid_out)),
        why={**largest.why, **layouts.why(spec, laid_out)},
    )


def _on(spec: RunSpec, recipe: Recipe) -> Plan:
    """On exactly `spec.nodes`, without what is said of the whole range."""
    cluster, world = spec.cluster, spec.world_size
    method = registry.method(spec.method.name)
    layout, sizes = method.layout(spec.method, world), method.sizes(spec.method, world)
    known = getattr(spec.data, "images", None)
    images = known or recipe.images
    sizes = replace(sizes, remembered=sizes.remembered + int(sizes.banked * images))
    begun = spec.continue_from
    per_epoch = begun.step // begun.epochs if begun else images // spec.method.global_batch
    steps = per_epoch * spec.method.epochs
    left = 1 - begun.step / steps if begun else 1
    reached = rates.reached(spec, recipe)
    times = _times(spec, layout, sizes, images, steps, reached.share)
    memory = cost.memory(sizes, layout, spec.method.precision, gpu=bool(cluster.gpus_per_node))
    host = cost.host_memory(sizes, images, spec.nodes, spec.tasks_per_node, spec.method.workers)
    rounds = sizes.rounds.count if sizes.rounds else 0
    seconds = left * times.whole(steps, rounds)
    at_shares = [_times(spec, layout, sizes, images, steps, share) for share in reversed(reached.span or ())]
    published = tuple(left * other.whole(steps, rounds) / 3600 for other in at_shares)
    delay = cluster.signal_delay_s or cost.signal_delay(times.save, cluster.timeout_min)
    waste = layout.waste
    if cluster.gpus_per_node and memory.total > cluster.gpu_mem_gb:
        short = f"{memory.total:.0f} GB a GPU do not fit its {cluster.gpu_mem_gb:.0f} GB; use more ranks"
        waste = f"{waste}; {short}" if waste else short
    return Plan(
        method=spec.method.name,
        recipe=spec.recipe,
        run=spec.run_id,
        cluster=cluster.name,
        nodes=spec.nodes,
        gpus_per_node=cluster.gpus_per_node,
        world_size=world,
        per_gpu_batch=layout.per_gpu_batch,
        accumulation=layout.accumulation,
        global_batch=spec.method.global_batch,
        lr=spec.method.lr,
        groups=CommunicationGroups(layout.groups, layout.group_size),
        groups_per_rank=layout.groups_per_rank,
        batch_norm_ranks=layout.batch_norm_ranks,
        cpus_per_task=script.cpus_per_task(spec),
        steps=steps,
        checkpoint_every=times.every,
        save_seconds=round(times.save, 3),
        signal_delay_s=delay,
        timeout_min=cluster.timeout_min,
        memory_gb=round(memory.total, 3),
        host_memory_gb=round(host.total, 1),
        disk_gb=round(sum(cost.checkpoint_gb(sizes)), 3),
        hours=round(seconds / 3600, 4),
        hours_assumed=reached.assumed,
        hours_published=(round(min(published), 4), round(max(published), 4)) if published else None,
        gpu_hours=round(seconds / 3600 * world, 3) if cluster.gpus_per_node else 0.0,
        spare_nodes=0,
        spare_gpu_hours=0.0,
        layouts=(),
        sbatch=None,
        waste=waste,
        variant=layout.variant,
        warnings=tuple(_warnings(spec, times, host, delay)),
        why={
            **_why_science(spec, recipe, steps, known),
            **sizes.why,
            **layout.why,
            **_why_resources(spec, sizes, memory, host),
            **_why_times(spec, sizes, times, seconds, delay, _why_rate(spec, reached, published, seconds / 3600)),
        },
    )


def _times(spec: RunSpec, layout: Layout, sizes: Sizes, images: int, steps: int, share: float) -> _Times:
    """share: of the peak that is reached."""
    cluster, config = spec.cluster, spec.method
    tflops = share * cost.peak_tflops(cluster, config.precision, spec.tasks_per_node)
    step = cost.step_seconds(sizes, config.global_batch / spec.world_size, tflops)
    reduce = cost.all_reduce_seconds(sizes, layout, spec.nodes, spec.tasks_per_node, cluster)
    features, kmeans, kmeans_gb, labels = 0.0, 0.0, 0.0, 0.0
    if sizes.rounds:
        features = cost.features_seconds(sizes.rounds, images, spec.world_size, tflops)
        job = images, spec.nodes, spec.tasks_per_node, cluster
        kmeans, kmeans_gb = cost.kmeans_seconds(sizes.rounds, *job)
        labels = cost.labels_seconds(sizes.rounds, *job)
    save = sum(cost.checkpoint_gb(sizes)) / cluster.disk_gb_s
    interval, mtbf = cost.save_interval(save, spec.nodes, cluster)
    every = config.checkpoint_every or min(max(LEAST_STEPS, int(interval / max(step, reduce))), max(1, steps))
    return _Times(step, reduce, features, kmeans, kmeans_gb, labels, save, every, mtbf)


def _warnings(spec: RunSpec, times: _Times, host: cost.HostMemory, delay: int) -> list[str]:
    """What will go on, but not as one would wish."""
    cluster, config = spec.cluster, spec.method
    warnings = []
    if cluster.kind != "slurm":
        return warnings
    if cluster.preemptible and times.save + times.per_step > cluster.grace_s:
        lost = rough(times.every * times.per_step)
        warnings.append(
            f"a save takes about {times.save:.0f} s and a preemption leaves {cluster.grace_s} s (cluster.grace_s): "
            f"each may lose up to {lost} of work; ask for a longer GraceTime, or set method.checkpoint_every"
        )
    if times.save > delay:
        warnings.append(
            f"a save takes about {times.save:.0f} s and the time limit leaves {delay} s (signal_delay_s): each job may "
            f"lose up to {rough(times.every * times.per_step)} of work; use a longer cluster.timeout_min"
        )
    if cluster.gpus_per_node and config.precision == "bf16" and not cluster.bf16:
        warnings.append(
            f"method.precision=bf16: the GPUs of {cluster.name} are fast in fp16 alone; "
            "method.precision=fp16 is several times as fast, and a new run"
        )
    asked = script.asked_memory_gb(spec)
    needed = f"a node needs about {host.total:.0f} GB of host memory"
    if host.total > cluster.host_mem_gb:
        warnings.append(f"{needed} and has cluster.host_mem_gb={cluster.host_mem_gb:g}; use more nodes")
    elif asked and host.total > asked:
        warnings.append(f"{needed} and the job asks for {asked:.0f}; raise it, or cluster.mem_gb=0 for all of it")
    return warnings


def _why_science(spec: RunSpec, recipe: Recipe, steps: int, known: int | None) -> dict[str, str]:
    config = spec.method
    given = {name for name, value in vars(recipe.method).items() if _changed(value, getattr(config, name))}
    as_published = not given and spec.data.name == recipe.data.name
    images = known or recipe.images
    counted = (
        f"{images:,} images ({'the data' if known else 'the recipe'}) / {config.global_batch} x {config.epochs} epochs"
    )
    if begun := spec.continue_from:
        counted = (
            f"{steps // config.epochs:,} x {config.epochs} epochs; the first {begun.step:,} are those of {begun.run}"
        )
        counted += "" if config.schedule == "constant" else f"; the {config.schedule} is stretched over all {steps:,}"
    return {
        "global_batch": ("given" if "global_batch" in given else f"the recipe's ({recipe.source})")
        + "; it stays when the number of nodes changes",
        "lr": f"{_why_lr(config, recipe.method, given)}; {config.schedule}",
        "steps": counted,
        "expect": recipe.expect if as_published else "the recipe or its data were changed: unknown",
    }


def _why_lr(config: TrainConfig, recipes: TrainConfig, given: Collection[str]) -> str:
    """given: names of the fields that are not the recipe's."""
    if "lr" in given:
        return f"given, for a global batch of {config.global_batch}"
    if "global_batch" not in given:
        return f"the recipe's, for a global batch of {config.global_batch}"
    scaled = recipes.lr * config.global_batch / recipes.global_batch
    return (
        f"the recipe's, for its global batch of {recipes.global_batch} and not for {config.global_batch}: "
        f"in proportion it would be method.lr={scaled:g}"
    )


def _why_resources(spec: RunSpec, sizes: Sizes, memory: cost.MemoryCost, host: cost.HostMemory) -> dict[str, str]:
    cluster = spec.cluster
    shared_gb, sharded_gb = cost.checkpoint_gb(sizes)
    cpus = f"{cluster.cpus_per_node} CPUs a node / {max(spec.tasks_per_node, cluster.gpus_per_node)}"
    features = f"features of its images until they are clustered {host.features:.0f}, " if host.features else ""
    parts = "sub-classifiers and the like" if sizes.sharded_parameters else "features of earlier batches"
    asked = script.asked_memory_gb(spec)
    asks = f"the job asks for {asked:.0f}" if asked else "it asks for all" if cluster.mem_gb == 0 else "not asked for"
    return {
        "world_size": f"nodes={spec.nodes} x {spec.tasks_per_node} tasks a node on cluster {cluster.name}",
        "cpus_per_task": "given" if cluster.cpus_per_task or cluster.cpus_per_gpu else cpus,
        "memory_gb": _why_memory(memory, cluster.gpus_per_node, spec.method.precision),
        "host_memory_gb": f"a node: {features}processes {host.processes:.0f} (assumed); {asks}",
        "disk_gb": f"one checkpoint: network {shared_gb:.2f}"
        + (f", {parts} {sharded_gb:.2f}" if sharded_gb else "")
        + f"; {spec.method.keep_checkpoints} are kept",
    }


def _why_memory(memory: cost.MemoryCost, gpus: int, precision: str) -> str:
    parts = f"weights {memory.weights:.2f}, gradients {memory.gradients:.2f}, optimiser {memory.optimiser:.2f}"
    parts += f", held beside them {memory.held:.2f}" if memory.held else ""
    parts += f", weights in {precision} {memory.copies:.2f}" if memory.copies else ""
    parts += f", activations {memory.activations:.2f}"
    if not gpus:
        return f"a process: {parts} (model, not measured)"
    return (
        f"a GPU: {parts}, workspace and fragmentation {memory.workspace:.2f} ({cost.WORKSPACE:.0%} of the activations, "
        f"calibrated on thesis Tables 4.4 and 5.14), CUDA {memory.context:.2f} (model, not measured)"
    )


def _why_rate(spec: RunSpec, reached: Reached, published: Sequence[float], hours: float) -> str:
    """published: hours of the run at both ends of the span. hours: those of the plan."""
    if not reached.assumed:
        return reached.source
    if reached.span is None:
        device = f"{spec.method.precision} on a {'GPU' if spec.cluster.gpus_per_node else 'CPU'}"
        return f"{reached.source} (of such networks no rate in {device} is published)"
    if all(math.isclose(other, hours, rel_tol=NEARLY) for other in published):
        return f"{reached.source} (as published rates of such networks have it)"
    ends = (f"{share:.1%}" for share in reached.span)
    takes = (rough(3600 * other) for other in published)
    return (
        f"{reached.source} (published rates of such networks reach {_to(*ends)} of it, which would make the whole run "
        f"{_to(*takes)})"
    )


def _to(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _in_words(each: Iterable[str]) -> str:
    """One after the other; those that are alike are counted."""
    counted = ((len(list(alike)), what) for what, alike in itertools.groupby(each))
    return ", then ".join(f"{count} times {what}" if count > 1 else what for count, what in counted)


def _why_times(spec: RunSpec, sizes: Sizes, times: _Times, seconds: float, delay: int, rate: str) -> dict[str, str]:
    cluster, rounds = spec.cluster, sizes.rounds
    often = f"one interruption in {rough(times.mtbf)}" if times.mtbf < math.inf else "no interruption expected"
    hours = [f"{times.per_step:.3g} s a step: arithmetic {times.step:.3g}, {rate}"]
    if times.all_reduce:
        hours.append(f"beside it all-reduce {times.all_reduce:.3g}")
    share = f"{cost.kmeans_share(cluster):.0%} of the fp32 peak, assumed"
    if rounds and rounds.clusterings:
        clusterings = _in_words(f"{c.iterations} iterations into {c.m * c.k:,}" for c in rounds.clusterings)
        hours.append(
            f"{rounds.count} rounds of features {rough(times.features)} and k-means {rough(times.kmeans)} "
            f"({clusterings}; a rank sends {times.kmeans_gb:.3g} GB; {share})"
        )
    elif rounds:
        hours.append(
            f"{rounds.count} rounds of features {rough(times.features)} and labels {rough(times.labels)} "
            f"({share}, and what moves through memory)"
        )
    hours.append("without data loading and evaluation (model, not measured)")
    jobs = math.ceil(seconds / max(1, 60 * cluster.timeout_min - delay))
    interval = f"a save takes about {times.save:.2g} s, {often}: sqrt(2 x save x that) (Young, Daly), an hour at most"
    return {
        "checkpoint_every": "given" if spec.method.checkpoint_every else interval,
        "hours": "; ".join(hours),
        "timeout_min": f"{jobs} jobs of this length, each going on from the last checkpoint"
        if jobs > 1
        else "one job is enough",
        "signal_delay_s": "given" if cluster.signal_delay_s else "before the time limit: three saves and some slack",
    }


def _changed(recipes: Any, given: Any) -> bool:
    return (list(given) if isinstance(given, tuple) else given) != recipes
