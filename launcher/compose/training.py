"""Overrides in, frozen RunSpec out. No DictConfig leaves it.

Hydra's override grammar and config groups work as users know them: `method=...`, `method.lr=0.2`, `+key=...`,
`--config-dir DIR` for one's own groups. The groups `method` and `data` come from the registry, `cluster` from
clusters.py.
"""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from launcher.compose import clusters, nodes, protocols, words, yamlfile
from launcher.compose.other_words import unknown_key
from launcher.compose.overrides import as_one, parsed, refusal, several
from launcher.compose.store import GROUPS, compose, empty_store, store_clusters, store_data
from launcher.errors import InputError, unknown
from launcher.slurm import client
from launcher.spec import paths, registry
from launcher.spec.contract import Recipe
from launcher.spec.fields import pinned_fields
from launcher.spec.runspec import PROBES, RunSpec, freeze
from launcher.spec.schema import ClusterConfig, LaunchConfig, TrainConfig

DATA, check_data = registry.facts("data").DATA, registry.facts("data").check

OF_THE_RUN = "of-the-run"  # what the cluster of a run is called while one of its evaluations is composed


def resolve(overrides: list[str], *, config_dir: Path | None = None, planning: bool = False) -> tuple[RunSpec, Recipe]:
    """The frozen spec of `overrides`, validated, and the recipe that it started from.

    `planning` accepts data that are not at hand and assumes the generic cluster where there is none. Raises InputError
    with one clear line for whatever a person can get wrong.
    """
    root, recipe = composed(overrides, config_dir=config_dir, planning=planning)
    return frozen(to_object(typed(root)), planning=planning), recipe


def composed(overrides: list[str], *, config_dir: Path | None = None, planning: bool = False) -> tuple[Any, Recipe]:
    """The composed config before it is frozen, for `--cfg`, and its recipe."""
    settings = [text for text in overrides if protocols.is_setting(text)]
    overrides = [text for text in overrides if text not in settings]
    chosen = _choices(overrides)
    own = _own_groups(config_dir)
    roots = {f.name for f in dataclasses.fields(LaunchConfig)}
    for key in chosen:
        if "." not in key and key.partition("@")[0] not in roots:
            kinds = {"method": TrainConfig, "cluster": ClusterConfig}
            inner = [f"{group}.{each.name}" for group, kind in kinds.items() for each in dataclasses.fields(kind)]
            unknown_key(key, chosen[key], roots, also=inner)
    method_name = _method_name(chosen, own, config_dir)
    recipe = registry.method(method_name).recipe(chosen.get("recipe", "paper"))
    refuse_unknown_fields(overrides, recipe)
    for group, known, also in (
        ("data", DATA, ()),
        ("eval_data", DATA, ("null",)),
        ("cluster", clusters.files(), ("auto",)),
    ):
        if group in chosen and chosen[group] not in {*known, *own.get(group, ()), *also}:
            if known is DATA and os.path.isdir(os.path.expanduser(chosen[group])):
                fix = f"type {group}=image_folder {as_one(f'{group}.path={chosen[group]}')}"
                raise InputError.of(group, chosen[group], "that is a folder, and no data set", fix)
            unknown(group, chosen[group], {*known, *own.get(group, ())})
    store, cluster = empty_store(), _cluster(chosen, recipe, planning)
    default = recipe.data.name if recipe.data else ""
    for group, usual in (("data", default), ("eval_data", "")):
        _refuse_fields_of_another(group, chosen.get(group, usual), chosen)
    # What is stored takes milliseconds each; a YAML of one's own may extend any of it.
    named = {*(text.partition("=")[2].strip("'\"") for text in overrides), cluster, default}
    store.store(group="method", name=method_name, node=recipe.method)
    for name in DATA if config_dir else named.intersection(DATA):
        for group in ("data", "eval_data"):
            store_data(store, group, name, recipe.data if name == default else DATA[name]())
    store_clusters(store, clusters.files() if config_dir else named.intersection(clusters.files()))
    defaults = [
        "_self_",
        {"method": chosen.get("method")},
        {"data": recipe.data.name} if recipe.data else {"optional data": None},
        {"optional eval_data": None},
        {"cluster": cluster},
    ]
    root = dataclasses.asdict(LaunchConfig(data=MISSING if recipe.data else None))
    store.store(name="sslrun", node={"defaults": defaults, **root})
    rest = [o for o in overrides if o.split("=")[0] not in ("method", "cluster") and o != "eval_data=null"]
    composed = compose("sslrun", rest, config_dir)
    if settings or composed.probes != LaunchConfig.probes:
        backbone = OmegaConf.select(composed, "method.backbone") or ""
        composed.probes = protocols.probes(plain(composed.probes), settings, backbone)
    return composed, recipe


def placed(spec: RunSpec, overrides: list[str], *, config_dir: Path | None = None) -> RunSpec:
    """`spec` in another place: `cluster`, `nodes`, `tasks_per_node`; what these do not say stays. Raises InputError,
    also for what would make another run of it."""
    chosen = _choices(overrides)
    refuse_unknown_fields(overrides, registry.method(spec.method.name).recipe(spec.recipe))
    for key, value in chosen.items():
        group = key.lstrip("+~").partition(".")[0]
        if group in ("cluster", "nodes", "tasks_per_node"):
            continue
        if group not in {each.name for each in dataclasses.fields(LaunchConfig)}:
            unknown_key(key, value, ("cluster", "nodes", "tasks_per_node", "runs"))
        raise words.stays(spec, key, value)
    here = {"nodes": spec.asked_nodes, "tasks_per_node": spec.tasks_per_node}
    here |= {"cluster.spare_nodes": spec.cluster.spare_nodes} if "cluster" not in chosen else {}
    stays = [f"{key}={value}" for key, value in here.items() if key not in chosen]
    moved = for_evaluation(spec, [*stays, *overrides], config_dir=config_dir)
    return dataclasses.replace(moved, eval_after=spec.eval_after, probes=spec.probes)


def for_evaluation(spec: RunSpec, overrides: list[str], *, config_dir: Path | None = None) -> RunSpec:
    """`spec` where one of its evaluations runs: `cluster`, `nodes`, `tasks_per_node`, and the labels of `eval_data`.

    Without `cluster=NAME` it is the run's own cluster, of which single fields can be changed; the run's spare nodes are
    its own. Raises InputError.
    """
    chosen, own = _choices(overrides), _own_groups(config_dir)
    groups: dict[str, set[str]] = {"cluster": {*clusters.files()}, "eval_data": {*DATA}}
    for key, value in chosen.items():
        group = key.lstrip("+~").partition(".")[0]
        if group not in (*groups, "nodes", "tasks_per_node"):
            unknown_key(key, value, (*groups, "nodes", "tasks_per_node", "protocol", "step", "runs"))
        if group == "eval_data" and "eval_data" not in chosen:
            raise InputError.of(key, value, "it belongs to no data set yet", "say eval_data=NAME, too")
        if key in groups and value not in {*groups[key], *own.get(key, ())}:
            unknown(key, value, {*groups[key], *own.get(key, ())})
    refuse_unknown_fields(overrides, registry.method(spec.method.name).recipe(spec.recipe))
    store, cluster = empty_store(), chosen.get("cluster", OF_THE_RUN)
    named = {*chosen.values()}
    store_clusters(store, clusters.files() if config_dir else named.intersection(clusters.files()))
    store.store(group="cluster", name=OF_THE_RUN, node=spec.cluster_but(spare_nodes=0))
    for name in DATA if config_dir else named.intersection(DATA):
        store_data(store, "eval_data", name, DATA[name]())
    defaults = ["_self_", {"optional eval_data": None}, {"cluster": cluster}]
    store.store(name="evaluation", node={"defaults": defaults, "nodes": 1, "tasks_per_node": None})
    root = compose("evaluation", [o for o in overrides if o.partition("=")[0] != "cluster"], config_dir)
    config = to_object(typed(root, _Evaluation))
    _check_shape(config)
    _check_data(config, ("eval_data",), at_hand=True)
    where = _checked_cluster(config)
    where.validate()
    return dataclasses.replace(
        spec,
        cluster=freeze(where),
        nodes=config["nodes"],
        least_nodes=config["least_nodes"],
        tasks_per_node=config["tasks_per_node"] or max(1, where.gpus_per_node),
        eval_data=spec.eval_data if config["eval_data"] is None else freeze(config["eval_data"]),
        eval_after=(),
        probes=PROBES,
    )


@dataclasses.dataclass
class _Evaluation:
    """What `for_evaluation` composes."""

    nodes: Any = 1
    tasks_per_node: int | None = None
    cluster: Any = None
    eval_data: Any = None


def _choices(overrides: list[str]) -> dict[str, str]:
    """Root-level `key=value` pairs as Hydra's own grammar reads them. Raises InputError for what it cannot read."""
    chosen = {}
    for text in overrides:
        override = parsed(text)
        if override.is_sweep_override():
            raise several(text)
        chosen[override.key_or_group] = "null" if override.value() is None else str(override.value())
    return chosen


def _own_groups(config_dir: Path | None) -> dict[str, set[str]]:
    if config_dir is None:
        return {}
    if not config_dir.is_dir():
        raise InputError.of(
            "--config-dir", config_dir, "there is no such folder", "give the folder that holds your groups"
        )
    found = {group: sorted((config_dir / group).glob("*.yaml")) for group in GROUPS}
    for file in itertools.chain(*found.values()):  # any may be among the defaults of another
        try:
            yamlfile.check(file)
        except YAMLError as error:
            raise InputError(f"{file}: {error}; mend the YAML") from None
    return {group: {file.stem for file in of_group} for group, of_group in found.items()}


def _method_name(chosen: dict[str, str], own: dict[str, set[str]], config_dir: Path | None) -> str:
    """The registered method behind `method=`: the name itself, or what one's own YAML extends in its defaults list."""
    name = chosen.get("method")
    if name is None:
        raise InputError(f"method is missing; say method=NAME, one of {', '.join(registry.names())}")
    if config_dir is None or name not in own["method"]:
        return registry.method(name).name
    file = config_dir / "method" / f"{name}.yaml"
    try:
        own_config = OmegaConf.load(file)
    except YAMLError as error:
        raise InputError(f"{file}: {error}; mend the YAML") from None
    extends = [entry for entry in own_config.get("defaults", []) if entry in registry.names()]
    if not extends:
        raise InputError(f"{file}: it extends no method; begin it with `defaults: [{registry.names()[0]}, _self_]`")
    return extends[0]


def _cluster(chosen: dict[str, str], recipe: Recipe, planning: bool) -> str:
    """cluster=auto: local for a recipe that runs here, else Slurm when it answers, else local (to plan: generic)."""
    name = chosen.get("cluster", "auto")
    if name != "auto":
        return name
    if recipe.here:
        return "local"
    if planning or client.up():
        return "generic"
    return "local"


def typed(root: Any, schema: type = LaunchConfig) -> Any:
    """The composed config with every key typed by its schema. Raises InputError for what does not fit."""
    try:
        given = [root]
        if OmegaConf.get_type(root.cluster) is not ClusterConfig:
            # One's own cluster need not extend one of ours: the schema types it, and gives what its YAML leaves out.
            given.append({"cluster": OmegaConf.merge(OmegaConf.structured(ClusterConfig), root.cluster)})
        return OmegaConf.merge(OmegaConf.structured(schema), *given)
    except OmegaConfBaseException as error:
        raise refusal(error) from None


def to_object(root: Any) -> dict[str, Any]:
    """The typed config as plain dataclasses. Raises InputError for what is missing."""
    try:
        return {name: plain(root[name]) for name in root}
    except OmegaConfBaseException as error:
        raise refusal(error) from None


def plain(value: Any) -> Any:
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


def frozen(config: dict[str, Any], *, planning: bool = False) -> RunSpec:
    """Validate what `to_object` gave and freeze it. Raises InputError."""
    method = registry.method(config["method"].name)
    _check_shape(config)
    if config["seed"] < 0:
        raise InputError.of("seed", config["seed"], "it is negative", "give 0 or more")
    _check_data(config, ("data", "eval_data"), at_hand=not planning)
    if not config["runs"]:
        raise InputError.of("runs", "", "it is empty", "give a folder")
    runs = str(paths.absolute(config["runs"]))
    if any(isinstance(getattr(config["method"], name), str) for name in pinned_fields(config["method"])):
        _sources().pin_networks(config["method"], Path(runs))
    images = getattr(config["data"], "images", None)
    if planning and not images and not getattr(config["data"], "path", None):  # a plan counts with the recipe's
        images = method.recipe(config["recipe"]).images
    method.validate(config["method"], images)
    classes = getattr(config["method"], "classes", None)
    registry.facts("data").check_columns(config["data"], method.columns, at_hand=not planning, classes=classes)
    cluster, begins, goes_on = _checked_cluster(config), config["init_from"], config["continue_from"]
    spec = RunSpec(
        method=freeze(config["method"]),
        data=config["data"] and freeze(config["data"]),
        eval_data=config["eval_data"] and freeze(config["eval_data"]),
        cluster=freeze(cluster),
        recipe=config["recipe"],
        nodes=config["nodes"],
        least_nodes=config["least_nodes"],
        tasks_per_node=config["tasks_per_node"] or max(1, cluster.gpus_per_node),
        seed=config["seed"],
        init_from=None if begins is None else _sources().pin_init_from(begins, Path(runs), config["method"].backbone),
        runs=runs,
        group=config["group"],
        eval_after=protocols.afterwards(config),
        probes=protocols.between(config, planning=planning),
    )
    protocols.refuse_unshared(spec)
    if goes_on is not None:
        spec = dataclasses.replace(spec, continue_from=_sources().pin_continue_from(goes_on, Path(runs), spec))
    return _sources().as_made(spec) if spec.sources else spec


def _sources() -> ModuleType:
    """Few specs name what others have made, for which it looks into runs and the queue."""
    from launcher.compose import sources

    return sources


def _check_shape(config: dict[str, Any]) -> None:
    """Beside that, `nodes` becomes the largest count, and `least_nodes` the smallest of a range."""
    config["nodes"], config["least_nodes"] = nodes.read(config["nodes"])
    tasks = config["tasks_per_node"]
    if tasks is not None and tasks < 1:
        raise InputError.of("tasks_per_node", tasks, "it must be at least 1", "give a positive number")


def _check_data(config: dict[str, Any], keys: tuple[str, ...], *, at_hand: bool) -> None:
    for key in keys:
        data = config[key]
        if isinstance(data, dict):
            fix = "begin it with `defaults: [image_folder, _self_]`"
            raise InputError(f"{key}: its YAML extends no data set; {fix}")
        if data is not None:
            if getattr(data, "path", None):
                data.path = str(paths.absolute(data.path))
            check_data(data, key, at_hand=at_hand)


def _checked_cluster(config: dict[str, Any]) -> ClusterConfig:
    cluster: ClusterConfig = config["cluster"]
    cluster.python = cluster.python and os.path.expanduser(cluster.python)
    cluster.timeout_min, cluster.mem_gb = clusters.minutes(cluster.timeout_min), clusters.gb(cluster.mem_gb)
    if cluster.kind not in ("slurm", "local"):
        raise InputError.of("cluster.kind", cluster.kind, "no such kind", "use slurm or local")
    nodes.check_spares(cluster.spare_nodes, config["nodes"])
    if cluster.kind == "local":
        clusters.fit_local(cluster, nodes.typed(config["nodes"], config["least_nodes"]), config["tasks_per_node"])
    return cluster


def refuse_unknown_fields(overrides: Sequence[str], recipe: Recipe) -> None:
    """Hydra would take `+method.x=1` for a new field, and nobody would ever read it."""
    for text in overrides:
        key, _, value = text.partition("=")
        group, _, field = key.lstrip("+~").partition(".")
        if not field or protocols.is_setting(text) or _is_open(key):  # `protocols.probes` knows settings
            continue
        kinds = {"method": (recipe.method,), "cluster": (ClusterConfig,)}.get(group, ())
        kinds = DATA.values() if group in ("data", "eval_data") else kinds
        if not any(field == each.name for kind in kinds for each in dataclasses.fields(kind)):  # the first that has it
            known = {f"{group}.{each.name}" for kind in kinds for each in dataclasses.fields(kind)}
            unknown_key(key, value, known or GROUPS)


def _refuse_fields_of_another(group: str, name: str, chosen: Mapping[str, str]) -> None:
    """Fields that other data sets have, and not the one called `name`; one's own YAML is Hydra's to judge."""
    if name not in DATA:
        return
    fields = {each.name for each in dataclasses.fields(DATA[name])}
    for key, value in chosen.items():
        inside, _, field = key.partition(".")
        if inside == group and field and field not in fields:
            fix = f"add {group}=image_folder" if field == "path" else f"it has {', '.join(sorted(fields - {'name'}))}"
            raise InputError.of(key, value, f"{group}={name} has no {field}", fix)


def _is_open(key: str) -> bool:
    """Does the key lie in a mapping to which the user adds keys: `cluster.environment.NCCL_DEBUG`?"""
    group, field, *inner = [*key.lstrip("+~").split(".", 2), ""]
    return group == "cluster" and bool(inner[0]) and field in ("environment", "additional_parameters", "srun")
