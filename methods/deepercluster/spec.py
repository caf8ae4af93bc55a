"""DeeperCluster (Caron et al., ICCV 2019; thesis 3.3.1): hierarchical clusters x rotations as targets.

sslrun method=deepercluster nodes=8 data.path=/data/yfcc100m     # 64 GPUs; 73.0 on VOC07 (thesis, Table 3.3)
sslrun method=deepercluster recipe=demo                          # minutes on 2 CPU cores, embedded photographs
"""

from dataclasses import dataclass, replace
from functools import partial

from launcher.spec.contract import Layout, Rate, Recipe, Sizes
from launcher.spec.fields import at_least, choice, not_negative, ops, refuse
from launcher.spec.schema import TrainConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Outline, method
from methods.parts.layout import batch_norm_layout, few_images, refuse_world, worlds_that_fit
from methods.parts.recipes import in_seconds, on_photos, on_yfcc100m
from methods.parts.rounds import rounds_of
from methods.parts.shapes import Classifier, Outside

ROTATIONS = 4  # 0, 90, 180 and 270 degrees

_count = partial(at_least, 1, reason="it must be at least 1", fix="give a positive size")


@dataclass
class DeeperClusterConfig(TrainConfig):
    """m super-clusters x 4 rotations = 4m super-classes, each with its own communication group and k sub-classes."""

    name: str = "deepercluster"
    backbone: str = "vgg16_bn"
    super_clusters: int = _count(4)  # m
    clusters: int = _count(80_000)  # k, inside each super-cluster
    reassign_every: int = _count(3)  # T, epochs
    # Epochs before the first clustering, in which the only targets are the 4 rotations.
    rotation_epochs: int = not_negative(0, "it is negative", "give 0 or more epochs")
    pca_dim: int = _count(4096)
    kmeans_iterations: int = _count(10)  # "k-means converges in 10 iterations" (3.3.1)
    # clusters: uniform over sub-classes, as DeepCluster (3.2.1); images: a permutation.
    sampling: str = choice("clusters", "images")
    # Heads are drawn from N(0, head_std) at every reassignment (released DeepCluster).
    head_std: float = not_negative(0.01, "heads are drawn with this standard deviation")
    # global: Eq. 3.4, mean over the global batch; group: mean over the group (released).
    sub_gradient: str = choice("global", "group")
    # Seconds of a clustering that a kill may cost: features and centroids go to disk that often where it has room.
    # 0: after every batch and iteration; null: never, and a clustering that was interrupted begins anew.
    keep_work_s: float | None = ops(not_negative(10.0, fix="give seconds, 0 or more, or null"))

    @property
    def groups(self) -> int:
        """G = 4m (3.3.1): one group a super-class."""
        return ROTATIONS * self.super_clusters


def paper() -> Recipe:
    """Thesis 3.3.1, "Implementation details": 64 GPUs x 48 images, SGD, constant lr 0.1, reassigned every 3 epochs.

    Of batch statistics the thesis says nothing. Each GPU holds images of one super-class, and its statistics would be
    of that alone; the released code synchronises them over all.
    """
    return on_yfcc100m(
        DeeperClusterConfig,
        epochs=100,  # released main.sh; the thesis does not say
        global_batch=3072,
        batch_norm_group=0,  # released main.py: synchronised over all ranks
        precision="bf16",  # ours; the thesis trained in fp32
        weight_decay=1e-5,  # released main.sh
        source="thesis 3.3.1; pca_dim, epochs and weight decay from the released main.sh, statistics over all ranks "
        "from its main.py",
        expect="VOC07 classification 73.0, ImageNet linear 45.6 (thesis Table 3.3), initialised from RotNet",
    )


def demo() -> Recipe:
    """A network of the same shape on the embedded photographs. Figures and spread: README, "What to expect"."""
    return on_photos(
        DeeperClusterConfig,
        source="our own search on the embedded photographs; not a published setting",
        expect="k-NN at least 15 points over the untrained network, in under 3 minutes on 2 cores",
        rate=Rate(1570, tflops=0.15, gpu=False, source="docs/benchmarks.md: 127,680 images in 81.5 s on 2 cores"),
        backbone="small_vgg",
        super_clusters=2,
        clusters=80,
        reassign_every=2,
        rotation_epochs=1,
        pca_dim=64,
        sampling="images",
        sub_gradient="group",
        head_std=0.05,
        epochs=21,  # 1 + 10 x 2: the last heads get both epochs of their clustering
        global_batch=64,  # small batches, because at 6080 images steps are what is scarce
        lr=0.05,
        warmup_epochs=0.2,
    )


def tiny() -> Recipe:
    """Seconds: the whole method on 4 optimiser steps an epoch, for tests and drills. It learns nothing."""
    less = {"clusters": 4, "reassign_every": 1, "pca_dim": 8, "kmeans_iterations": 3, "epochs": 3}
    return in_seconds(demo(), **less, global_batch=64, dropout=0.1)


def outline(config: DeeperClusterConfig) -> Outline:
    """A classifier of super-classes, and sub-classifiers that the ranks hold in shares."""
    width = BACKBONES[config.backbone].feature_dim
    return Outline(
        {
            "super_classifier": Classifier(width, config.groups),  # V, Eq. 3.4
            "sub_classifier": Outside(Classifier(width, config.clusters)),  # W_s
        },
        until={"rotation_epochs": "rotations are the only targets"},
    )


def check(config: DeeperClusterConfig, images: int | None) -> None:
    width = BACKBONES[config.backbone].feature_dim
    if config.pca_dim > width:
        refuse(config, "pca_dim", f"{config.backbone} has {width} features", f"use at most {width}")
    total = config.super_clusters * config.clusters
    if images is not None and total > images:
        reason = f"{config.super_clusters} x {config.clusters} = {total} clusters are more than the {images} images"
        refuse(config, "clusters", reason, f"use at most {images // config.super_clusters}, better a tenth of it")
    if config.global_batch % config.groups:
        lower = config.global_batch // config.groups * config.groups
        reason = f"it does not divide into 4m = {config.groups} groups"
        refuse(config, "global_batch", reason, f"use {lower or config.groups} or {lower + config.groups}")


def layout(config: DeeperClusterConfig, world_size: int) -> Layout:
    """4m groups on `world_size` ranks (3.3.1, "Distributed training"). Raises InputError with the worlds that fit."""
    groups, group_batch = config.groups, config.global_batch // config.groups
    worlds = [n for n in range(1, groups + 1) if groups % n == 0]
    worlds += [groups * p for p in range(2, group_batch + 1) if group_batch % p == 0]
    fits = worlds_that_fit(config, worlds)
    if world_size not in fits:
        shared = f"{config.batch_norm_group} of them sharing" if config.batch_norm_group else "which all share"
        reason = f"4m = {groups} groups of {group_batch} images, {shared} batch statistics, do not fit"
        refuse_world(world_size, fits, reason)
    group_size = max(1, world_size // groups)
    hosted = max(1, groups // world_size)
    per_rank = config.global_batch // world_size
    micro, accumulation, bn_ranks, bn_why = batch_norm_layout(config, per_rank, world_size)
    why = {
        "groups": f"m = {config.super_clusters} super-clusters x 4 rotations (thesis 3.3.1: G = 4m groups)",
        "group_size": f"{world_size} ranks / {groups} groups"
        if world_size >= groups
        else f"{groups} groups on {world_size} ranks: each rank hosts {hosted}, its sub-classifiers are not shared",
        "per_gpu_batch": f"{config.global_batch} / {world_size} ranks = {per_rank} images a rank and step; {bn_why}",
        "accumulation": "samples meet only in batch statistics, whose group is kept, and in the mean of the loss"
        if accumulation > 1
        else "the rank's share is one forward pass",
    }
    published = 48 if config.backbone == "vgg16_bn" else 0  # images a GPU in thesis 3.3.1
    waste, variant = few_images(config, per_rank, published)
    lies = {"accumulation": accumulation, "groups": groups, "groups_per_rank": hosted, "batch_norm_ranks": bn_ranks}
    return Layout(micro, group_size, why, **lies, waste=waste, variant=variant)


def advice(config: DeeperClusterConfig, world_size: int, layout: Layout) -> Layout:
    """Groups of statistics no larger than a group of 3.3.1, which lie within one."""
    shared, group_batch = config.batch_norm_group, config.global_batch // config.groups
    if not 0 < shared <= group_batch:
        return layout
    alike = (
        f"batch statistics over {shared} images are of one super-class at one angle, which has {group_batch} images a "
        "step, while clusterings and evaluations meet their average over all; the released code has them over the "
        "whole batch, a new run"
    )
    waste = f"{alike}; {layout.waste}" if layout.waste else alike
    return replace(layout, waste=waste, variant=("method.batch_norm_group=0", *layout.variant))


def extra(config: DeeperClusterConfig, world_size: int, sizes: Sizes) -> Sizes:
    """The sub-classifiers, and k-means between epochs."""
    width, groups = BACKBONES[config.backbone].feature_dim, config.groups
    one = Classifier(width, config.clusters).parameters
    why = {
        "clusters": f"k = {config.super_clusters} x {config.clusters:,} (thesis 3.3.1: m = 4, k = 80k)",
        "disk": f"{groups} sub-classifiers of {config.clusters:,} x {width} are most of it",
    }
    often = {"every": config.reassign_every, "first": config.rotation_epochs}
    levels = config.super_clusters, config.clusters
    rounds = rounds_of(config, levels, pca_dim=config.pca_dim, iterations=config.kmeans_iterations, **often)
    hosted = max(1, groups // world_size) * one
    return replace(sizes, why=why, rounds=rounds, sharded_parameters=groups * one, hosted_parameters=hosted)


METHOD = method(
    name="deepercluster",
    summary="hierarchical k-means and rotations as targets (Caron et al. 2019)",
    config=DeeperClusterConfig,
    recipes=(paper, demo, tiny),
    trainer="methods.deepercluster.trainer:DeeperCluster",
    outline=outline,
    check=check,
    layout=layout,
    advice=advice,
    extra=extra,
)
