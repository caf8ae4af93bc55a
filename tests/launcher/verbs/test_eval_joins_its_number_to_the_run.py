"""`eval` judges a checkpoint of a run by itself, and what it finds stands beside what the run found."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def finished(undisturbed, journey, tmp_path_factory) -> Path:
    """A finished run that this file may evaluate."""
    run = undisturbed(1, journey)
    return Path(shutil.copytree(run.parent, tmp_path_factory.mktemp("evaluated") / "runs", symlinks=True)) / run.name


def flip_a_byte(checkpoint: Path) -> None:
    file = checkpoint / "shared.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_number_is_the_run_s_own_and_asked_again_it_is_shown_without_a_start(sslrun, finished):
    before = sslrun.show(finished)
    answer = sslrun("eval", finished, "protocol=knn", "--json")
    name = f"{finished.name}/evals/knn-1"
    expected = {"id": name, "path": f"{finished}/evals/knn-1", "state": "done", "job": None, "joined": False}
    assert answer.json == expected
    assert f"{name}: done, step {before['step']} of {finished.name}" in answer.err
    shown = sslrun("show", name, f"runs={finished.parent}", "--json").json
    assert (shown["state"], shown["evals"]["knn"]) == ("done", before["evals"]["knn"])
    assert shown["step"] == before["step"], "the step that is judged"
    after = sslrun.show(finished)
    assert {**after, "evaluations": {}} == before
    assert after["evaluations"] == {"knn-1": "done"}

    said = written(Path(expected["path"]))
    again = sslrun("eval", finished, "protocol=knn", "tasks_per_node=2", "--json")
    assert written(Path(expected["path"])) == said
    assert again.json == {**expected, "joined": True}
    assert f"{before['evals']['knn']['trained']:.1f} %" in again.err
    event = [e for e in events(finished) if e["event"] == "eval"][-1]
    assert (event["by"], event["digest"]) == ("evals/knn-1", before["state_digest"])


def written(evaluation: Path) -> dict[Path, bytes]:
    """What starts and ranks say: a start is an event, and every rank has a log."""
    return {path: path.read_bytes() for folder in ("events", "logs") for path in (evaluation / folder).iterdir()}


def events(run: Path) -> list[dict]:
    """Those written by evaluations."""
    return [json.loads(line) for file in (run / "events").glob("*-eval-*") for line in file.read_text().splitlines()]


def test_other_labels_give_another_number_whatever_the_number_of_ranks(sslrun, finished):
    labels = ("eval_data=photos", "eval_data.images=380")
    alone = sslrun("eval", finished, "protocol=knn", *labels, "--json").json
    found = sslrun.show(finished)["evals"]["knn:photos(images=380)"]
    assert found != sslrun.show(finished)["evals"]["knn"]
    shutil.rmtree(alone["path"])
    together = sslrun("eval", finished, "protocol=knn", *labels, "tasks_per_node=2", "--json").json
    assert together["joined"] is False
    assert sslrun.show(finished)["evals"]["knn:photos(images=380)"] == found
    assert {e["world_size"] for e in started(Path(together["path"]))} == {2}


def test_one_extraction_serves_several_protocols_and_both_join_the_run(sslrun, finished):
    before = sslrun.show(finished)["evals"]["knn"]
    wanted = ("eval", finished, "protocol=logistic,knn", "logistic.iterations=9", "--json")
    answer = sslrun(*wanted)
    assert answer.json["id"] == f"{finished.name}/evals/logistic+knn-1"
    log = (Path(answer.json["path"]) / "logs" / "rank0.log").read_text()
    assert log.count("features, train: 0 images restored") == 1
    shown = sslrun.show(finished)["evals"]
    assert shown["logistic(iterations=9)"]["iterations"] <= 9 and shown["knn"] == before
    assert "logistic" not in shown and "logistic regression (iterations=9), top-1" in answer.err
    assert [e.get("settings") for e in events(finished)[-2:]] == [{"iterations": 9}, None]
    assert sslrun(*wanted).json["joined"]


def started(run: Path) -> list[dict]:
    rows = [json.loads(line) for file in (run / "events").iterdir() for line in file.read_text().splitlines()]
    return [row for row in rows if row["event"] == "start"]


def test_a_stopped_run_is_evaluated_where_it_stands_and_goes_on_as_if_nothing_had_been(
    sslrun, interrupted, undisturbed, tmp_path
):
    runs = shutil.copytree(interrupted[0].parent, tmp_path / "runs", symlinks=True)
    run = runs / interrupted[0].name
    stopped = sslrun.show(run)
    assert "knn" not in stopped["evals"]
    sslrun("eval", run, "protocol=knn", "step=newest")
    evaluated = sslrun.show(run)
    several = {"k10", "k20", "k100", "k200"}
    assert set(evaluated["evals"]["knn"]) == {
        "trained",
        "rank",
        "untrained",
        "untrained_adapted",
        "raw_pixels",
        *several,
    }
    assert (evaluated["state"], evaluated["state_digest"]) == ("stopped", stopped["state_digest"])
    sslrun("resume", run)
    done, undisturbed = sslrun.show(run), sslrun.show(undisturbed())
    assert done["state_digest"] == undisturbed["state_digest"]
    assert done["evals"] == undisturbed["evals"]  # of the last step, not of the one where it was evaluated


def test_weights_that_are_not_what_was_saved_are_not_judged(sslrun, interrupted, tmp_path):
    run = shutil.copytree(interrupted[0].parent, tmp_path / "runs", symlinks=True) / interrupted[0].name
    old, new = sorted((run / "checkpoints").glob("step_*"))[-2:]
    flip_a_byte(new)
    line = sslrun("eval", run, "protocol=knn", "step=newest", code=4).complaint
    assert f"{new.name}: shared.safetensors is not what was written; step=N evaluates another" in line
    assert "knn" not in sslrun.show(run)["evals"]
    step = int(old.name[5:])
    assert sslrun("eval", run, "protocol=knn", f"step={step}", "--json").json["state"] == "done"
    assert events(run)[-1]["step"] == step


def test_an_evaluation_that_was_stopped_is_taken_up_again(sslrun, interrupted, tmp_path, signalled):
    run = shutil.copytree(interrupted[0].parent, tmp_path / "runs", symlinks=True) / interrupted[0].name
    wanted = ("eval", run, "protocol=knn", "step=newest", "eval_data=photos", "eval_data.images=380", "--json")
    answer = signalled(*wanted, number=signal.SIGINT, stage="k-NN untrained")
    assert (answer.code, answer.json["state"]) == (130, "stopped")
    assert f"go on with: sslrun resume {run.name}/evals/knn-1 runs={run.parent}" in answer.err
    assert sslrun.show(run)["evaluations"] == {"knn-1": "stopped"}
    again = sslrun(*wanted).json
    assert again == {**answer.json, "state": "done", "joined": True}
    assert len(started(run / "evals" / "knn-1")) == 2


def test_launched_with_eval_after_it_follows_the_training(sslrun, watched):
    overrides = ("method=rotnet", "recipe=tiny", "eval_after=knn", f"runs={watched.runs}")
    answer = sslrun(*overrides, "--json")
    assert answer.json["state"] == "done"
    assert answer.err.index(f"{watched.path.name}: done") < answer.err.index("evals/knn-1: done")
    shown = sslrun.show(watched.path)
    assert shown["evaluations"] == {"knn-1": "done"}
    assert [e["step"] for e in events(watched.path)] == [shown["steps"]]
    again = sslrun(*overrides)
    assert "evals/knn-1: done" in again.err
    assert sslrun.show(watched.path) == shown


def test_a_run_that_is_done_gets_the_evaluation_that_another_sweep_is_about(sslrun, finished, journey):
    before = sslrun.show(finished)["evaluations"]
    answer = sslrun("--multirun", *journey, "seed=0", "eval_after=logistic", f"runs={finished.parent}", "--json")
    assert [run["id"] for run in answer.json["runs"]] == [finished.name]
    shown = sslrun.show(finished)
    assert "logistic" in shown["evals"] and len(shown["evaluations"]) == len(before) + 1


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("protocol=knnn",), "protocol=knnn: there is no such name; did you mean knn?"),
        ((), "protocol is missing; say protocol=NAME, one of knn"),
        (("protocol=knn", "step=7000"), "has no checkpoint of that step; there are: "),
        (("protocol=knn", "step=latest"), "step=latest: "),
        (("protocol=knn", "method.lr=1"), "method.lr=1: there is no such key"),
        (("protocol=knn", "eval_data=fotos"), "eval_data=fotos: there is no such name; did you mean photos?"),
        (("protocol=knn", "eval_data.images=300"), "eval_data.images=300: it belongs to no data set yet"),
        (("protocol=knn", "eval_data=image_folder", "eval_data.path=/nowhere"), "does not exist on this machine"),
        (("protocol=knn", "cluster=nope"), "cluster=nope: there is no such name"),
        (("protocol=knn", "nodes=2"), "nodes=2: cluster=local is this one machine"),
        (("protocol=knn", "nodes=two"), "nodes=two: it is no integer"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(sslrun, one_line, finished, overrides, said):
    before = sorted((finished / "evals").iterdir()) if (finished / "evals").exists() else []
    assert said in one_line(sslrun("eval", finished, *overrides, code=2))
    assert (sorted((finished / "evals").iterdir()) if (finished / "evals").exists() else []) == before


def test_a_run_that_never_saved_has_nothing_to_evaluate(sslrun, one_line, interrupted, tmp_path):
    run = shutil.copytree(interrupted[0].parent, tmp_path / "runs", symlinks=True) / interrupted[0].name
    shutil.rmtree(run / "checkpoints")
    line = one_line(sslrun("eval", run, "protocol=knn", "step=newest", code=2))
    assert line.endswith(f"step=newest: {run.name} has no checkpoint yet; `sslrun resume {run}` first"), line
    line = one_line(sslrun("eval", run, "protocol=knn", code=2))
    assert line.endswith(f"it is stopped, and nobody runs it; `sslrun resume {run}` first"), line


def test_without_labels_anywhere_it_is_refused_and_with_some_it_is_the_run_s_number(
    sslrun, one_line, watched, tmp_path
):
    for number in range(48):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
        for folder in ("flat", f"labelled/class{number % 3}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    data = ("data=image_folder", f"data.path={tmp_path / 'flat'}", "method.global_batch=8")
    sslrun("method=rotnet", "recipe=tiny", *data, f"runs={watched.runs}")
    run = watched.path
    assert sslrun.show(run)["evals"] == {}
    line = one_line(sslrun("eval", run, "protocol=knn", code=2))
    assert "data=image_folder: it has no labels" in line
    assert "eval_data=" in line
    sslrun("eval", run, "protocol=knn", "eval_data=image_folder", f"eval_data.path={tmp_path / 'labelled'}")
    assert "trained" in sslrun.show(run)["evals"]["knn"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_of_somebody_else_is_refused_in_one_line(sslrun, one_line, finished):
    finished.chmod(0o500)
    try:
        assert "cannot write in" in one_line(sslrun("eval", finished, "protocol=knn", code=2))
    finally:
        finished.chmod(0o700)
