"""`sslrun eval RUN RUN`: one line, an evaluation of each, and one table; what is wrong with one is found before any."""

import json

import pytest


@pytest.fixture(scope="module")
def two(evaluated_in, tmp_path_factory):
    """Two runs of one folder."""
    folder = tmp_path_factory.mktemp("two")
    return [evaluated_in(folder, backbone).run for backbone in ("small_resnet", "small_vgg")]


def test_each_is_judged_and_one_table_shows_both(sslrun, two):
    names, protocol = [run.id for run in two], "logistic(iterations=2)"
    words = ("protocol=logistic", "logistic.iterations=2", "step=newest", f"runs={two[0].path.parent}")
    answer = sslrun("eval", *names, *words)
    lines = [line.split() for line in answer.out.splitlines()]
    titles = lines.index(["run", "state", "step", f"{protocol}.top1"])
    found = [run.summary()["evals"][protocol] for run in two]
    rows = [[name, "done", "12", f"{scores['top1']:.6g}"] for name, scores in zip(names, found, strict=True)]
    assert lines[titles + 1 :] == rows
    again = json.loads(sslrun("eval", *names, *words, "--json").out.splitlines()[-1])
    assert [(each["run"], each["state"], each["evals"]) for each in again] == [
        (name, "done", {protocol: scores}) for name, scores in zip(names, found, strict=True)
    ]
    assert all(len([*run.path.glob("evals/*/spec.json")]) == 1 for run in two), "asked again they are shown"


def test_what_is_wrong_with_one_begins_none(sslrun, one_line, two):
    before = [sorted((run.path / "evals").glob("*")) for run in two]
    words = ("protocol=linear", f"runs={two[0].path.parent}")
    line = one_line(sslrun("eval", two[0].id, "nobody", *words, "step=newest", code=2))
    assert "RUN=nobody: there is no such run" in line
    line = one_line(sslrun("eval", two[0].id, two[1].id, *words, "step=5", code=2))
    assert "step=5" in line
    assert [sorted((run.path / "evals").glob("*")) for run in two] == before
