"""A paper's table with several numbers of each run: trained once, each column an evaluation of its own."""

from argparse import Namespace

import pytest

from launcher.compose import evaluation
from launcher.errors import InputError
from launcher.sweep import asked
from launcher.verbs import drive

COLUMNS = """
paper: Nobody (1999)
table: Table 2
claim: A higher rate is better.
numbers: top-1 (%) and mAP (%)
method: rotnet
axis: learning rate
sets: method.lr={value}
scales:
  paper: {gpu_hours: 8, fixed: [cluster=generic]}
  demo: {minutes: 2}
columns:
  own:
    paper: [linear.top1]
    demo: [knn.trained]
    papers: [50.0, 52.5, null]
  objects:
    needs: voc
    paper: [svm.map, eval_data=voc, eval_data.path=/data/VOCdevkit]
    demo: [svm.map, svm.folds=2, eval_data=made/objects]
    papers: [80.5, 79.0, 81.5]
points:
  - {value: 0.01}
  - {value: 0.02, series: later}
  - {value: another method, sets: method=nobodys}
"""
ABOVE = COLUMNS.replace("    needs: voc\n", "")


@pytest.fixture
def columns(tabled):
    tabled.write(ABOVE)
    return tabled


def test_each_row_is_trained_once_and_judged_once_a_column(columns):
    wanted = columns.asked(f"runs={columns.folder}")
    members, absent = asked.members(wanted, columns.config_dir)
    assert [(member.row.value, member.row.series) for member in members] == [
        (0.01, "own"), (0.02, "later, own"), (0.01, "objects"), (0.02, "later, objects"),
    ]  # fmt: skip
    assert len({member.point.spec.run_id for member in members}) == 2
    assert {member.point.spec.eval_after for member in members} == {()}
    assert [(row.value, lacks) for row, lacks in absent] == 2 * [("another method", ["nobodys"])]
    evaluations = asked.columns(wanted, members, columns.config_dir)
    assert [*evaluations.values()] == 2 * [[("protocol=svm", "svm.folds=2", "eval_data=made/objects")]]


def test_each_number_is_of_its_columns_own_evaluation(columns):
    run = columns.submit()[0.01, 0]
    columns.done(run, 40.0)
    states = {row.series: row.runs[0].state for row in columns.table().rows if row.value == 0.01}
    assert states == {"own": "done", "objects": "unjudged"}
    message = columns.table().rows[3].runs[0].message
    assert message == f"`sslrun eval {run.typed} protocol=svm svm.folds=2 eval_data=made/objects` judges it"
    for name, score in (("svm:made/objects", 1.0), ("svm(folds=2)", 2.0), ("svm(folds=2):made/objects", 70.0)):
        columns.ledgers.say(run, "eval", protocol=name, step=100, scores={"map": score})
    rows = {row.series: row for row in columns.table().rows if row.value == 0.01}
    assert (rows["own"].mean, rows["own"].paper, rows["own"].metric) == (40.0, 50.0, "knn.trained")
    assert (rows["objects"].mean, rows["objects"].paper, rows["objects"].difference) == (70.0, 80.5, 70.0 - 80.5)
    found = columns.table().to_json()
    assert found["metric"] == (
        "knn.trained (own), knn.trained (later, own), svm.map (objects), svm.map (later, objects)"
    )
    assert found["spearman"] is None and found["verdict"].count("\n") == 3  # of each its own sentence


def test_columns_on_one_data_set_with_other_settings_are_told_apart(columns):
    """Two years of iNaturalist, say, also where an older version gave their scores one name."""
    others = "  other objects:\n    paper: [svm.map, eval_data=voc]\n    demo: [svm.map, svm.folds=2, {}]\npoints:"
    columns.write(ABOVE.replace("points:", others.format("eval_data=made/objects, eval_data.seed=1")))
    run = columns.submit()[0.01, 0]
    columns.done(run, 40.0)
    asked = ["protocol=svm", "svm.folds=2", "eval_data=made/objects"]
    wanted = (evaluation.want(run, [*asked, *more]) for more in ((), ("eval_data.seed=1",)))
    first, second = (evaluation.prepare(run, each)[0] for each in wanted)
    event = {"protocol": "svm(folds=2):made/objects", "step": 100, "data": "made/objects"}
    columns.ledgers.say(run, "eval", **event, by="evals/svm-1", scores={"map": 70.0})
    for made, state in ((first, "done"), (second, "failed")):
        columns.ledgers.start(made)
        columns.ledgers.end(made, state, "no room")
    rows = {row.series: row.runs[0] for row in columns.table().rows if row.value == 0.01}
    assert (rows["objects"].score, rows["objects"].state) == (70.0, "done")
    assert (rows["other objects"].score, rows["other objects"].state) == (None, "failed")
    assert rows["other objects"].message == "trained; its evaluation evals/svm-2 is failed: no room"
    columns.ledgers.say(run, "eval", **event, by="evals/svm-2", scores={"map": 60.0})
    means = {row.series: row.mean for row in columns.table().rows if row.value == 0.01}
    assert means == {"own": 40.0, "objects": 70.0, "other objects": 60.0}


def test_what_the_images_of_a_column_do_not_have_is_refused_where_a_table_is_asked_for(columns):
    columns.submit()
    with pytest.raises(InputError, match="could not be converted to Integer"):
        columns.table("made/objects.images=many")
    with pytest.raises(InputError, match=r"^made/objects.imagse=3: there is no such key; .* made/objects.images"):
        columns.table("made/objects.imagse=3")


def test_of_evaluations_by_one_protocol_the_one_with_the_columns_settings_says_why_there_is_no_number(columns):
    run = columns.submit()[0.01, 0]
    columns.done(run, 40.0)
    for folds, state in ((2, "failed"), (3, "done")):
        words = ["protocol=svm", f"svm.folds={folds}", "eval_data=made/objects"]
        made, _ = evaluation.prepare(run, evaluation.want(run, words))
        columns.ledgers.start(made)
        columns.ledgers.end(made, state, "no room")
    (shown,) = [row.runs[0] for row in columns.table().rows if (row.value, row.series) == (0.01, "objects")]
    assert (shown.state, shown.message) == ("failed", "trained; its evaluation evals/svm-1 is failed: no room")


def test_where_a_data_set_of_a_column_lies_is_typed_by_its_name_and_changes_no_experiment(columns):
    wanted = columns.asked("recipe=paper", "voc.path=/mnt/VOCdevkit")
    assert wanted.science == []
    (row,) = [row for row in wanted.ablation.points if row.series == "objects" and row.value == 0.01]
    assert wanted.judged(row).asked == ["protocol=svm", "eval_data=voc", "eval_data.path=/mnt/VOCdevkit"]
    with pytest.raises(InputError, match=r"^cifar10.path=/x: no column .* there are: voc.path"):
        columns.asked("recipe=paper", "cifar10.path=/x")


def test_a_data_set_that_somebody_does_not_have_leaves_its_columns_out(columns):
    words = ("recipe=paper", f"runs={columns.folder}", "nodes=1", "data.path=" + str(columns.folder.parent))
    wanted = columns.asked(*words)
    members, _ = asked.members(wanted, columns.config_dir, planning=True)
    said = (
        "column objects: eval_data.path='/data/VOCdevkit': does not exist on this machine; "
        "say voc.path=/where/it/lies, or voc.path=null to leave its columns out"
    )
    with pytest.raises(InputError) as found:
        asked.columns(wanted, [m for m in members if "objects" in m.row.series], columns.config_dir)
    assert str(found.value) == said
    wanted = columns.asked(*words, "voc.path=null")
    members, _ = asked.members(wanted, columns.config_dir, planning=True)
    assert [*asked.columns(wanted, [m for m in members if "objects" in m.row.series]).values()] == [[], []]


def test_an_evaluation_that_cannot_be_is_refused_with_its_column_before_anything_runs(columns):
    columns.write(ABOVE.replace("eval_data=made/objects", "eval_data=photos").replace("svm.folds=2", "svm.folds=1"))
    wanted = columns.asked(f"runs={columns.folder}")
    members, _ = asked.members(wanted, columns.config_dir)
    with pytest.raises(InputError, match=r"^column objects: svm.folds=1: out of range"):
        asked.columns(wanted, members, columns.config_dir)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[50.0, 52.5, null]", "[50.0]", "columns.own.papers: of 3 points a number or null each"),
        ("    demo: [knn.trained]\n", "", "columns.own: it has papers, and of each scale a list: paper, demo"),
        ("[knn.trained]", "knn.trained", r"columns.own.demo: write it like \[linear.top1, eval_data=places205\]"),
        ("[knn.trained]", "[knn]", "columns.own.demo=knn: it is protocol.score"),
        ("svm.folds=2, ", "folds, ", "behind the metric stand overrides"),
        ("{value: 0.01}", "{value: 0.01, needs: 3}", r"points\[0\].needs=\[3\]: it is no text"),
        ("  own:\n", "  own:\n    needs: {a: 1}\n", "needs=.*: it is no text"),
        ("  demo: {minutes: 2}\n", "  demo:\n", "scales: each has a name"),
        (ABOVE[ABOVE.index("scales:") : ABOVE.index("columns:")], "scales: 3\n", "scales: each has a name"),
        (ABOVE[ABOVE.index("columns:") : ABOVE.index("points:")], "columns: {}\n", "columns: each has a name"),
        (ABOVE[ABOVE.index("points:") :], "points: 5\n", "points: each is written like"),
        ("points:\n", "points:\n  - {value: 3, judged: {demo: knn.trained}}\n", "columns.own.papers: of 4 points"),
    ],
)
def test_columns_that_cannot_be_read_are_refused_in_a_line(columns, old, new, said):
    columns.write(ABOVE.replace(old, new))
    with pytest.raises(InputError, match=said):
        columns.asked()


def test_a_column_whose_images_are_gone_keeps_no_other_from_being_judged(columns, monkeypatch, capsys):
    judged = []
    monkeypatch.setattr(drive, "_evaluate", lambda run, asked, options, job: judged.extend(asked) or 0)
    gone = ("protocol=knn", "eval_data=image_folder", "eval_data.path=/nobody/has/it")
    there = ("protocol=svm", "eval_data=made/objects")
    run = columns.submit()[0.01, 0]
    assert drive.judged(run, [gone, there], Namespace(config_dir=None)) == InputError.exit_code
    assert [each.protocol for each in judged] == ["svm"]
    assert f"{run.id}: evaluation {' '.join(gone)}: eval_data.path='/nobody/has/it'" in capsys.readouterr().err


def test_a_column_that_needs_what_is_not_here_waits_for_it(columns):
    columns.write(COLUMNS.replace("needs: voc", "needs: nobodys_protocol"))
    states = {row.series: row.state for row in columns.table().rows if row.value == 0.01}
    assert states == {"own": "absent", "objects": "not here yet"}
