"""What k-NN gathers on one rank is bounded by its bytes, and what was left out is said."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from launcher.runtime.dist import World
from methods.engine.job import Job
from methods.evals import room
from methods.evals.during import left_out

ALONE = World(0, 1, torch.device("cpu"))


class Split:
    """As much of a data set as its size."""

    labels, channels = True, 3

    def __init__(self, images: int):
        self._images = images

    def __len__(self) -> int:
        return self._images


def imagenet():
    job = SimpleNamespace(
        world=ALONE,
        config=SimpleNamespace(image_size=224),
        labelled=(Split(1_281_167), Split(50_000)),
        notices=[],
        reporter=SimpleNamespace(progress=lambda **_: None),
    )
    job.notice = partial(Job.notice, job)
    return job


def test_raw_pixels_of_imagenet_are_too_large_for_any_machine_and_the_features_are_not(monkeypatch):
    monkeypatch.setattr(room, "memory", lambda: 10**13)
    assert room.pixels_too_large(imagenet()) == "they are 802 GB, over 8 GB"
    monkeypatch.setattr(room, "memory", lambda: 10**11)
    assert room.too_large(imagenet(), 2048) == ""


def test_features_that_do_not_fit_cost_the_score_and_not_the_run(monkeypatch, capsys):
    monkeypatch.setattr(room, "memory", lambda: 10**11)
    job = imagenet()
    assert left_out(job, "knn", {}, SimpleNamespace(feature_dim=10_240))
    assert not left_out(job, "linear", {}, SimpleNamespace(feature_dim=10_240)), "it gathers nothing"
    (said,) = job.notices
    assert capsys.readouterr().out == said + "\n"
    assert said.startswith("k-NN is left out: it gathers 54.5 GB of features") and "its machine has 100 GB" in said


def test_without_raw_pixels_the_other_scores_are_there_and_a_line_says_why(evaluated, monkeypatch, capsys):
    monkeypatch.setattr(room, "LARGEST_PIXELS", 9e4)
    asked = evaluated.asked("protocol=knn", "knn.neighbours=[3]", "eval_data=photos", "eval_data.images=76")
    assert set(evaluated.serve(asked)["knn"]) == {"trained", "k3", "rank", "untrained", "untrained_adapted"}
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "left out" in line)
    assert line.startswith("k-NN of raw pixels is left out: they are ") and line.endswith(" GB, over 9e-05 GB")
    assert json.loads((asked.path / "progress.json").read_text())["notices"] == [line]


@pytest.mark.parametrize(
    ("group", "files", "limit"),
    [
        ("0::/slurm/job_7/step_0", {"slurm/job_7/memory.max": "7000\n", "slurm/memory.max": "max\n"}, 7000),
        ("0::/", {"memory.max": "5000\n"}, 5000),
        ("9:cpu:/\n4:memory:/job", {"memory/job/memory.limit_in_bytes": "3000\n", "cpu/job/memory.max": "1"}, 3000),
        ("0::/", {"memory.max": "max\n"}, None),
    ],
)
def test_the_limit_of_a_job_counts_before_the_machine_s(tmp_path, monkeypatch, group, files, limit):
    monkeypatch.setattr(room, "CGROUPS", tmp_path)
    monkeypatch.setattr(room, "MINE", tmp_path / "mine")
    without = room.memory()
    (tmp_path / "mine").write_text(group + "\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert room.memory() == (limit or without) and without > 10**8
