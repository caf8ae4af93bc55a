"""What plans are told of pseudo-labels is what a round of them does."""

import dataclasses

from launcher.spec import registry
from launcher.spec.contract import Clustering
from methods.backbones.spec import BACKBONES
from methods.parts.rounds import rounds_of

DEEPER = registry.method("deepercluster")


def test_two_levels_are_those_of_deepercluster():
    for name in DEEPER.recipes:
        config = DEEPER.recipe(name).method
        found = rounds_of(
            config,
            (config.super_clusters, config.clusters),
            pca_dim=config.pca_dim,
            iterations=config.kmeans_iterations,
            every=config.reassign_every,
            first=config.rotation_epochs,
        )
        assert found == DEEPER.sizes(config, 4).rounds


def test_one_level_once_of_another_network_without_whitening():
    config = dataclasses.replace(DEEPER.recipe("paper").method, epochs=105)
    found = rounds_of(config, (16_000,), pca_dim=None, iterations=50, every=None, backbone="resnet50")
    source = BACKBONES["resnet50"]
    assert found.count == 1
    assert found.clusterings == (Clustering(16_000, source.feature_dim, 50),)
    assert found.forward_flops == 2 * source.macs_at(224)
    assert found.host_bytes == 4 * source.feature_dim
