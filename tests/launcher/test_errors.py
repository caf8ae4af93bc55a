"""What is wrong stays apart until it is shown: the field, the value, the reason and the fix."""

import pickle

import pytest

from launcher.errors import InputError, NodesRefused, first_few

WHOLE = InputError.of("RUN", "swav", "there is no such run", "runs there: none")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (WHOLE, "RUN=swav: there is no such run; runs there: none"),
        (InputError.of("lr", None, "it is none"), "lr=None: it is none"),
        (InputError.of("lr", ..., "it is a list", "give one number"), "lr: it is a list; give one number"),
        (InputError("k is missing;\n say k=NUMBER"), "k is missing; say k=NUMBER"),
    ],
)
def test_it_is_one_line(error, line):
    assert str(error) == line


def test_it_can_be_said_about_another_field():
    said = WHOLE.about("features")
    assert str(said) == "features=swav: there is no such run; runs there: none"
    assert (said.field, said.value, said.reason, said.fix) == ("features", "swav", WHOLE.reason, WHOLE.fix)


def test_a_sentence_names_no_field_that_could_be_another():
    sentence = InputError("RUN is missing")
    assert sentence.about("features") is sentence


def test_it_comes_whole_out_of_another_process():
    error = InputError.of("data.path", ..., "it cannot be read", "make it readable")
    assert str(pickle.loads(pickle.dumps(error)).about("OUT")) == "OUT: it cannot be read; make it readable"


def test_of_many_the_first_five_are_told_and_how_many_there_are_besides():
    names = [f"n{number}" for number in range(1, 8)]
    assert (first_few([]), first_few(names[:5])) == ("", "n1; n2; n3; n4; n5")
    assert first_few(names) == "n1; n2; n3; n4; n5; and 2 more"


def test_nodes_with_the_same_reason_are_told_together():
    names = [f"n{number}" for number in range(1, 8)]
    assert str(NodesRefused(dict.fromkeys(names, "is lost"))) == "each of n1, n2, n3, n4, n5 and 2 more is lost"
    assert str(NodesRefused({"n2": "is lost", "n1": "has no python", "n3": "is lost"})) == (
        "n1 has no python; each of n2, n3 is lost"
    )
    each = NodesRefused({name: f"has no /{name}" for name in names})
    assert str(each).startswith("n1 has no /n1; n2 has no /n2; ") and str(each).endswith("; and 2 more")
