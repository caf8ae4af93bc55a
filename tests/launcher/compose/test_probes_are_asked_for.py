"""`probes=` and the settings of each: what judges a training between its steps is no part of what it is."""

import dataclasses
import json

import pytest

from launcher.compose import points, words
from launcher.compose.training import composed, placed, resolve
from launcher.errors import InputError
from launcher.spec import stored
from launcher.spec.runspec import PROBES
from launcher.sweep.asked import read

RUN = ("method=rotnet", "recipe=tiny")


def spec_of(*given: str):
    return resolve([*RUN, *given])[0]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (("probes=[knn,linear]", "linear.epochs=5"), {"knn": {}, "linear": {"epochs": 5}}),
        (("probes=linear", "linear.eval_every=10"), {"linear": {"eval_every": 10}}),
        (("knn.neighbours=[5]", "knn.eval_every=0.5"), {"knn": {"neighbours": (5,), "eval_every": 0.5}}),
        (("probes=[layers]", "layers.probe=knn", "layers.neighbours=20"), {"layers": {"probe": "knn"}}),
        (("probes=[]",), {}),
        (("probes=null",), {}),
        (("probes=knn",), PROBES),
        ((), PROBES),
    ],
)
def test_the_spec_has_what_is_not_the_default_and_the_run_stays_the_same(given, found):
    usual, spec = spec_of(), spec_of(*given)
    assert spec.probes == found and spec.identity == usual.identity
    assert stored.read(json.loads(json.dumps(spec.to_json()))) == spec
    assert ("probes" in spec.to_json()) == (found != PROBES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.probes["knn"] = {}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            ("linear.epochs=5",),
            r"^linear.epochs=5: probes=\[knn\] has no linear; say 'probes=\[knn,linear\]', or leave",
        ),
        (("probes=[lineer]",), "^probes=lineer: there is no such name; did you mean linear"),
        (("probes=[knn,knn]",), r"^probes=\[knn,knn\]: knn comes twice"),
        (("knn.eval_every=-1",), "^knn.eval_every=-1: no number of epochs; give one, such as 2 or 0.5"),
        (("knn.eval_every=often",), "^knn.eval_every=often: no number of epochs"),
        (("knn.evalevery=2",), "^knn.evalevery=2: there is no such key; did you mean knn.eval_every"),
        (("probes=[linear]", "linear.epochs=0"), "^linear.epochs=0: out of range"),
        (("probes=[attention]",), "^probes=attention: the backbone small_vgg has no class token"),
        (
            ("probes=[finetune]", "finetune.batch=1", "tasks_per_node=2"),
            "^finetune.batch=1: 1 images a step do not share out to 2 ranks; use fewer ranks",
        ),
        (("probes=knn,linear",), r"several values; add --multirun, or for a list type 'probes=\[knn,linear\]'"),
        (
            ("data=made/objects", "probes=[knn]"),
            "^probes=knn: it needs one label an image, and made/objects has several.*, or probes=svm or detection",
        ),
    ],
)
def test_what_cannot_be_is_one_line(given, line):
    with pytest.raises(InputError, match=line) as error:
        spec_of(*given)
    assert "\n" not in str(error.value)


def test_data_without_labels_are_refused_to_whoever_asks_and_to_nobody_else(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jpg").touch()
    data = "data=image_folder", f"data.path={tmp_path}"
    assert spec_of(*data).probes == PROBES
    with pytest.raises(InputError, match=r"^probes=\[linear\]: image_folder has no labels .*; give labelled images: "):
        spec_of(*data, "probes=[linear]")


def test_what_is_composed_shows_them():
    root, _ = composed([*RUN, "probes=[knn,linear]", "linear.epochs=5"])
    assert root.probes == {"knn": {}, "linear": {"epochs": 5}}


def test_several_runs_may_differ_in_them_beside_what_makes_them_several():
    found = points.expand([*RUN, "seed=1,2", "probes=[linear]", "linear.epochs=3"])
    assert [point.spec.probes for point in found] == [{"linear": {"epochs": 3}}] * 2
    found = points.rows([*RUN, "probes=[linear]"], [["linear.epochs=3", "seed=1"], ["seed=1"]])
    assert [point.spec.probes for point in found] == [{"linear": {"epochs": 3}}, {"linear": {}}]
    assert len({point.spec.identity for point in found}) == 1


def test_a_run_keeps_them_wherever_it_goes_on():
    spec = spec_of("probes=[linear]")
    assert placed(spec, ["tasks_per_node=2"]).probes == {"linear": {}}
    said = str(words.stays(spec, "probes", "[knn]"))
    assert said.endswith("protocol=knn` judges it anew, also with eval_data=NAME")


def test_what_differs_is_told_as_it_is_typed():
    found = spec_of("probes=[linear]", "linear.epochs=3").differences(spec_of("probes=[linear,knn]", "linear.epochs=4"))
    assert [line for line in found if not line.startswith("checksum")] == [
        "probes: [linear] -> [linear,knn]",
        "linear.epochs: 3 -> 4",
    ]


def test_a_sweep_that_is_judged_more_often_is_the_same_sweep():
    table = "sweep=swav/prototypes"
    found = read([table, "recipe=demo", "probes=[knn,linear]", "linear.epochs=3"])
    assert found.science == read([table, "recipe=demo"]).science
