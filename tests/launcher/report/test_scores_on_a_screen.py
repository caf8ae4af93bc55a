"""The scores of an evaluation as its last screen has them, and what else that names."""

import io
from types import SimpleNamespace

from rich.console import Console

from launcher.compose import evaluation
from launcher.report import view
from launcher.report.scores import labelled
from launcher.run.folder import RunDir

MANY = "linear(epochs=1,batch=64,rates=[0.1,1.0],momentum=0.5):made/objects"


def test_few_settings_stand_at_each_score_and_many_once_above_them():
    assert list(labelled({"svm(folds=2):photos": {"map": 1.25}})) == [("linear SVM (folds=2) on photos, mAP", "1.2 %")]
    assert list(labelled({MANY: {"top5": 50.0, "rate": 0.1}})) == [
        ("linear probe (epochs=1, batch=64, rates=[0.1,1.0], momentum=0.5) on made/objects", ""),
        ("  top-5", "50.0 %"),
        ("  that rate", "0.1"),
    ]
    assert not list(labelled({MANY: {}}))


def test_settings_of_a_protocol_and_of_its_images_are_told_apart():
    ((label, _),) = labelled({"svm(folds=2):voc(year=2012)": {"map": 1.0}})
    assert label == "linear SVM (folds=2) on voc(year=2012), mAP"


def test_the_last_screen_cuts_no_label_and_names_each_folder_of_pictures(tmp_path):
    for name in ("video/clip.png", "graph/neighbours.png", "tsne/classes.npz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    told = SimpleNamespace(first=lambda kind: {"step": 3}, all=lambda kind: [])
    run = SimpleNamespace(
        id="a/evals/linear-1",
        owner=SimpleNamespace(id="a"),
        path=tmp_path,
        history=lambda: told,
        summary=lambda: {"evals": {MANY: {"top1": 50.0}}, "method": "rotnet", "step": 3},
    )
    screen = Console(width=60, record=True, file=io.StringIO())
    view.closing(run, screen, "")
    said = screen.export_text()
    assert "…" not in said and "momentum=0.5" in said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("pictures")] == [
        str(tmp_path / "graph"),
        str(tmp_path / "video"),
    ]


def test_show_has_numbers_that_fit_a_line_and_evaluations_by_their_names(tmp_path):
    evals = {"logistic": {"l2": 0.02055921052631579, "iterations": 250, "by": {"a": 1}, "density": [0.5, 0.5]}}
    empty = {"interruptions": [], "where": {}, "asked_nodes": "1", "granted_nodes": 1, "in_place": 0, "spares": None}
    assert view.in_words({**empty, "evals": evals})["evals"] == ["logistic: l2 0.0205592, iterations 250"]
    for name in ("svm-1", "knn-10", "knn,linear-1", "knn-2"):
        (tmp_path / "evals" / name).mkdir(parents=True)
        (tmp_path / "evals" / name / "spec.json").touch()
    found = [each.path.name for each in evaluation.every(RunDir(tmp_path))]
    assert found == ["knn-2", "knn-10", "knn,linear-1", "svm-1"]


def test_an_evaluation_of_a_file_of_weights_counts_no_steps(tmp_path):
    told = SimpleNamespace(first=lambda kind: None, all=lambda kind: [])
    summary = {"evals": {}, "method": "weights", "step": 0}
    run = SimpleNamespace(id="w", owner=None, path=tmp_path, history=lambda: told, summary=lambda: summary)
    view.closing(run, screen := Console(record=True, file=io.StringIO()), "")
    assert screen.export_text().splitlines()[0] == "w: done"
