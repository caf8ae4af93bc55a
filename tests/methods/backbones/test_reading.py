"""Files of weights are read for their tensors alone: no code of theirs runs, and nothing that they name is imported."""

import argparse
import collections
import os
import pathlib
import pickle
import sys
import types
from contextlib import contextmanager
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from launcher.errors import InputError
from methods.backbones.reading import tensors

WEIGHTS = {"state_dict": {"conv1.weight": torch.arange(3.0)}}


def saved(path, old=False, **more):
    torch.save({**more, **WEIGHTS}, path, _use_new_zipfile_serialization=not old)
    return path


@contextmanager
def planted(name, base=object):
    """A class of that name, in modules that are there only meanwhile."""
    *rooms, last = name.split(".")
    kind = type(last, (base,), {"__module__": ".".join(rooms), "__qualname__": last})
    modules = {".".join(rooms[:n]): ModuleType(".".join(rooms[:n])) for n in range(1, len(rooms) + 1)}
    setattr(modules[".".join(rooms)], last, kind)
    with mock.patch.dict(sys.modules, modules):
        yield kind


BESIDE = {
    "arguments of DINO": argparse.Namespace(lr=0.1, output_dir=pathlib.PurePosixPath("/x"), nested={"a": [1]}),
    "hyper-parameters of Lightning and Hydra": OmegaConf.create({"lr": 0.1, "crops": [2, {"size": 96}]}),
    "numbers and arrays of numpy": {"best": np.float64(70.1), "log": np.arange(3), "kind": np.dtype("float32")},
    "dictionaries and rows of other classes": [collections.defaultdict(list, a=[1]), collections.deque([1, 2], 3)],
    "an optimiser's class": torch.optim.SGD,
    "a namespace": types.SimpleNamespace(a=1),
    "sets, bytes and complex numbers": [{1, 2}, b"bytes", bytearray(b"x"), 2j, frozenset((1,))],
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "older format"])
@pytest.mark.parametrize("what", BESIDE)
def test_settings_beside_the_tensors_are_skipped(what, old, tmp_path):
    found = tensors(saved(tmp_path / "weights.pth", old, args=BESIDE[what]), "weights")
    assert found.keys() == {"state_dict.conv1.weight"}
    assert found["state_dict.conv1.weight"].equal(WEIGHTS["state_dict"]["conv1.weight"])


@pytest.mark.parametrize("name", ["pytorch_lightning.utilities.parsing.AttributeDict", "vissl.config.AttrDict"])
def test_a_module_that_is_named_is_not_imported(name, tmp_path, monkeypatch):
    with planted(name, dict) as kind:
        path = saved(tmp_path / "weights.ckpt", hyper_parameters=kind(lr=0.1))
    # Somebody has a package of that name here, which tells when it is imported.
    package = tmp_path / name.partition(".")[0]
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tensors(path, "weights").keys() == {"state_dict.conv1.weight"}
    assert package.name not in sys.modules


class Calls:
    """Comes back as the call of a function."""

    def __init__(self, function, *given):
        self.call = function, given

    def __reduce__(self):
        return self.call


class Evil:
    def __setstate__(self, state):
        print("code ran")


@pytest.mark.parametrize("old", [False, True], ids=["zip", "older format"])
@pytest.mark.parametrize(
    "beside, named",
    [
        (Calls(print, "code ran"), "print"),
        (Calls(os.system, "echo code ran"), f"{os.name}.system"),
        (Calls(eval, "print('code ran')"), "eval"),
        (Calls(getattr, argparse.Namespace(), "lr"), "getattr"),
        (Evil(), f"{__name__}.Evil"),
        (argparse.Namespace(hidden=Calls(print, "code ran")), "print"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
    ids=["print", "a shell", "eval", "getattr", "a class", "within arguments", "a module"],
)
def test_whatever_could_run_code_is_refused_and_runs_none(beside, named, old, tmp_path, capfd):
    if isinstance(beside, Evil):
        beside.x = 1
    path = saved(tmp_path / "code.pth", old, extra=beside)
    with pytest.raises(InputError, match=r"^init_from=.*which could run code") as caught:
        tensors(path, "init_from")
    assert f"({named})" in str(caught.value)
    assert "code ran" not in "".join(capfd.readouterr())


def test_a_name_of_settings_stands_for_an_empty_thing_whatever_is_done_with_it(tmp_path, capfd):
    """A file may call what it names with anything; what it names is ours, and does nothing."""
    with planted("omegaconf.os.system") as kind:
        path = saved(tmp_path / "code.pth", extra=Calls(kind, "echo code ran"))
    assert tensors(path, "weights").keys() == {"state_dict.conv1.weight"}
    assert "code ran" not in "".join(capfd.readouterr())


def test_what_stands_in_is_gone_when_a_file_has_been_read(tmp_path):
    path = saved(tmp_path / "weights.pth", args=argparse.Namespace(a=1))
    tensors(path, "weights")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_torch_does_not_read_without_running_code_is_refused_in_our_words(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "script.pt")
    torch.save(WEIGHTS, tmp_path / "protocol.pt", pickle_protocol=4)
    said = {"script.pt": "it is a TorchScript archive, which is code", "protocol.pt": "pickled in another protocol"}
    for name, reason in said.items():
        with pytest.raises(InputError, match=reason) as caught:
            tensors(tmp_path / name, "weights")
        assert "weights_only" not in str(caught.value)


def test_a_dictionary_that_holds_itself_ends(tmp_path):
    content = {"state_dict": dict(WEIGHTS["state_dict"])}
    content["state_dict"]["again"] = content
    torch.save(content, tmp_path / "round.pth")
    assert "state_dict.conv1.weight" in tensors(tmp_path / "round.pth", "weights")


def test_endless_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("methods.backbones.reading.MANY", 2)
    path = saved(tmp_path / "weights.pth", args=[argparse.Namespace(), np.float64(1), pathlib.PurePosixPath("x")])
    with pytest.raises(InputError, match="more than tensors"):
        tensors(path, "weights")
