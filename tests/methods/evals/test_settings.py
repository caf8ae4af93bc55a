"""What a person may ask of an evaluation, and what is refused before anything is queued."""

import pytest

from launcher.compose import protocols
from launcher.errors import InputError
from methods.evals.spec import PROTOCOLS, called, changed


def test_protocols_are_found_under_the_names_of_their_folders():
    places = [kind.place for kind in PROTOCOLS.values()]
    assert places == sorted(set(places)) and list(PROTOCOLS)[:2] == ["knn", "linear"]
    assert {name: kind.__module__ for name, kind in PROTOCOLS.items()} == {
        name: f"methods.evals.{name}.spec" for name in PROTOCOLS
    }


@pytest.mark.parametrize("kind", PROTOCOLS.values())
def test_every_protocol_has_something_to_show(kind):
    shown = kind.shown({"trained": 1.0, "top1": 1.0, "layer1": 1.0})
    assert kind.title and shown and {*kind.no_percent} <= {*shown}


def test_settings_are_filled_in_and_typed():
    given = ["protocol=knn,linear", "linear.epochs=3", "linear.rates=[0.5,1]", "nodes=2"]
    settings, rest = protocols.taken(given, "resnet50")
    assert rest == ["nodes=2"] and list(settings) == ["knn", "linear"]
    assert settings["linear"]["epochs"] == 3 and settings["linear"]["rates"] == [0.5, 1.0]
    assert settings["knn"]["neighbours"] == [10, 20, 100, 200]


@pytest.mark.parametrize("kind", PROTOCOLS.values())
def test_defaults_of_a_frozen_spec_are_defaults(kind):
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(kind()).items()}
    assert called(kind.name, changed(kind.name, frozen)) == kind.name


def test_pictures_change_nothing_of_what_a_score_is_called():
    assert called("graph", {"pictures": 3}) == "graph" and called("tsne", {"show": "names"}) == "tsne"
    assert called("video", {"frames": 2, "pictures": 1}) == "video(frames=2)"
    assert called("attention", {"pictures": 0, "mass": 0.5}) == "attention(mass=0.5)"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("protocol=knn,linaer",), "protocol=linaer: there is no such name; did you mean linear?"),
        (("protocol=knn,knn",), "knn comes twice"),
        (("protocol=knn", "linear.epochs=2"), "linear.epochs=2: protocol=knn has no linear; say protocol=knn,linear"),
        (("protocol=linear", "linear.epoch=2"), "linear.epoch=2: there is no such key; did you mean linear.epochs?"),
        (("protocol=linear", "linear.epochs=ten"), "linear.epochs=ten: it is not a whole number; give one"),
        (("protocol=linear", "linear.epochs=null"), "linear.epochs=null: it is not a whole number; give one"),
        (("protocol=linear", "linear.epochs=[1]"), "linear.epochs=[1]: it is not a whole number; give one"),
        (("protocol=linear", "linear.epochs={a: 1}"), "linear.epochs={a: 1}: it is not a whole number; give one"),
        (("protocol=linear", "linear.epochs=[1"), "linear.epochs=[1: it is not a whole number; give one"),
        (("protocol=svm", "svm.folds=4", "svm.costs=abc"), "svm.costs=abc: it is not a list of numbers, such as [1]"),
        (
            ("protocol=svm", "svm.costs=[1,abc]"),
            "svm.costs=[1,abc]: it is not a list of numbers, such as [1]",
        ),
        (("protocol=svm", "svm.costs=1"), "svm.costs=1: it is not a list of numbers, such as [1]; give one"),
        (("protocol=sgd", "sgd.drops=[1.5]"), "sgd.drops=[1.5]: it is not a list of whole numbers, such as [1]"),
        (("protocol=sgd", "sgd.l2=much"), "sgd.l2=much: it is not a number or null; give one"),
        (("protocol=linear", "linear.rates=[]"), "linear.rates=[]: it is empty"),
        (("protocol=linear", "linear.epochs=0"), "linear.epochs=0: out of range"),
        (("protocol=graph", "graph.split=val"), "graph.split=val: no such split; use train or test"),
        (("protocol=layers", "layers.probe=svm"), "layers.probe=svm: no such probe; use logistic or knn"),
        (("protocol=sgd", "sgd.hidden=0"), "sgd.hidden=0: out of range"),
        (("protocol=sgd", "sgd.share=1.5"), "sgd.share=1.5: a share of the images; give a number above 0, up to 1"),
        (("protocol=sgd", "sgd.share=0"), "sgd.share=0.0: a share of the images; give a number above 0, up to 1"),
        (("protocol=sgd", "sgd.share=nan"), "sgd.share=nan: a share of the images; give a number above 0, up to 1"),
        (("protocol=sgd", "sgd.subset=/dev/null"), "sgd.subset=/dev/null: there is no such file"),
        (("protocol=sgd", "sgd.subset=no/list"), "/no/list: there is no such file"),
        (("protocol=sgd", f"sgd.subset={__file__}", "sgd.share=0.1"), ": share=0.1 is there too; leave one out"),
        (("protocol=sgd", "sgd.drops=[60,60]"), "one comes twice; leave one out"),
        (("protocol=sgd", "sgd.epochs=60", "sgd.drops=[60,10]"), "with 60 epochs; give epochs from 1 to 59, or []"),
        (("protocol=sgd", "sgd.drops=[0]"), "sgd.drops=[0]: out of range"),
        (("protocol=sgd", "sgd.dropout=1"), "sgd.dropout=1.0: out of range; give 0 to 0.99"),
        (("protocol=attention",), "has no class token"),
    ],
)
def test_bad_input_is_refused_when_it_is_asked_for(evaluated, overrides, said):
    with pytest.raises(InputError) as caught:
        evaluated.asked(*overrides)
    assert said in str(caught.value)
    assert not (evaluated.run.path / "evals").exists()


@pytest.mark.parametrize("text", ["", " \n\n\t\n"])
def test_a_list_that_names_no_image_is_refused_when_it_is_asked_for(evaluated, tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    for protocol in ("sgd", "logistic"):
        with pytest.raises(
            InputError, match=rf"{protocol}\.subset=.*list.txt: it names no image; give a list of images"
        ):
            evaluated.asked(f"protocol={protocol}", f"{protocol}.subset={tmp_path / 'list.txt'}")


def test_a_rate_may_never_drop_and_drops_of_the_paper_need_not_be_reached():
    for given in ("sgd.drops=[]", "sgd.epochs=5", "sgd.drops=[179]"):
        settings, _ = protocols.taken(["protocol=sgd", given], "resnet50")
        assert settings["sgd"]["drops"] == {"sgd.drops=[]": [], "sgd.drops=[179]": [179]}.get(given, [60, 120])
