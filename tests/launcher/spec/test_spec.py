"""A spec is frozen: nothing assigns to it, its identity is its science, and what was stored is what runs."""

import dataclasses
import json
from pathlib import Path

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.spec import registry
from launcher.spec.runspec import FORMAT, checksum, freeze
from launcher.spec.schema import TrainConfig
from launcher.spec.stored import read as read_spec

OPS = ("workers", "checkpoint_every", "keep_checkpoints", "log_every", "eval_every", "knn_neighbours", "on_collapse")
OWN_OPS = ("keep_work_s",)  # of single methods


def spec_of(*overrides, method="deepercluster"):
    return resolve([f"method={method}", "recipe=tiny", *overrides], planning=True)[0]


def stored(spec):
    """What spec.json holds."""
    return json.loads(json.dumps(spec.to_json()))


def changed(value):
    """Another value of the same type."""
    match value:
        case None:  # no number was given
            return 0.5
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple():
            return tuple(item / 2 for item in value)
    raise TypeError(value)


def test_nothing_assigns_to_a_spec():
    spec = spec_of()
    for part, name in ((spec, "seed"), (spec.method, "lr"), (spec.data, "images"), (spec.cluster, "name")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, 1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(part, name)
    assert isinstance(spec.method.crop_scale, tuple)


def test_a_frozen_config_is_still_of_its_class():
    assert isinstance(spec_of().method, registry.method("deepercluster").config)


@pytest.mark.parametrize("method", ["deepercluster", "rotnet"])
def test_the_identity_is_the_science_and_nothing_else(method):
    spec, schema = spec_of(method=method), registry.method(method).config
    for item in dataclasses.fields(schema):
        values = {**dataclasses.asdict(spec.method), item.name: changed(getattr(spec.method, item.name))}
        same = dataclasses.replace(spec, method=freeze(schema(**values))).identity == spec.identity
        assert same == (item.name in (*OPS, *OWN_OPS)), item.name


@pytest.mark.parametrize("override", ["tasks_per_node=2", "runs=/elsewhere", "cluster=generic", "method.workers=3"])
def test_where_and_how_comfortably_it_runs_is_not_its_identity(override):
    assert spec_of(override).identity == spec_of().identity


@pytest.mark.parametrize("override", ["seed=1", "method.lr=0.2", "data.colour=true", "data.images=400"])
def test_what_changes_the_result_changes_the_identity(override):
    assert spec_of(override).identity != spec_of().identity


def test_the_source_of_the_weights_counts_and_where_it_lies_does_not(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    a, b, c = (spec_of(f"init_from={tmp_path}/{name}.safetensors").identity for name in "abc")
    assert a == b
    assert len({a, c, spec_of().identity}) == 3


def test_json_and_back_is_the_same_spec():
    spec = spec_of("seed=7", "method.clusters=5", "eval_data=photos")
    back = read_spec(stored(spec))
    assert stored(back) == stored(spec)
    assert (back.identity, back.run_id) == (spec.identity, spec.run_id)
    assert back.differences(spec) == []
    with pytest.raises(dataclasses.FrozenInstanceError):
        back.method.lr = 1


def test_two_specs_of_the_same_values_are_equal_part_by_part():
    """An evaluation asks whether its labels are the run's own."""
    first, again = (spec_of("eval_data=photos", "eval_data.images=100") for _ in range(2))
    assert first.eval_data == again.eval_data and first.method == again.method and first == again
    assert first.eval_data == read_spec(first.to_json()).eval_data
    assert first.eval_data != spec_of("eval_data=photos", "eval_data.images=101").eval_data


def test_the_differences_are_named():
    assert "method.workers: 0 -> 3" in spec_of().differences(spec_of("method.workers=3"))


@pytest.mark.parametrize("group, field", [("method", "lr"), ("method", "clusters"), ("data", "images")])
def test_an_edited_spec_is_refused(tmp_path, group, field):
    edited = stored(spec_of())
    edited[group][field] += 1
    with pytest.raises(ValueError, match="edited"):
        read_spec(edited)
    (tmp_path / "spec.json").write_text(json.dumps(edited))
    with pytest.raises(InputError, match="start a new run"):
        RunDir(tmp_path).spec()


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"format": 1}'])
def test_a_damaged_spec_is_one_line(tmp_path, text):
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(InputError):
        RunDir(tmp_path).spec()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method.lr", "fast"), ("method.lr", True), ("method.epochs", 10**30), ("method.crop_scale", ["x"]),
        ("cluster.setup", "rm"), ("cluster.environment", {"A": 1}), ("nodes", "2"), ("nodes", 0), ("seed", 1.5),
        ("eval_after", "knn"), ("probes", ["knn"]), ("probes", {"knn": 1}),
        ("init_from", {"path": 1, "digest": "x"}), ("data.images", None), ("runs", []),
        ("init_from", {"path": "a", "identity": "b", "step": "3"}), ("init_from", {"identity": "b"}),
    ],
)  # fmt: skip
def test_what_is_sealed_and_of_another_type_is_one_line(tmp_path, field, value):
    """Whoever writes in the folder can write the checksum, too."""
    edited = stored(spec_of())
    group, _, name = field.rpartition(".")
    (edited[group] if group else edited)[name] = value
    edited["checksum"] = checksum({key: part for key, part in edited.items() if key != "checksum"})
    (tmp_path / "spec.json").write_text(json.dumps(edited))
    with pytest.raises(InputError, match=r"spec\.json: .*start a new run"):
        RunDir(tmp_path).spec()


def test_a_spec_of_a_newer_sslrun_is_refused():
    with pytest.raises(ValueError, match="upgrade"):
        read_spec({**stored(spec_of()), "format": FORMAT + 1})


def test_every_field_of_every_method_is_of_a_type_that_composes():
    for name in registry.names():
        for item in dataclasses.fields(registry.method(name).config):
            assert item.type in (str, int, float, bool, list[float], float | None, str | None), (
                f"{name}.{item.name}: {item.type}"
            )
    assert set(OPS) == {f.name for f in dataclasses.fields(TrainConfig) if not f.metadata.get("science", True)}


def test_folders_beside_ones_own_groups_hide_no_key(tmp_path):
    """`--config-dir .` is natural, and so is a folder `runs` there."""
    for name in ("method", "runs", "seed"):
        (tmp_path / name).mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("defaults: [rotnet, _self_]\nlr: 0.125\n")
    typed = ["method=mine", "recipe=tiny", f"runs={tmp_path / 'elsewhere'}", "seed=3"]
    spec, _ = resolve(typed, config_dir=tmp_path)
    assert (spec.method.lr, spec.seed, spec.runs) == (0.125, 3, str(tmp_path / "elsewhere"))


IDENTITIES = Path(__file__).parent / "identities.json"


def test_the_recipes_that_ship_have_the_identities_that_they_had():
    """Runs that people have are joined by them. A new field of a config changes them all, unless it is
    `later(default)`; where the science of a recipe itself was wrong and is another now, its line changes, too."""
    names = [(method, recipe) for method in registry.names() for recipe in registry.method(method).recipes]
    found = {f"{m} {r}": spec_of(f"recipe={r}", "cluster=generic", method=m).run_id for m, r in names}
    assert found == json.loads(IDENTITIES.read_text())
