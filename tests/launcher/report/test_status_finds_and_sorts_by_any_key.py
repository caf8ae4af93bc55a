"""`--where` and `--sort` take every key of the index, of the evaluations and of the config; a wrong one is one line."""

import csv
import json

import pytest

from launcher.report.index import RunIndex
from launcher.report.query import Condition


@pytest.fixture
def four(ledgers):
    """letter -> run: two that are done, one that failed, one that never started."""
    a = ledgers.create("method=deepercluster", "recipe=tiny", "seed=0")
    ledgers.start(a)
    ledgers.save(a, 100)
    ledgers.say(a, "eval", protocol="knn", step=100, scores={"trained": 61.5, "untrained": 38.0})
    ledgers.say(a, "eval", protocol="linear(epochs=1,rates=[0.1,1.0])", step=100, scores={"top1": 12.5})
    ledgers.end(a)
    b = ledgers.create("method=deepercluster", "recipe=tiny", "seed=1", "method.lr=0.1")
    ledgers.start(b)
    ledgers.progress(b, 7, loss=2.5)
    ledgers.end(b, "failed", "rank 0 on n1: killed by SIGKILL")
    c = ledgers.create("method=rotnet", "recipe=tiny", "seed=2", "method.lr=0.1", "cluster.partition=low")
    ledgers.start(c)
    for _ in range(2):
        ledgers.end(c, "preempted")
        ledgers.start(c, "preempted")
    ledgers.save(c, 9)
    ledgers.say(c, "eval", protocol="knn", step=9, scores={"trained": 9.5, "untrained": 38.0})
    ledgers.end(c)
    d = ledgers.create("method=rotnet", "recipe=tiny", "seed=10")
    return {"a": a, "b": b, "c": c, "d": d}


@pytest.fixture
def letters(sslrun, four, ledgers):
    """`letters("--where", ...)`: which runs are listed, in their order."""
    names = {run.id: letter for letter, run in four.items()}
    return lambda *words: "".join(
        names[row["id"]] for row in sslrun("status", *words, f"runs={ledgers.folder}", "--json").json
    )


WHERE = {
    "state=done": "ac",
    "state!=done": "bd",
    "state = failed": "b",
    "state>=pending": "d",
    "method=rotnet": "cd",
    "method.name=rotnet": "cd",
    "id>=rotnet": "cd",
    "step=100": "a",
    "step>7": "ac",
    "step>=7": "abc",
    "step<9": "bd",
    "step<=9e0": "bcd",
    "loss>2": "b",
    "loss=null": "acd",
    "loss!=null": "b",
    "seed==10": "d",
    "method.lr>=0.1": "bc",
    "method.lr=1e-1": "bc",
    "method.crop_scale=[0.3, 1.0]": "abcd",
    "cluster.partition=low": "c",
    "cluster.partition!=low": "abd",
    "cluster.preemptible=false": "abcd",
    "evals.knn.trained>10": "a",
    "evals.knn.trained<=61.5": "ac",
    "evals.linear(epochs=1,rates=[0.1,1.0]).top1>10": "a",
    "evals.linear(epochs=1,rates=[0.1,1.0]).top1=null": "bcd",
    "restarts.preempted=2": "c",
    "restarts.preempted<1": "abd",
    "restarts.node_failure>0": "",
    "method.super_clusters>1": "ab",
    "message!=": "b",
}


def test_every_form_of_a_condition(four, ledgers):
    rows = {row.facts["id"]: row for row in RunIndex(ledgers.folder, config=True).rows()[0]}
    found = {}
    for said in WHERE:
        condition = Condition.read(said)
        found[said] = "".join(letter for letter, run in four.items() if condition.holds(rows[run.id]))
    assert found == WHERE


def test_conditions_given_together_all_hold(letters):
    assert letters("--where", "state=done", "--where", "method.lr >= 0.1") == "c"
    assert letters("--where", "evals.knn.trained>10", "--where", "restarts.preempted=0") == "a"


def test_every_key_sorts(letters, four):
    assert letters()[:2] == "db", "what may still happen, then what failed, then what is done"
    assert letters("--sort=seed") == "abcd"
    assert letters("--sort=-seed") == "dcba", "10 is more than 2"
    # What has no score comes last both times.
    assert letters("--sort=evals.knn.trained") == "cadb"
    assert letters("--sort=-evals.knn.trained") == "acdb"
    assert letters("--sort=-restarts.preempted")[0] == "c"
    by_id = sorted(four, key=lambda letter: four[letter].id)
    assert letters("--sort", "id") == "".join(by_id)
    assert letters("--sort=-id") == "".join(reversed(by_id))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "lr>=0.1"], "did you mean method.lr?"),
        (["--where", "method.lrr>=0.1"], "did you mean method.lr?"),
        (["--where", "restarts.preemted>1"], "did you mean restarts.preempted?"),
        (["--sort", "stat"], "did you mean state?"),
        (["--sort=-evals.knn.train"], "did you mean evals.knn.trained?"),
        (["--columns", "id,sed"], "did you mean seed?"),
        (["--columns", "id,,state"], "--columns="),
        (["--where", "state"], "compares nothing"),
        (["--where", "step>many"], "step is a number"),
        (["--where", "cluster.preemptible>false"], "has no order"),
        (["--watch"], "terminal"),
        (["--json", "--csv"], "one of them"),
        (["--limit", "3"], "--limit"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_one_line(sslrun, one_line, four, ledgers, words, said):
    assert said in one_line(sslrun("status", *words, f"runs={ledgers.folder}", code=None))


def test_a_key_that_no_run_here_has_finds_nothing(sslrun, ledgers, one_line):
    run = ledgers.create("method=rotnet", "recipe=tiny")
    for key in ("method.super_clusters", "evals.knn.trained", "restarts.node_failure", "cluster.qos"):
        assert sslrun("status", "--where", f"{key}>3", f"runs={ledgers.folder}", "--json").json == []
    assert sslrun("status", "--sort", "init_from.path", f"runs={ledgers.folder}", "--json").json[0]["id"] == run.id
    nowhere = ledgers.folder / "nothing"
    assert sslrun("status", "--where", "method.lr>3", f"runs={nowhere}", "--json").json == []
    assert "method.lr" in one_line(sslrun("status", "--where", "method.lrr>3", f"runs={nowhere}", code=2))
    assert not nowhere.exists()


def test_csv_has_every_key_or_those_that_were_asked_for(sslrun, ledgers, four):
    def table(*words):
        answer = sslrun("status", "--csv", f"runs={ledgers.folder}", *words)
        assert not answer.err
        return list(csv.DictReader(answer.out.splitlines()))

    rows = {row["id"]: row for row in table()}
    a, d = rows[four["a"].id], rows[four["d"].id]
    assert (a["state"], a["step"], a["method"], a["seed"]) == ("done", "100", "deepercluster", "0")
    assert (a["evals.knn.trained"], d["evals.knn.trained"]) == ("61.5", "")
    assert float(a["method.lr"]) == json.loads((four["a"].path / "spec.json").read_text())["method"]["lr"]
    assert (a["cluster.partition"], a["method.crop_scale"], a["cluster.preemptible"]) == ("", "[0.3, 1.0]", "false")
    assert "checksum" not in a

    asked = table("--columns", "seed,restarts.preempted,method.lr", "--where", "method.lr=0.1", "--sort=-seed")
    assert asked == [
        {"seed": "2", "restarts.preempted": "2", "method.lr": "0.1"},
        {"seed": "1", "restarts.preempted": "0", "method.lr": "0.1"},
    ]
    assert table("--where", "state=running") == []
    other = "evals.linear(epochs=1,rates=[0.1,1.0]).top1"
    assert table("--columns", f"seed,{other}", "--where", "seed=0") == [{"seed": "0", other: "12.5"}]


def test_json_is_json_also_after_a_loss_that_is_no_number(sslrun, ledgers):
    run = ledgers.create("method=rotnet", "recipe=tiny")
    ledgers.start(run)
    ledgers.progress(run, 3, loss=float("nan"), images_per_s=10.0)
    ledgers.end(run, "failed", "the loss is not a number at step 3")
    said = sslrun("status", "--json", f"runs={ledgers.folder}", "--columns", "method.lr,seed").out

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    (row,) = json.loads(said, parse_constant=refuse)
    assert (row["loss"], row["images_per_s"], row["seed"]) == (None, 10.0, 0)
    assert row["method.lr"] == run.spec().method.lr
    assert "nan" in sslrun("status", f"runs={ledgers.folder}").out
