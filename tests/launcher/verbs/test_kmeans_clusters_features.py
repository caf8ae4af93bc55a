"""`sslrun kmeans` from its command line to the files that it leaves, on two ranks."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from launcher.kmeans import fit, hierarchical
from launcher.plan.kmeans_cost import Problem

K = 12
SIZES = {"a": 700, "b": 0, "c": 900, "d": 401}  # of the shards; no rank has whole ones
HERE = ("cluster=local", "tasks_per_node=2")
# Room for two interruptions; every iteration is kept.
KEPT = ("k=150", "iterations=9", "keep_work_s=0", *HERE)


def features():
    generator = np.random.default_rng(0)
    groups = 3 * generator.integers(0, 5, (sum(SIZES.values()), 1))
    return (generator.standard_normal((len(groups), 8)) + groups).astype(np.float32)


def parts():
    return dict(zip(SIZES, np.split(features(), np.cumsum(list(SIZES.values()))[:-1]), strict=True))


@pytest.fixture(scope="module")
def npy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("npy")
    for name, part in parts().items():
        np.save(folder / f"{name}.npy", part)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    np.save(folder / "0.npy", np.random.default_rng(1).standard_normal((40_000, 32)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def undisturbed_digest(sslrun, large, tmp_path_factory) -> str:
    runs = tmp_path_factory.mktemp("undisturbed")
    answer = sslrun("kmeans", f"features={large}", *KEPT, f"runs={runs}", "--json")
    return sslrun.show(answer.json["path"])["state_digest"]


def read(result: Path):
    """(summary, tensors, assignments of all shards in order)"""
    assignments = [np.load(file) for file in sorted((result / "assignments").iterdir())]
    return json.loads((result / "summary.json").read_text()), load_file(result / "centroids.safetensors"), assignments


def test_a_folder_of_npy_shards(sslrun, npy, tmp_path):
    typed = ("kmeans", f"features={npy}", f"k={K}", *HERE, f"runs={tmp_path / 'runs'}", "--json")
    answer = sslrun(*typed)
    assert (answer.json["state"], answer.json["joined"]) == ("done", False)
    result = Path(answer.json["path"]) / "clusters"
    summary, tensors, assignments = read(result)
    assert [len(part) for part in assignments] == list(SIZES.values())
    wanted = fit(torch.from_numpy(features()), K, seed=0)
    assert np.array_equal(np.concatenate(assignments), wanted.assignments.numpy())
    np.testing.assert_allclose(tensors["centroids"], wanted.centroids.numpy(), rtol=1e-5)
    assert np.array_equal(tensors["counts"], wanted.counts.numpy())
    np.testing.assert_allclose(summary["inertia"], wanted.inertia, rtol=1e-6)
    assert (summary["n"], summary["d"], summary["k"], summary["clusters_empty"]) == (sum(SIZES.values()), 8, K, 0)
    assert sum(part["clusters"] for part in summary["sizes"]["histogram"]) == K
    assert set(summary["seconds"]) >= {"features", "clustering"}

    shown = sslrun.show(answer.json["path"])
    assert (shown["state"], shown["step"], shown["state_digest"]) == ("done", summary["iterations"], summary["digest"])
    assert shown["evals"]["kmeans"]["inertia_last"] == summary["inertia"][-1]
    again = sslrun(*typed)
    assert again.json == {**answer.json, "joined": True}
    assert "inertia last" in again.err
    assert "k-means, iteration 2: inertia " in sslrun("logs", answer.json["path"]).out
    assert (
        len(summary["reassigned"]) == summary["iterations"]
        and summary["bytes_per_iteration"] == Problem(1, K, 8).reduced_bytes
    )


def test_a_folder_of_safetensors_shards_into_two_levels_at_a_place_of_ones_own(sslrun, tmp_path):
    (tmp_path / "in").mkdir()
    for name, part in parts().items():
        save_file({"features": torch.from_numpy(part)}, tmp_path / "in" / f"{name}.safetensors")
    typed = ("kmeans", "features=in", "k=4", "m=3", "iterations=5", "out=result", *HERE)
    sslrun(*typed, cwd=tmp_path)
    summary, tensors, assignments = read(tmp_path / "result")
    wanted = hierarchical(torch.from_numpy(features()), (3, 4), iterations=5, seed=0)
    flat = wanted.super_clusters.assignments * 4 + wanted.sub_assignments
    assert np.array_equal(np.concatenate(assignments), flat.numpy())
    assert tensors["centroids"].shape == (3, 4, 8) and tensors["super_centroids"].shape == (3, 8)
    assert (summary["m"], summary["k"]) == (3, 4)
    assert summary["bytes_per_iteration"] == Problem(1, 4, 8, m=3).reduced_bytes
    # What is there is never overwritten.
    before = (tmp_path / "result" / "summary.json").read_bytes()
    line = sslrun(*typed, "seed=1", cwd=tmp_path, code=2).complaint
    assert "out=" in line and "it holds another result; give a folder that does not exist" in line
    assert (tmp_path / "result" / "summary.json").read_bytes() == before
    assert not list(tmp_path.glob(".result*"))


def test_the_backbone_of_a_run(sslrun, undisturbed, journey, tmp_path):
    run = undisturbed(1, journey)
    results = []
    for ranks in (1, 2):
        place = ("cluster=local", f"tasks_per_node={ranks}", f"runs={tmp_path / str(ranks)}")
        answer = sslrun("kmeans", f"features={run}", "k=5", "layer=classifier.0", *place, "--json")
        results.append(read(Path(answer.json["path"]) / "clusters"))
    (alone, tensors, (assignments,)), (together, *_) = results
    assert tensors["centroids"].shape == (5, 512)
    assert len(assignments) == alone["n"] == 304
    assert 0 < alone["nmi_labels"] < 1 and alone["entropy_mean"] > 0
    assert together["inertia"] == pytest.approx(alone["inertia"], rel=1e-4)
    line = sslrun("kmeans", f"features={run}", "k=5", "layer=nope", *place, code=2).complaint
    assert "layer=nope: the backbone has no such module; it has: " in line and "classifier.0" in line


def test_killed_and_resumed_it_ends_with_the_same_centroids(sslrun, large, undisturbed_digest, watched, signalled):
    typed = ("kmeans", f"features={large}", *KEPT, f"runs={watched.runs}")
    killed = signalled(*typed, number=signal.SIGKILL, rank=1, whom="rank", stage="k-means", step=3)
    assert killed.code == 4 and watched.gone()
    assert not (watched.path / "clusters").exists()

    answer = signalled("resume", watched.path, number=signal.SIGINT, stage="k-means", step=6)
    assert answer.code == 130 and "go on with: sslrun resume" in answer.err

    sslrun(*typed)  # the same line joins it
    shown = sslrun.show(watched.path)
    assert (shown["state"], shown["restarts"]) == ("done", {"killed": 1, "stopped": 1})
    assert shown["state_digest"] == undisturbed_digest
    lives = {event["generation"]: event["resumed"].get("k-means", 0) for event in watched.events("work")}
    assert lives.get(1, 0) == 0 and 1 < lives[2] < lives[3]
    assert not (watched.path / "features").exists()


def test_what_is_asked_for_wrongly_is_refused_in_one_line(sslrun, one_line, npy, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    np.save(mixed / "0.npy", np.zeros((3, 4), np.float32))
    np.save(mixed / "1.npy", np.zeros((3, 5), np.float32))
    total = sum(SIZES.values())
    wrong = {
        ("k=3",): ("features is missing", "say features=FOLDER_OR_RUN k=NUMBER"),
        (f"features={npy}",): ("k is missing",),
        ("features=nowhere", "k=3"): ("features=nowhere", "no such folder, and no such run", "give a folder of .npy"),
        ("features=/nowhere", "k=3"): ("features=/nowhere", "no such folder, and no such run"),
        ("features=empty", "k=3"): ("features=", "there are no shards in it"),
        ("features=mixed", "k=3"): ("1.npy", "d=5", "give every shard the same d"),
        (f"features={npy}", "k=0"): ("k=0", "at least 1"),
        (f"features={npy}", "k=3", "m=0"): ("m=0", "at least 1"),
        (f"features={npy}", "k=three"): ("k: ", "give one integer"),
        (f"features={npy}", "k=5000"): ("k=5000", f"more clusters than the {total} features", f"at most {total}"),
        (f"features={npy}", "k=3", "metric=l1"): ("metric=l1", "l2 or cosine"),
        (f"features={npy}", "k=3", "init=kmeans"): ("init=kmeans", "random or k-means++"),
        (f"features={npy}", "k=3", "empty=drop"): ("empty=drop", "split or keep or resample"),
        (f"features={npy}", "k=3", "iteration=3"): ("iteration=3", "did you mean iterations?"),
        (f"features={npy}", "k=3", "method.k=3"): ("method.k=3", "there is no such key"),
        (f"features={npy}", "k=3", "layer=x"): ("layer=x", "no backbone", "give features=RUN"),
        (f"features={npy}", "k=3", "out=full"): ("out=", "nothing is overwritten"),
        (f"features={npy}", "k=3", "nodes=2"): ("nodes=2", "this one machine"),
    }
    for typed, holds in wrong.items():
        place = () if "nodes=2" in typed else ("tasks_per_node=2",)
        line = one_line(sslrun("kmeans", *typed, *place, "cluster=local", code=2, cwd=tmp_path))
        assert all(part in line for part in holds), line
    assert not (tmp_path / "runs").exists()


def test_a_feature_that_is_not_a_number_is_named_by_its_shard_and_row(sslrun, one_line, tmp_path):
    for name, part in parts().items():
        part = part.copy()
        if name == "c":
            part[123, 4] = np.nan
            part[500, 0] = np.inf
        np.save(tmp_path / f"{name}.npy", part)
    typed = ("kmeans", f"features={tmp_path}", "k=3", *HERE, f"runs={tmp_path / 'runs'}")
    line = one_line(sslrun(*typed, code=2), inside=True)
    assert all(part in line for part in (f"features={tmp_path}", "row 123 of c.npy is NaN or infinite", "leave")), line


def test_shards_that_changed_since_they_were_submitted_are_not_clustered(
    sslrun, one_line, large, watched, signalled, tmp_path
):
    np.save(tmp_path / "0.npy", np.load(large / "0.npy"))
    typed = ("kmeans", f"features={tmp_path}", *KEPT, f"runs={watched.runs}")
    assert signalled(*typed, number=signal.SIGINT, stage="k-means", step=1).code == 130
    np.save(tmp_path / "0.npy", features())
    line = one_line(sslrun("resume", watched.path, code=2), inside=True)
    assert "its shards changed since this was submitted" in line


def test_every_choice_reaches_the_engine(sslrun, npy, tmp_path):
    chosen = ("metric=cosine", "init=k-means++", "empty=keep", "deterministic=true", "seed=3", "iterations=4")
    typed = ("kmeans", f"features={npy}", f"k={K}", *chosen, "cluster=local")
    results = []
    for ranks in (1, 2):
        place = (f"tasks_per_node={ranks}", f"runs={tmp_path / str(ranks)}", "--json")
        answer = sslrun(*typed, *place).json
        results.append(read(Path(answer["path"]) / "clusters"))
    (one, tensors, _), (two, others, _) = results
    options = {"metric": "cosine", "init": "k-means++", "empty": "keep", "deterministic": True}
    assert {name: one[name] for name in options} == options and one["seed"] == 3
    wanted = fit(torch.from_numpy(features()), K, **options, seed=3, iterations=4)
    assert np.array_equal(tensors["centroids"], wanted.centroids.numpy())
    # Exactly the same on any number of ranks.
    assert one["digest"] == two["digest"] and np.array_equal(tensors["centroids"], others["centroids"])
