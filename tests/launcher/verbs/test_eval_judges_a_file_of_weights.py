"""`sslrun eval weights=FILE`: a file of weights is judged in a run of its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from launcher.compose import weights as files
from launcher.errors import InputError
from methods import backbones


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    state = backbones.build("small_resnet").trunk.state_dict()
    state = {f"module.{name}": value.contiguous() for name, value in state.items()}
    save_file({**state, "module.head.weight": torch.zeros(2)}, path)
    return path


SMALL = ("backbone=small_resnet", "data=photos", "data.images=76", "image_size=16", "cluster=local", "workers=0")


def test_a_file_of_weights_is_a_run_of_its_own(sslrun, weights, tmp_path):
    runs = tmp_path / "runs"
    typed = ("eval", f"weights={weights}", *SMALL, "protocol=knn", "knn.neighbours=[3]", f"runs={runs}", "--json")
    answer = sslrun(*typed)
    assert (answer.json["state"], answer.json["joined"]) == ("done", False)
    shown = sslrun.show(Path(answer.json["path"]))
    assert shown["method"] == "weights" and 0 <= shown["evals"]["knn(neighbours=[3])"]["k3"] <= 100
    assert "left over: module.head" in (Path(answer.json["path"]) / "logs" / "rank0.log").read_text()
    moved = weights.with_name("moved.safetensors")
    shutil.copy(weights, moved)  # what is in it counts, not where it lies
    again = sslrun(*[f"weights={moved}" if text == f"weights={weights}" else text for text in typed])
    assert again.json == {**answer.json, "joined": True}
    assert json.loads((Path(answer.json["path"]) / "spec.json").read_text())["method"]["settings"] == {
        "knn": {"neighbours": [3], "temperature": 0.07}
    }


def test_a_file_that_cannot_be_judged_is_one_line(sslrun, one_line, weights, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    good = [f"weights={weights}", *SMALL, "protocol=knn", f"runs={tmp_path / 'runs'}"]
    for change, said in {
        ("weights=/nowhere.pth",): "weights=/nowhere.pth: there is no such file",
        (
            f"weights={tmp_path}/weights.bin",
        ): "its name does not end as one of weights does; give one of .safetensors, ",
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
