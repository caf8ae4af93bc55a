"""Every point of a sweep is a row, whatever became of its runs."""

import json
import os
import shutil

import pytest

from launcher.errors import InputError
from launcher.report import life
from launcher.run import goodput
from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.ledger import History
from launcher.spec import registry
from launcher.sweep import asked


def test_before_anything_ran(tabled):
    table = tabled.table()
    assert [row.state for row in table.rows] == ["absent", "absent", "absent", "not here yet"]
    assert [row.paper for row in table.rows] == [50, 52.5, 54, 60]
    assert table.rows[3].lacks == ("nobodys",)
    assert "No trend can be told" in table.trend.sentence


def test_mean_and_spread_over_seeds(finished):
    table = finished.table()
    assert [row.state for row in table.rows] == ["done", "done", "done", "not here yet"]
    assert [row.mean for row in table.rows] == [40.25, 45.25, 50.25, None]
    assert [round(row.std, 4) for row in table.rows[:3]] == [0.3536] * 3
    assert [row.difference for row in table.rows[:3]] == [-9.75, -7.25, -3.75]
    assert [row.at for row in table.rows] == [0.01, 0.03, 0.04, "another method"]
    assert table.trend.rho == 1.0


def test_states_are_told_apart(tabled, ledgers):
    runs = tabled.submit()
    tabled.done(runs[0.01, 0], 40.0)
    ledgers.start(runs[0.01, 1])
    ledgers.end(runs[0.01, 1], "failed", "the loss is not a number")
    tabled.done(runs[0.02, 0], 45.0)
    tabled.done(runs[0.02, 1], None)
    shutil.rmtree(runs[0.04, 0].path)
    (runs[0.04, 1].path / "spec.json").write_text("{}")
    table = tabled.table()
    assert [[run.state for run in row.runs] for row in table.rows[:3]] == [
        ["done", "failed"], ["done", "unjudged"], ["gone", "damaged"],
    ]  # fmt: skip
    assert [row.state for row in table.rows[:3]] == ["failed", "unjudged", "damaged"]
    assert [row.mean for row in table.rows[:3]] == [40.0, 45.0, None]
    assert table.rows[0].runs[1].message == "the loss is not a number"
    assert "protocol=knn" in table.rows[1].runs[1].message


def test_an_earlier_score_is_not_that_of_a_run_that_goes_on(tabled, ledgers):
    run = tabled.submit()[0.01, 0]
    ledgers.start(run)
    ledgers.say(run, "eval", protocol="knn", step=50, scores={"trained": 99.0})
    ledgers.progress(run, 60)
    ledgers.end(run, "stopped")
    found = tabled.table().rows[0].runs[0]
    assert (found.state, found.score, found.step) == ("stopped", None, 60)


def test_two_seeds_of_different_lengths(tabled):
    runs = tabled.submit()
    tabled.done(runs[0.01, 0], 40.0, step=100)
    tabled.done(runs[0.01, 1], 42.0, step=60)
    row = tabled.table().rows[0]
    assert [run.step for run in row.runs] == [100, 60]
    assert row.mean == 41.0


@pytest.mark.parametrize("record", [True, False], ids=["with its records", "without them"])
def test_a_folder_that_was_moved(finished, tmp_path, record):
    before = finished.table().to_json()
    shutil.move(finished.folder, tmp_path / "elsewhere")
    if not record:
        shutil.rmtree(tmp_path / "elsewhere" / ".sweeps")
    after = finished.table(folder=tmp_path / "elsewhere").to_json()
    for told in (before, after):
        for point in told["points"]:
            for run in point["runs"]:
                run.pop("path")
    assert after == before


def test_a_run_that_was_renamed_is_known_by_what_it_is(finished):
    run = finished.submit()[0.02, 1].path
    os.rename(run, run.with_name("my-best-run"))
    row = finished.table().rows[1]
    assert [found.id for found in row.runs][1] == "my-best-run"
    assert row.mean == 45.25


def test_half_written_files_hide_nothing(finished, torn):
    run = finished.submit()[0.01, 0]
    torn(run.path / "metrics.jsonl", {"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0})
    for name in ("0001-launcher", "0001-rank0"):
        with (run.path / "events" / f"{name}.jsonl").open("a") as file:
            file.write('{"event": "star')
    (finished.folder / ".sweeps" / "torn.json").write_text('{"points": [')
    assert finished.table().rows[0].mean == 40.25


def test_a_score_that_is_no_number_is_none(tabled):
    runs = tabled.submit()
    tabled.done(runs[0.01, 0], float("nan"))
    assert tabled.table().rows[0].runs[0].state == "unjudged"


def test_more_seeds_are_added_and_one_can_be_asked_for(finished):
    for (_, seed), run in finished.submit("seed=1,2").items():
        if seed == 2:
            finished.done(run, 47.0)
    assert [len(row.scores) for row in finished.table().rows] == [3, 3, 3, 0]
    assert [row.scores for row in finished.table("seed=2").rows] == [[47.0], [47.0], [47.0], []]


def test_other_overrides_are_another_experiment(finished):
    for run in finished.submit("method.epochs=2").values():
        finished.done(run, 20.0)
    assert finished.table().given == ()
    assert finished.table().rows[0].mean == 40.25
    assert finished.table().others == (("method.epochs=2",),)
    assert finished.table("method.epochs=2").rows[0].mean == 20.0
    with pytest.raises(InputError, match=r"method.epochs=3: no such submission of nobody/rates in .*; there is one wi"):
        finished.table("method.epochs=3")


def test_what_was_submitted_with_overrides_alone_is_found_without_them(tabled):
    tabled.submit("method.epochs=2")
    assert tabled.table().given == ("method.epochs=2",)


def test_a_point_that_was_redefined_is_not_mixed_with_what_it_was(finished):
    old = (finished.config_dir / "sweeps" / "nobody" / "rates.yaml").read_text()
    finished.write(old.replace("minutes: 2,", "minutes: 2, fixed: [method.momentum=0.8],"))
    finished.done(finished.submit("seed=0")[0.01, 0], 30.0)
    table = finished.table()
    assert table.rows[0].scores == [30.0]
    assert table.notes == ("6 runs of these points as they were defined before are left out.",)


def test_a_record_of_a_point_that_is_no_longer_there_is_counted(finished):
    old = (finished.config_dir / "sweeps" / "nobody" / "rates.yaml").read_text()
    finished.write(old.replace("  - {value: 0.01, paper: 50.0}\n", ""))
    table = finished.table()
    assert [row.value for row in table.rows] == [0.02, 0.04, "another method"]
    assert table.notes == ("2 runs are of points that the table no longer has.",)


def test_hours_are_those_of_all_starts():
    starts = [("start", 1, 1000.0), ("end", 1, 4600.0), ("start", 2, 5000.0), ("error", 2, 6800.0)]
    events = [{"event": name, "generation": number, "time": time, "writer": "x"} for name, number, time in starts]
    # The end of a start that was killed is written by the next one, if at all.
    events.append({"event": "end", "generation": 2, "time": 99_000.0, "writer": "afterwards"})
    assert goodput.worked_seconds(History(events)) == 3600 + 1800


def test_a_start_that_works_counts_to_what_it_said_last(tabled, ledgers):
    run = tabled.submit()[0.01, 0]
    ledgers.start(run)
    ledgers.progress(run, 10)
    began = run.history().first("start")["time"]
    os.utime(run.path / "progress.json", (began + 7200, began + 7200))
    assert tabled.table().rows[0].runs[0].hours == 0  # nobody has it: it was killed
    lock = run.lock()
    assert tabled.table().rows[0].runs[0].hours == pytest.approx(2.0)
    assert life.of(run).starts[0].worked == pytest.approx(7200)
    os.close(lock)


def test_an_evaluation_that_failed_or_is_under_way_is_shown_as_that(tabled, ledgers):
    runs = tabled.submit()
    for value, state, message in ((0.01, "failed", "no labels"), (0.02, "", "")):
        tabled.done(runs[value, 0], None)
        evaluation = RunDir(runs[value, 0].path / "evals" / "linear+knn-1")
        shutil.copytree(runs[value, 1].path, evaluation.path, symlinks=True)
        if state:
            ledgers.start(evaluation)
            ledgers.end(evaluation, state, message)
    failed, queued = (row.runs[0] for row in tabled.table().rows[:2])
    assert (failed.state, queued.state, failed.score) == ("failed", "pending", None)
    assert failed.message == "trained; its evaluation evals/linear+knn-1 is failed: no labels"


def test_what_says_how_comfortably_it_runs_makes_no_other_experiment(tabled):
    assert tabled.asked("method.workers=2", "method.log_every=1", "nodes=1").science == []
    assert tabled.asked("method.knn_neighbours=5").science == ["method.knn_neighbours=5"]


def test_what_is_varied_at_another_scale_may_be_chosen(tabled):
    tabled.write(tabled.text.replace("at: {demo: 0.03}", "at: {paper: {sets: method.epochs=7}}"))
    assert tabled.asked("method.epochs=3").science == ["method.epochs=3"]
    with pytest.raises(InputError, match="this is what nobody/rates varies"):
        tabled.asked("recipe=paper", "method.epochs=3")


def test_an_evaluation_that_was_typed_comes_beside_that_of_the_metric(tabled):
    tabled.write(tabled.text.replace("demo: {metric: knn.trained", "demo: {metric: logistic.top1"))
    for typed, after in (
        ("knn", ("logistic", "knn")),
        ("[logistic,knn]", ("logistic", "knn")),
        ("null", ("logistic",)),
    ):
        members, _ = asked.members(tabled.asked(f"eval_after={typed}", f"runs={tabled.folder}"), tabled.config_dir)
        assert {member.point.spec.eval_after for member in members} == {after}


def test_a_point_that_comes_to_be_possible_needs_no_edit(tabled, monkeypatch):
    monkeypatch.setattr(registry, "names", lambda: ("nobodys", "rotnet"))
    assert tabled.states()[3] == "absent"


def test_a_multirun_of_ones_own_beside_it_is_none_of_its_points(finished):
    write_json(finished.folder / ".sweeps" / "old.json", {"overrides": [], "points": [{"run": "x", "varied": []}]})
    assert finished.table().rows[0].mean == 40.25


# -- which number of a run it is -----------------------------------------------------------------------------------


def test_a_score_of_an_earlier_step_is_not_the_runs_number(tabled):
    run = tabled.submit()[0.01, 0]
    tabled.done(run, None)
    tabled.ledgers.say(run, "eval", protocol="knn", step=60, scores={"trained": 99.0})
    assert tabled.table().rows[0].runs[0].state == "unjudged"
    tabled.ledgers.say(run, "eval", protocol="knn", step=100, scores={"trained": 40.0})
    tabled.ledgers.say(run, "eval", protocol="knn", step=60, scores={"trained": 98.0})
    assert tabled.table().rows[0].scores == [40.0]


def test_a_score_on_other_labels_is_not_the_runs_number(tabled):
    run = tabled.submit()[0.01, 0]
    tabled.done(run, None)
    tabled.ledgers.say(run, "eval", protocol="knn:image_folder", step=100, scores={"trained": 99.0})
    assert tabled.table().rows[0].runs[0].state == "unjudged"


def test_what_a_run_was_judged_by_is_what_was_asked_for(tabled):
    """The number of neighbours is no part of what a run is: two submissions that differ in it have the same runs."""
    plain, ten = tabled.submit(), tabled.submit("method.knn_neighbours=10")
    assert [run.path for run in plain.values()] == [run.path for run in ten.values()]
    for run in plain.values():
        tabled.done(run, None)
        tabled.ledgers.say(run, "eval", protocol="knn", step=100, scores={"trained": 40.0, "k10": 44.0})
    assert {score for row in tabled.table().rows for score in row.scores} == {40.0}
    asked = tabled.table("method.knn_neighbours=10")
    assert asked.given == ("method.knn_neighbours=10",)
    assert {score for row in asked.rows for score in row.scores} == {44.0}


def test_labels_that_it_was_not_judged_with_give_it_no_number(tabled):
    for run in tabled.submit().values():
        tabled.done(run, 40.0)
    tabled.submit("eval_data=photos", "eval_data.patch=16")
    states = [
        {run.state for run in tabled.table(*words).runs if run.id}
        for words in (("eval_data=photos", "eval_data.patch=16"), ())
    ]
    assert states == [{"unjudged"}, {"done"}]


def test_images_that_are_named_are_those_of_the_runs_that_are_shown(tabled):
    """Where they lie is no other experiment; but whoever names them wants no others."""
    runs, lies = list(tabled.submit().values()), {}
    for number, run in enumerate(runs):
        stored = json.loads((run.path / "spec.json").read_text())
        stored["data"]["path"] = lies[run.id] = ("/a", "/b")[number % 2]
        write_json(run.path / "spec.json", stored)
    for place in ("/a", "/b"):
        shown = {run.id for run in tabled.table(f"data.path={place}").runs if run.id}
        assert shown == {name for name, path in lies.items() if path == place}
    assert {run.id for run in tabled.table().runs if run.id} == {*lies}
