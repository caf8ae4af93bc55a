"""`sslrun best` puts runs in the order of a score, says in what they differ, and names the scores that there are."""

import json

import pytest

from launcher import cli

OTHER = "linear(epochs=1,rates=[0.1,1.0])"


@pytest.fixture
def best(ledgers, capsys, monkeypatch):
    """`best("knn", ...)`: (stdout, stderr, exit code) of it, on a screen of `columns` letters."""

    def typed(*words: str, columns: int = 0) -> tuple[str, str, int]:
        monkeypatch.setenv("COLUMNS", str(columns)) if columns else monkeypatch.delenv("COLUMNS", raising=False)
        with pytest.raises(SystemExit) as ended:
            cli.main(["best", *words, f"runs={ledgers.folder}"])
        said = capsys.readouterr()
        return said.out, said.err, ended.value.code

    return typed


@pytest.fixture
def letters(best, four):
    """`letters("knn", ...)`: which runs are listed, in their order."""
    names = {run.id: letter for letter, run in four.items()}

    def listed(*words: str) -> str:
        out, err, code = best(*words)
        assert not err and not code, err
        return "".join(names[word] for word in out.split() if word in names)

    return listed


@pytest.fixture
def four(ledgers):
    """letter -> run: two of one method, one of another, and one without a score. The newest score of c is its lower."""
    made = {
        "a": ledgers.create("method=rotnet", "recipe=tiny", "seed=0", "method.lr=0.1", "cluster.partition=low"),
        "b": ledgers.create("method=rotnet", "recipe=tiny", "seed=0", "method.lr=0.2"),
        "c": ledgers.create("method=deepercluster", "recipe=tiny", "seed=3"),
        "d": ledgers.create("method=rotnet", "recipe=tiny", "seed=0", "method.lr=0.4"),
    }
    scores = {"a": [(50, 70.0), (100, 41.25)], "b": [(100, 55.5)], "c": [(90, 80.0), (100, 50.0)]}
    for time, (letter, found) in enumerate(scores.items()):
        ledgers.start(made[letter], time=1000.0 - time)
        ledgers.save(made[letter], 100)
        for step, trained in found:
            numbers = {"trained": trained, "untrained": 38.0, "chosen": True}
            ledgers.say(made[letter], "eval", protocol="knn", step=step, scores=numbers)
        ledgers.end(made[letter])
    numbers = {"top1": 12.5, "by_class": {"cat": 2.0}, "top1_by_rate": {"0.1": 3.0}}
    ledgers.say(made["b"], "eval", protocol=OTHER, step=7, scores=numbers)
    ledgers.say(made["c"], "eval", protocol="layers", step=100, scores={"layer1": 1.0, "layer2": float("nan")})
    return made


def test_the_newest_score_of_each_run_counts_and_the_largest_comes_first(letters):
    assert letters("knn.trained") == letters("knn") == letters("evals.knn.trained") == "bca"
    assert letters("knn.trained", "--smallest") == "acb"


def test_the_runs_can_be_chosen(letters):
    assert letters("knn", "--where", "method=rotnet") == "ba"
    assert letters("knn", "--where", "method=rotnet", "--where", "method.lr<0.2") == "a"
    assert letters("knn", "--last", "2") == "ba", "the clock that started them says so"
    assert letters("linear.top1") == "", "a protocol that is there, and judged nothing here with its own settings"


def test_scores_of_other_settings_are_called_as_the_run_calls_them(letters, best):
    assert letters(OTHER) == letters(f"{OTHER}.top1") == letters(f"{OTHER}.top1_by_rate.0.1") == "b"
    assert letters("layers") == "c", "of a protocol that names no scores, the first that it found"
    assert best("layers.layer2")[2] == 2, "no number, no place"


def test_where_there_are_scores_of_other_settings_alone_they_are_named(best, four):
    said, _, code = best("linear", columns=200)
    assert not code and said.splitlines()[-1] == f"there are scores of other settings or data: '{OTHER}'"
    assert "other settings" not in best("linear", "--where", "method=deepercluster")[0]
    assert "other settings" not in best("knn")[0] and "other settings" not in best("logistic")[0]


def test_a_score_that_is_called_as_its_protocol_is_one_like_any_other(best, four, ledgers, letters):
    for letter, number in (("a", 30), ("b", 8)):
        ledgers.say(four[letter], "eval", protocol="groups", step=100, scores={"groups": number, "mean": 30.0 - number})
    assert letters("groups.groups") == "ab" and letters("groups") == letters("groups.mean") == "ba"


def test_what_differs_is_said_and_not_what_cannot_matter(best, four):
    rows = json.loads(best("knn", "--json")[0])
    assert [row["differs"] for row in rows] == [
        {"method.lr": 0.2, "seed": 0},
        {"seed": 3},
        {"method.lr": 0.1, "seed": 0},
    ], "neither the partition nor the fields in which the methods differ"
    first = rows[0]
    assert (first["id"], first["path"]) == (four["b"].id, str(four["b"].path))
    assert (first["method"], first["recipe"], first["state"]) == ("rotnet", "tiny", "done")
    assert (first["metric"], first["value"], first["step"]) == ("knn.trained", 55.5, 100)
    assert json.loads(best(OTHER, "--json")[0])[0]["step"] == 7


def test_the_table_fits_the_screen(best, four, ledgers):
    wide, _, _ = best("knn", columns=200)
    lines = wide.splitlines()
    assert lines[0].split() == ["run", "method", "recipe", "knn.trained", "step", "differs", "in"]
    assert lines[1].split() == [four["b"].id, "rotnet", "tiny", "55.5", "100", "lr=0.2,", "seed=0"]
    assert lines[-1] == f"3 of 4 runs in {ledgers.folder} have knn.trained"
    for columns in (80, 60):
        narrow = best("knn", columns=columns)[0].splitlines()[:-1]
        assert max(map(len, narrow)) <= columns and four["b"].id in narrow[1] and "55.5" in narrow[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["knn.train"], "METRIC=knn.train: there is no such score; there are knn.trained, "),
        (["accuracy"], f"there are knn.trained, knn.untrained, layers.layer1, {OTHER}.top1, {OTHER}.by_class.cat, "),
        (["knn", "--where", "method.lrr=1"], "--where=method.lrr: there is no such key; did you mean method.lr?"),
        (["knn", "--last", "0"], "--last=0: that is no run; give a positive number"),
    ],
)
def test_what_cannot_be_meant_is_one_line(best, four, words, said):
    out, err, code = best(*words)
    assert (out, code) == ("", 2)
    assert said in err and err.startswith("sslrun: ") and len(err.splitlines()) == 1


def test_where_nothing_is_judged_the_line_says_how(best, ledgers):
    _, err, code = best("accuracy")
    assert code == 2 and "no run there has any yet: `sslrun eval RUN protocol=NAME` judges one" in err
    assert best("knn") == (f"no runs in {ledgers.folder}\n", "", 0)
