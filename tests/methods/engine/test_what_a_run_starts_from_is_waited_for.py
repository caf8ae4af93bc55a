"""Weights, features and results that cannot be read for a moment are waited for, and not taken for wrong input, which
would end the run for good."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from launcher.errors import InputError, Unreadable
from launcher.run.waiting import patiently
from methods.backbones.reading import tensors
from methods.engine.initialise import _altered, _refused
from methods.kmeans import results
from methods.kmeans.folder import scan
from methods.weights.file import load
from methods.weights.spec import WeightsConfig

pytestmark = pytest.mark.fault


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(2)}, file)
    return file


@pytest.fixture
def checkpoint(tmp_path):
    """A folder that says that it is another than any that was pinned."""
    folder = tmp_path / "step_00000005"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, folder / "shared.safetensors")
    content = (folder / "shared.safetensors").read_bytes()
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {"step": 5, "files": {"shared.safetensors": entry}}
    manifest["digest"] = hashlib.sha256(json.dumps({"shared.safetensors": entry["sha256"]}).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def questions(weights, checkpoint, tmp_path):
    """{what: (what is away, how it is asked for)}"""
    features, clusters = tmp_path / "features", tmp_path / "clusters"
    for folder in (features, clusters):
        folder.mkdir()
    np.save(features / "part.npy", np.ones((4, 2), np.float32))
    (clusters / "summary.json").write_text('{"identity": "a"}')
    spec = SimpleNamespace(identity="a", method=SimpleNamespace(out=str(clusters)))
    shared = checkpoint / "shared.safetensors"
    return {
        "a pinned file": (weights, lambda: _refused(weights, "0" * 64, "init_from")),
        "a pinned checkpoint": (shared, lambda: _refused(checkpoint, "0" * 64, "init_from")),
        "its manifest": (checkpoint / "manifest.json", lambda: _refused(checkpoint, "0" * 64, "init_from")),
        "a run that is trained longer": (shared, lambda: _altered(checkpoint, "0" * 64)),
        "weights": (weights, lambda: tensors(weights, "weights")),
        "features": (features, lambda: scan(features)),
        "a file of features": (features / "part.npy", lambda: scan(features)),
        "a result": (clusters / "summary.json", lambda: results.found(None, spec)),
    }


def test_it_is_waited_for_and_then_the_start_ends_with_the_file_and_the_error(questions, away):
    for what, (file, ask) in questions.items():
        expected = repr(ask())
        away(file, times=1)
        assert repr(patiently(ask)) == expected, what
        away(file)
        with pytest.raises(Unreadable, match=f"{file} cannot be read"):
            patiently(ask)
        away(None)


def test_the_weights_that_an_evaluation_is_about_are_waited_for(weights, away):
    away(weights)
    with pytest.raises(Unreadable, match=r"weights\.safetensors cannot be read"):
        load(None, WeightsConfig(weights=str(weights), content="0" * 64))


def test_what_is_gone_is_wrong_input(tmp_path, checkpoint):
    assert "cannot be read" in _refused(tmp_path / "gone", "0" * 64, "init_from")[2]
    (checkpoint / "shared.safetensors").unlink()
    assert "FileNotFoundError" in _altered(checkpoint, "0" * 64)
    for ask in (lambda: tensors(tmp_path / "gone", "weights"), lambda: scan(tmp_path / "gone")):
        with pytest.raises(InputError):
            ask()
