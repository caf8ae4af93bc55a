"""`sslrun eval weights=FILE`: a file of weights is judged in a run of its own."""

import json
import shutil
from pathlib import Path

import publishers
import pytest
import torch

from launcher.compose import weights as files
from launcher.errors import InputError
from methods import backbones


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pth"
    torch.save(publishers.dino(backbones.build("small_resnet").trunk.state_dict()), path)
    return path


SMALL = ("backbone=small_resnet", "data=photos", "data.images=76", "image_size=16", "cluster=local", "workers=0")


def test_a_file_of_weights_is_a_run_of_its_own(sslrun, weights, tmp_path):
    runs = tmp_path / "runs"
    typed = ("eval", f"weights={weights}", *SMALL, "protocol=knn", "knn.neighbours=[3]", f"runs={runs}", "--json")
    answer = sslrun(*typed)
    assert (answer.json["state"], answer.json["joined"]) == ("done", False)
    shown = sslrun.show(Path(answer.json["path"]))
    assert shown["method"] == "weights" and 0 <= shown["evals"]["knn(neighbours=[3])"]["k3"] <= 100
    told = "DINO's full checkpoint, under teacher.backbone; thrown away: dino_loss, optimizer, student, teacher.head"
    assert told in (Path(answer.json["path"]) / "logs" / "rank0.log").read_text()
    moved = weights.with_name("moved.torch")
    shutil.copy(weights, moved)  # what is in it counts, not where it lies
    again = sslrun(*[f"weights={moved}" if text == f"weights={weights}" else text for text in typed])
    assert again.json == {**answer.json, "joined": True}
    assert json.loads((Path(answer.json["path"]) / "spec.json").read_text())["method"]["settings"] == {
        "knn": {"neighbours": [3], "temperature": 0.07}
    }


@pytest.mark.parametrize("verb", ["eval", "method=rotnet"])
def test_a_network_with_more_in_it_is_not_judged_and_nothing_starts_from_it(verb, sslrun, one_line, tmp_path):
    state = backbones.build("small_resnet").trunk.state_dict()
    torch.save({**state, "blocks.0.se.fc1.weight": torch.zeros(2)}, tmp_path / "more.pth")
    if verb == "eval":
        typed = ("eval", f"weights={tmp_path}/more.pth", *SMALL, "protocol=knn")
    else:
        typed = (verb, "recipe=tiny", "method.backbone=small_resnet", f"init_from={tmp_path}/more.pth")
    line = one_line(sslrun(*typed, f"runs={tmp_path / 'runs'}", code=2), inside=True)
    field = "weights" if verb == "eval" else "init_from"
    assert line.removeprefix("sslrun: ").startswith(
        f"{field}={tmp_path}/more.pth: it holds another network than small_resnet: 1 left over (blocks."
    )


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


@pytest.mark.parametrize(
    ("protocol", "known"),
    [("knn", "e6759185"), ("layers", "be1253b8"), ("logistic", "0260430d"), ("sgd", "9287348f")],
)
def test_settings_that_came_later_leave_a_line_its_run(protocol, known, tmp_path):
    """The ids are those of before there were `knn.share`, `layers.stages` and `logistic.pool`, and that of `sgd` is of
    since its batch follows from the images."""
    (tmp_path / "w.pth").write_bytes(b"x")
    asked = [f"weights={tmp_path}/w.pth", "backbone=resnet50", f"protocol={protocol}", "data=photos"]
    assert files.want(asked).run_id == f"weights-eval-{known}"
    later = {"knn": "share=0.5", "layers": "stages=[stem]", "logistic": "pool=2", "sgd": "trials=25"}[protocol]
    assert files.want([*asked, f"{protocol}.{later}"]).run_id != f"weights-eval-{known}"
