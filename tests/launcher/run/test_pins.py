"""What a run starts from stays with it, whoever deletes or changes the original."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import plan as planning
from launcher.run import pins, pruning
from launcher.run.files import read_json, write_json
from launcher.run.folder import RunDir
from launcher.run.manifest import digest, sha256, verify
from launcher.run.pruning import CHECKPOINT, PINNED
from launcher.run.snapshot import Snapshot
from launcher.slurm import commands
from launcher.spec.runspec import InitFrom, PinnedNetwork

MADE = ("method=rotnet", "recipe=tiny")
FOLDER = "pinned/init_from/step_00000018"
MINE, THEIRS = os.geteuid(), 65534
by_root = pytest.mark.skipif(MINE != 0, reason="only root can give a file to somebody else")


def save(run, step):
    path = run.path / "checkpoints" / f"step_{step:08d}"
    path.mkdir()
    for name in ("shared.safetensors", "group_000.safetensors"):
        (path / name).write_bytes(f"{name} {step}".encode())
    files = {f.name: {"size": f.stat().st_size, "sha256": sha256(f)} for f in path.glob("*.safetensors")}
    write_json(path / "manifest.json", {"step": step, "steps": 18, "digest": digest(files), "files": files})
    return path


@pytest.fixture
def source(ledgers):
    """A run that is done, with a checkpoint of two files."""
    run = ledgers.create(*MADE)
    ledgers.start(run)
    save(run, 18)
    return ledgers.end(run)


def start(runs, *words):
    """The run of such words, made as a launch makes it."""
    spec, recipe = resolve([*MADE, *words, f"runs={runs}"])
    run = RunDir(Path(runs) / spec.run_id)
    run.create(spec, planning.make(spec, recipe), lambda: Snapshot(Path(runs) / ".code" / "digest", "digest", ""))
    return run


def pinned(run):
    spec = run.spec()
    return Path(pins.taken(run.path, "init_from", spec.init_from).path)


def doomed(run):
    return {str(item.path.relative_to(run.path)): item.what for item in pruning.find(run, 1, commands.jobs).doomed}


def test_it_is_a_hard_link_that_outlives_the_original(source, tmp_path):
    run, path = start(source.runs, f"init_from={source.id}"), source.checkpoints()[0]
    assert pinned(run) == run.path / FOLDER and run.spec().init_from.path == str(source.path)
    for name in ("manifest.json", "shared.safetensors", "group_000.safetensors"):
        assert (run.path / FOLDER / name).samefile(path / name)
    shutil.rmtree(source.path)
    assert verify(pinned(run)) == ""


def test_its_source_may_be_pruned_from_any_folder_of_runs(source, tmp_path):
    run = start(tmp_path / "other runs", f"init_from={source.path}")
    old, _ = source.checkpoints()[0], save(source, 19)
    found = pruning.find(source, 1, commands.jobs)
    assert [(item.path, item.what, item.size) for item in found.doomed] == [(old, CHECKPOINT, 0)]  # nothing is freed
    pruning.delete(found.doomed, source.runs)
    assert not old.exists() and verify(pinned(run)) == ""


def test_a_run_continued_pins_what_it_continues(source):
    run = start(source.runs, "method.epochs=4", f"continue_from={source.id}")
    path = pins.where(run.path, "continue_from", run.spec().continue_from.path)
    assert path == run.path / "pinned/continue_from/step_00000018" and verify(path) == ""


def test_networks_beside_are_pinned_under_their_fields(source, tmp_path):
    @dataclasses.dataclass
    class Pupil:
        lr: float
        teacher: PinnedNetwork

    path = source.checkpoints()[0]
    network = PinnedNetwork(str(path), read_json(path / "manifest.json")["digest"], "small_vgg")
    pins.lay(tmp_path, dataclasses.replace(source.spec(), method=Pupil(0.1, network)))
    assert pins.where(tmp_path, "method.teacher", network.path) == tmp_path / "pinned/method.teacher" / path.name


def test_without_a_pin_the_original_is_read(source, tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    run = start(source.runs, f"init_from={weights}")
    assert pinned(run) == weights and not (run.path / "pinned").exists()
    made_before = start(source.runs, f"init_from={source.id}")
    shutil.rmtree(made_before.path / "pinned")
    assert pinned(made_before) == source.checkpoints()[0]


def test_what_has_changed_or_gone_since_it_was_looked_for_is_refused(source, tmp_path):
    path, spec = source.checkpoints()[0], source.spec()

    def refused(digest):
        with pytest.raises(InputError) as refusal:
            pins.lay(tmp_path / "run", dataclasses.replace(spec, init_from=InitFrom(str(path), digest)))
        assert not (tmp_path / "run" / "pinned").exists() and refusal.value.exit_code == 2
        return str(refusal.value)

    assert f"init_from={path}: it has changed since" in refused("another")
    digest = read_json(path / "manifest.json")["digest"]
    (path / "shared.safetensors").unlink()
    assert f"init_from={path}: it was pruned this moment; start it again" in refused(digest)
    (path / "shared.safetensors").symlink_to("/etc/hostname")
    assert f"init_from={path}: cannot be read (" in refused(digest)
    (path / "manifest.json").write_text("{}")
    assert f"init_from={path}: cannot be read (" in refused(digest)


@pytest.fixture
def theirs(source):
    for path in (source.checkpoints()[0], *source.checkpoints()[0].iterdir()):
        os.chown(path, THEIRS, THEIRS)
    return source


@by_root
def test_of_another_user_it_is_a_copy(theirs):
    run, path = start(theirs.runs, f"init_from={theirs.id}"), theirs.checkpoints()[0]
    file = path / "shared.safetensors"
    assert not (run.path / FOLDER / file.name).samefile(file)
    file.write_bytes(b"zeros")  # in its place
    assert verify(pinned(run)) == "" and pinned(run).joinpath(file.name).stat().st_uid == MINE


@by_root
def test_the_runs_of_a_folder_have_one_copy_together(theirs):
    one, two = (start(theirs.runs, f"init_from={theirs.id}", f"seed={seed}") for seed in (1, 2))
    for name in ("manifest.json", "shared.safetensors"):
        assert (one.path / FOLDER / name).samefile(two.path / FOLDER / name)


def test_on_another_file_system_it_is_a_copy(source, monkeypatch):
    def across(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    run, path = start(source.runs, f"init_from={source.id}"), source.checkpoints()[0]
    assert verify(pinned(run)) == "" and not (pinned(run) / "shared.safetensors").samefile(path / "shared.safetensors")


def test_pruning_takes_what_an_evaluation_has_judged(source, ledgers):
    run = RunDir(source.path / "evals" / "knn-1")
    (run.path / "pinned" / "run" / "step_00000018").mkdir(parents=True)
    (run.path / "events").mkdir()
    write_json(run.path / "eval.json", {"protocol": "knn", "step": 18, "digest": "", "after": False})
    ledgers.start(run)
    assert doomed(source) == {}
    ledgers.end(run)
    assert doomed(source) == {"evals/knn-1/pinned": PINNED}


def test_pruning_takes_a_pin_once_the_run_can_go_on_by_itself(source, ledgers):
    run = start(source.runs, f"init_from={source.id}")
    (run.path / "pinned" / "method.teacher").mkdir()
    ledgers.start(run)
    assert doomed(run) == {}
    save(run, 9)
    assert doomed(run) == {"pinned/init_from": PINNED}
    ledgers.end(run)
    assert doomed(run) == {"pinned/init_from": PINNED, "pinned/method.teacher": PINNED}
