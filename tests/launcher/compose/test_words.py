"""What a person is told to type gives the run that is meant."""

import shlex

import pytest

from launcher.compose import words
from launcher.compose.training import resolve

MADE = [
    ["method=rotnet", "recipe=tiny"],
    ["method=deepercluster", "recipe=demo", "method.clusters=40", "seed=3"],
    [
        "method=swav",
        "method.crop_scale=[0.2,1]",
        "method.epochs=7",
        "data=image_folder",
        "data.path='/data/it\\'s, für'",
    ],
    ["method=dino", "recipe=tiny", "data=cifar10", "data.path=/data/a=b", "eval_data=photos", "eval_data.images=100"],
    ["method=dino", "recipe=tiny", "data=voc", "data.path=/data", "data.year=2012", "eval_data=made/objects"],
    ["method=smog", "method.warmup_lr=0.01", "data=image_folder", "data.labels=none", "runs=/data/my runs"],
]


@pytest.mark.parametrize("made", MADE, ids=" ".join)
def test_the_command_of_a_spec_composes_it_again(made):
    spec, _ = resolve(made, planning=True)
    first, *typed = shlex.split(words.command(spec, {}))
    again, _ = resolve(typed, planning=True)
    assert first == "sslrun" and again.to_json() == spec.to_json()


def test_and_of_one_with_another_value(tmp_path):
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "method.lr=0.3", f"runs={tmp_path}"])
    _, *typed = shlex.split(words.command(spec, {"method.epochs": 4}))
    again, _ = resolve(typed)
    assert (again.method.epochs, again.method.lr, again.runs) == (4, 0.3, str(tmp_path))
    assert typed[:2] == ["method=rotnet", "recipe=tiny"] and len(typed) == 5
