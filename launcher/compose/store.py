"""What of Hydra composes: its store, filled with what a launch names, and its grammar over that."""

import dataclasses
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import JobConf, OverridesConf, RuntimeConf
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from launcher.compose import clusters
from launcher.compose.overrides import parsed, refusal, spelled
from launcher.errors import InputError
from launcher.spec.schema import LaunchConfig

GROUPS = ("method", "data", "eval_data", "cluster")


def compose(name: str, overrides: list[str], config_dir: Path | None) -> Any:
    """The config `name` of the store under these overrides. Raises InputError."""
    # To Hydra every folder is a group: with `--config-dir .` the key `runs` would be one where ./runs is.
    fields = {f.name for f in dataclasses.fields(LaunchConfig)}.difference(GROUPS)
    folders = {name for name in fields if config_dir and (config_dir / name).is_dir()}
    overrides = [spelled(o) for o in overrides]
    shadowed = [o for o in overrides if o.partition("=")[0] in folders]
    folder = config_dir or clusters.FOLDER  # which holds no groups
    try:
        with hydra.initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            # Hydra wants a sign before a field that is new to it: a key of a mapping, or a field that one's own cluster
            # leaves to the schema. Fields that do not exist were refused before.
            signed = [f"++{o}" if o.startswith("cluster.") else o for o in overrides if o not in shadowed]
            root = hydra.compose(name, overrides=signed)
        for override in map(parsed, shadowed):
            OmegaConf.update(root, override.key_or_group, override.value())
        return root
    except (HydraException, OmegaConfBaseException) as error:
        raise refusal(error) from None
    except YAMLError as error:
        raise InputError(f"--config-dir={config_dir}: {error}; mend the YAML") from None


def empty_store() -> ConfigStore:
    """Without what an earlier composition of this process left in it: Hydra copies all of it each time."""
    for group in GROUPS:
        _store().repo.pop(group, None)
    return _store()


@cache
def _store() -> ConfigStore:
    """Of the settings of Hydra itself it has what composing writes and reads, and nobody looks at afterwards: with all
    of them it takes longer than all else. Nor can anybody's YAML set them."""
    node = {"overrides": OverridesConf(), "runtime": RuntimeConf(), "job": JobConf()}
    store = ConfigStore.instance()
    store.store(group="hydra", name="config", node=node, provider="hydra")
    return store


def store_data(store: ConfigStore, group: str, name: str, node: Any) -> None:
    """name: Hydra looks for "made/objects" of `data` in `data/made`, and would put it under `data.made`."""
    *inner, last = name.split("/")
    store.store(group="/".join([group, *inner]), name=last, node=node, package=group if inner else None)


def store_clusters(store: ConfigStore, names: Iterable[str]) -> None:
    for name in names:
        store.store(group="cluster", name=name, node=clusters.shipped(name))
