"""metrics.jsonl of a run that was killed and went on: what was done twice is shown once, what is torn not at all."""

import math

from launcher.report import curves


def rows(*steps, **values):
    return [{"step": step, "time": 0.0, "loss": float(step), **values} for step in steps]


def test_what_a_cut_life_wrote_beyond_its_checkpoint_is_gone(tmp_path, torn):
    again = [{"step": 30, "time": 1.0, "loss": 3.5}, {"step": 40, "time": 1.0, "loss": 4.5}]
    torn(tmp_path / "metrics.jsonl", *rows(10, 20, 30, 40, 50), *again)
    (loss,) = curves.read(tmp_path / "metrics.jsonl")
    assert (loss.steps, loss.values) == ([10, 20, 30, 40], [10.0, 20.0, 3.5, 4.5])


def test_scores_of_the_same_step_do_not_push_its_loss_away(tmp_path, torn):
    torn(tmp_path / "metrics.jsonl", *rows(10, 20), {"step": 20, "time": 2.0, "knn/trained": 40.0}, *rows(30))
    assert [c.name for c in curves.read(tmp_path / "metrics.jsonl")] == ["loss"]
    assert curves.read(tmp_path / "metrics.jsonl")[0].steps == [10, 20, 30]


def test_a_value_that_is_no_number_is_a_gap(tmp_path, torn):
    torn(tmp_path / "metrics.jsonl", *rows(10), {"step": 20, "loss": math.nan}, *rows(30))
    assert curves.read(tmp_path / "metrics.jsonl")[0].values == [10.0, None, 30.0]


def test_a_long_curve_is_thinned(tmp_path, torn):
    torn(tmp_path / "metrics.jsonl", *rows(*range(1, 5001)))
    (loss,) = curves.read(tmp_path / "metrics.jsonl")
    assert len(loss.steps) <= curves.MOST
    assert (loss.steps[0], loss.steps[-1]) == (7.0, 4996.5)
    assert loss.steps == loss.values


def test_no_file_is_no_curve(tmp_path):
    assert curves.read(tmp_path / "metrics.jsonl") == []
