"""`sslrun eval` with several protocols and their settings, and on a file of weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from launcher import protocols
from launcher.spec import PROTOCOLS
from methods import backbones
from methods.evals import spec


@pytest.fixture(scope="module")
def finished(undisturbed, journey, tmp_path_factory) -> Path:
    run = undisturbed(1, journey)
    return Path(shutil.copytree(run.parent, tmp_path_factory.mktemp("evaluated") / "runs", symlinks=True)) / run.name


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    state = {f"module.{name}": value for name, value in backbones.build("small_resnet").trunk.state_dict().items()}
    save_file({**state, "module.head.weight": torch.zeros(2)}, path)
    return path


SMALL = ("backbone=small_resnet", "data=photos", "data.images=76", "image_size=16", "cluster=local", "workers=0")


def test_the_launcher_knows_every_protocol():
    assert tuple(spec.PROTOCOLS) == PROTOCOLS


def test_settings_are_filled_in_and_typed():
    given = ["protocol=knn,linear", "linear.epochs=3", "linear.rates=[0.5,1]", "nodes=2"]
    settings, rest = protocols.taken(given, "resnet50")
    assert rest == ["nodes=2"] and list(settings) == ["knn", "linear"]
    assert settings["linear"]["epochs"] == 3 and settings["linear"]["rates"] == [0.5, 1.0]
    assert settings["knn"]["neighbours"] == [10, 20, 100, 200]


def test_one_extraction_serves_several_protocols_and_both_join_the_run(sslrun, finished):
    before = sslrun.show(finished)["evals"]["knn"]
    wanted = ("eval", finished, "protocol=logistic,knn", "logistic.iterations=9", "--json")
    answer = sslrun(*wanted)
    assert answer.json["id"] == f"{finished.name}/evals/logistic+knn-1"
    log = (Path(answer.json["path"]) / "logs" / "rank0.log").read_text()
    assert log.count("features, train: 0 images restored") == 1
    shown = sslrun.show(finished)["evals"]
    assert shown["logistic"]["iterations"] <= 9 and shown["knn"] == before
    assert "logistic regression, top-1" in answer.err
    assert sslrun(*wanted).json["joined"]


def test_a_file_of_weights_is_a_run_of_its_own(sslrun, weights, tmp_path):
    runs = tmp_path / "runs"
    typed = ("eval", f"weights={weights}", *SMALL, "protocol=knn", "knn.neighbours=[3]", f"runs={runs}", "--json")
    answer = sslrun(*typed)
    assert (answer.json["state"], answer.json["joined"]) == ("done", False)
    shown = sslrun.show(Path(answer.json["path"]))
    assert shown["method"] == "weights" and 0 <= shown["evals"]["knn"]["k3"] <= 100
    assert "left over: module.head" in (Path(answer.json["path"]) / "logs" / "rank0.log").read_text()
    moved = weights.with_name("moved.safetensors")
    shutil.copy(weights, moved)  # what is in it counts, not where it lies
    again = sslrun(*[f"weights={moved}" if text == f"weights={weights}" else text for text in typed])
    assert again.json == {**answer.json, "joined": True}
    assert json.loads((Path(answer.json["path"]) / "spec.json").read_text())["method"]["settings"] == {
        "knn": {"neighbours": [3], "temperature": 0.07}
    }


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("protocol=knn,linaer",), "protocol=linaer: there is no such name; did you mean linear?"),
        (("protocol=knn,knn",), "knn comes twice"),
        (("protocol=knn", "linear.epochs=2"), "linear.epochs=2: protocol=knn has no linear; say protocol=knn,linear"),
        (("protocol=linear", "linear.epoch=2"), "linear.epoch=2: there is no such key; did you mean linear.epochs?"),
        (("protocol=linear", "linear.epochs=ten"), "linear.epochs=ten: Value 'ten'"),
        (("protocol=linear", "linear.rates=[]"), "linear.rates=[]: it is empty"),
        (("protocol=linear", "linear.epochs=0"), "linear.epochs=0: out of range"),
        (("protocol=layers", "layers.probe=svm"), "layers.probe=svm: no such probe; use logistic or knn"),
        (("protocol=attention",), "has no class token"),
    ],
)
def test_bad_input_is_one_line(finished, overrides, said):
    from launcher import evaluation
    from launcher.errors import InputError
    from launcher.rundir import RunDir

    with pytest.raises(InputError) as caught:
        evaluation.want(RunDir(finished), list(overrides))
    assert said in str(caught.value)


def test_a_file_that_cannot_be_judged_is_one_line(sslrun, one_line, weights, tmp_path):
    from launcher import weights as files
    from launcher.errors import InputError

    (tmp_path / "weights.bin").write_bytes(b"")
    good = [f"weights={weights}", *SMALL, "protocol=knn", f"runs={tmp_path / 'runs'}"]
    for change, said in {
        ("weights=/nowhere.pth",): "weights=/nowhere.pth: there is no such file",
        (f"weights={tmp_path}/weights.bin",): "only files that run no code",
        ("backbone=resnet51",): "backbone=resnet51: there is no such name; did you mean resnet50?",
        ("image_size=4",): "image_size=4: too small",
        ("precision=fp8",): "precision=fp8: no such choice",
        ("method.lr=1",): "method.lr=1: there is no such key",
        ("workers=-1",): "workers=-1: too few",
    }.items():
        keys = [text.partition("=")[0] for text in change]
        kept = [text for text in good if text.partition("=")[0] not in keys]
        with pytest.raises(InputError) as caught:
            files.want([*kept, *change])
        assert said in str(caught.value)
    for left_out, said in (("backbone", "backbone is missing"), ("data", "data is missing")):
        with pytest.raises(InputError, match=said):
            files.want([text for text in good if not text.startswith(left_out)])
    line = one_line(sslrun("eval", "protocol=knn", code=2))
    assert "RUN is missing" in line
    assert not (tmp_path / "runs").exists()
