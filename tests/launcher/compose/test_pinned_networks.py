"""A field that names another network holds, once it is composed, where that lies, which it is, and its digest."""

import dataclasses
import hashlib
import json
import struct
from pathlib import Path

import pytest

from launcher.compose import points, training
from launcher.errors import InputError
from launcher.plan import plan as planning
from launcher.run.files import write_json
from launcher.spec import registry, stored
from launcher.spec.fields import later, pinned
from launcher.spec.runspec import NetworkFromRun, PinnedNetwork, freeze
from methods.rotnet import spec as rotnet

SEEN = []  # what `validate` found in the field


@dataclasses.dataclass
class Distilled(rotnet.RotNetConfig):
    name: str = "distilled"
    teacher: str | None = pinned()


@dataclasses.dataclass
class Extended(rotnet.RotNetConfig):
    teacher: str | None = later(pinned())


def method_of(config):
    """RotNet with such a config."""
    tiny = rotnet.tiny()
    given = {**vars(tiny.method), "name": config.name}
    recipes = {"tiny": lambda: dataclasses.replace(tiny, method=config(**given))}
    validate = lambda config, _: SEEN.append(config.teacher)  # noqa: E731
    return dataclasses.replace(rotnet.METHOD, name=config.name, config=config, recipes=recipes, validate=validate)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """A method that nobody else knows, with such a field."""
    real, ours = registry.method, method_of(Distilled)
    monkeypatch.setattr(registry, "method", lambda name: ours if name == "distilled" else real(name))
    SEEN.clear()


def weights(path, content=b"1234", **metadata):
    """A file of one tensor, as safetensors writes it."""
    header = {"a": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}
    text = json.dumps({**header, **({"__metadata__": metadata} if metadata else {})}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


def composed(*words, method="distilled"):
    return training.resolve([f"method={method}", "recipe=tiny", *words])[0]


@pytest.fixture
def source(ledgers):
    """A run of RotNet with two checkpoints, and the newer one."""
    run = ledgers.create("method=rotnet", "recipe=tiny", "method.backbone=small_resnet")
    ledgers.start(run)
    for step in (4, 8):
        saved = ledgers.save(run, step)
        write_json(saved / "manifest.json", {"step": step, "steps": 8, "digest": f"digest {step}", "files": {}})
    return run, saved


def test_of_a_run_its_identity_and_the_step_are_kept_with_its_own_backbone(source):
    run, _ = source
    found = composed(f"method.teacher={run.id}", f"runs={run.path.parent}")
    assert found.method.teacher == NetworkFromRun(str(run.path), run.spec().identity, None, "small_resnet")
    assert found.method.backbone == "small_vgg"
    assert [found.method.teacher] == SEEN


def test_a_file_is_pinned_by_its_content_with_the_backbone_that_it_says(tmp_path):
    file = weights(tmp_path / "a.safetensors", backbone="resnet50")
    found = composed(f"method.teacher={file}").method.teacher
    assert found == PinnedNetwork(str(file), hashlib.sha256(file.read_bytes()).hexdigest(), "resnet50")


def test_the_content_counts_to_the_identity_and_the_place_does_not(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        weights(tmp_path / f"{name}.safetensors", content, backbone="small_vgg")
    specs = [composed(f"method.teacher={tmp_path}/{name}.safetensors") for name in "abc"]
    a, b, c = (spec.identity for spec in specs)
    assert a == b
    assert len({a, c, composed().identity}) == 3
    here, there = (f"{tmp_path}/{name}.safetensors" for name in "ab")
    changes = [change for change in specs[0].differences(specs[1]) if not change.startswith("checksum")]
    assert changes == [f"method.teacher.path: {here} -> {there}"]
    weights(tmp_path / "a.safetensors", b"2", backbone="small_vgg")  # edited since
    assert composed(f"method.teacher={tmp_path}/a.safetensors").identity == c


def test_a_field_that_came_later_changes_no_run_that_does_not_use_it():
    plain = composed(method="rotnet")
    without, given = (
        dataclasses.replace(plain, method=freeze(Extended(**vars(plain.method), teacher=teacher)))
        for teacher in (None, PinnedNetwork("somewhere", "digest", "small_vgg"))
    )
    assert without.identity == plain.identity != given.identity


def test_what_was_stored_comes_back_as_it_was(source):
    run, _ = source
    for words in ((), (f"method.teacher={run.path}",)):
        spec = composed(*words)
        back = stored.read(json.loads(json.dumps(spec.to_json())))
        assert back.method.teacher == spec.method.teacher
        assert (back.identity, back.to_json()) == (spec.identity, spec.to_json())
        with pytest.raises(dataclasses.FrozenInstanceError):
            back.method.teacher = None


def test_every_point_of_a_sweep_pins_its_own(tmp_path, source):
    run, _ = source
    file = weights(tmp_path / "a.safetensors", backbone="resnet50")
    found = points.expand(["method=distilled", "recipe=tiny", f"method.teacher=null,{file},{run.path}", "seed=1,2"])
    paths = [point.spec.method.teacher and point.spec.method.teacher.path for point in found]
    assert paths == [None, None, str(file), str(file), str(run.path), str(run.path)]
    assert len({point.spec.identity for point in found}) == 6


def test_such_a_run_can_be_planned(tmp_path):
    file = weights(tmp_path / "a.safetensors", backbone="resnet50")
    spec, recipe = training.resolve(["method=distilled", "recipe=tiny", f"method.teacher={file}"], planning=True)
    assert planning.make(spec, recipe).steps > 0


REFUSED = {
    "nothing-like-it": ("there is no such run", "runs there: "),
    "{tmp}/weights.pth": (".safetensors", "say which backbone they hold", "sslrun export"),
    "{tmp}/theirs.safetensors": ("does not say which backbone it holds", "sslrun export"),
    "{tmp}/newer.safetensors": ("it holds the backbone resnet5000", "use one of", "resnet50"),
    "{tmp}/empty.safetensors": ("cannot be read", "damaged"),
    "{tmp}/short.safetensors": ("cannot be read", "damaged"),
    "{tmp}/list.safetensors": ("cannot be read", "damaged"),
    "{tmp}/long.safetensors": ("cannot be read", "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_network_is_refused_in_one_line(tmp_path, name):
    weights(tmp_path / "theirs.safetensors")
    weights(tmp_path / "newer.safetensors", backbone="resnet5000")
    (tmp_path / "short.safetensors").write_bytes(weights(tmp_path / "any", backbone="resnet50").read_bytes()[:50])
    (tmp_path / "list.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    (tmp_path / "long.safetensors").write_bytes(b"\xff" * 100)
    for file in ("weights.pth", "empty.safetensors"):
        (tmp_path / file).touch()
    name, said = name.format(tmp=tmp_path), REFUSED[name]
    with pytest.raises(InputError) as error:
        composed(f"method.teacher={name}", f"runs={tmp_path / 'runs'}")
    line = str(error.value)
    assert line.startswith(f"method.teacher={Path(name)}: ") and "\n" not in line
    assert all(part in line for part in said), line
