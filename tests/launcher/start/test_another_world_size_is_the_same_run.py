"""A run that goes on with another number of ranks is the same run: its samples, targets, schedule and books.

That its arithmetic is the same, too, is shown in float64 (tests/methods/test_contract.py): in float32 the rounding of
sums that other ranks add up in another order soon decides about something that lies on an edge.
"""

import json
import shutil
import signal

import pytest
import torch

# Two epochs of eight steps; DeeperCluster clusters before the second.
DEEPERCLUSTER = (
    "method=deepercluster", "recipe=tiny", "method.epochs=2", "method.global_batch=32", "method.log_every=1",
)  # fmt: skip
# Statistics over 16 of 32 images; see tests/methods/engine/test_statistics_of_a_group_of_images.py.
ROTNET = (
    "method=rotnet", "recipe=tiny", "method.epochs=2", "method.log_every=1", "method.batch_norm_group=16",
    "method.dropout=0.3",
)  # fmt: skip


@pytest.fixture
def stopped(signalled, watched):
    """`stopped(step, *overrides)`: the folder of a run on two ranks that was stopped by Ctrl-C after `step` steps."""

    def run(step, *overrides):
        words = *overrides, "tasks_per_node=2", f"runs={watched.runs}"
        assert signalled(*words, number=signal.SIGINT, after=step).code == 130
        return watched.path

    return run


def copy_of(run, folder):
    """A copy of a run with the code that it shares."""
    shutil.copytree(run.parent / ".code", folder / ".code")
    return shutil.copytree(run, folder / run.name, symlinks=True)


def decided(run):
    """What its last checkpoint holds that is no rounded number: assignments, targets, counts; and all shapes."""
    from launcher.runtime import shard

    found = {}
    for file in max(run.glob("checkpoints/step_*")).glob("*.safetensors"):
        for owner, state in shard.read(file).items():
            for key, value in state.items():
                exact = isinstance(value, torch.Tensor) and not value.is_floating_point()
                found[f"{owner}/{key}"] = value.tolist() if exact else getattr(value, "shape", None)
    return found


@pytest.mark.parametrize(
    ("step", "overrides"),
    [
        pytest.param(9, DEEPERCLUSTER, id="deepercluster"),
        pytest.param(6, ROTNET, id="rotnet", marks=pytest.mark.slow),
    ],
)
def test_on_one_rank_and_on_four_it_is_the_same_run(sslrun, stopped, undisturbed, tmp_path, step, overrides):
    """DeeperCluster is stopped after its clustering, and its targets are those of samples, whoever hosts them."""
    run, whole = stopped(step, *overrides), undisturbed(2, overrides)
    last = sslrun.show(whole)["step"]
    assert step <= sslrun.show(run)["step"] < last
    for ranks in (1, 4):
        moved = copy_of(run, tmp_path / str(ranks))
        spec = (moved / "spec.json").read_bytes()
        said = sslrun("resume", moved, f"tasks_per_node={ranks}").err
        assert f"tasks_per_node: 2 -> {ranks}" in said
        shown = sslrun.show(moved)
        assert (shown["state"], shown["step"], shown["lost_steps"]) == ("done", last, 0)
        assert shown["where"] == {"cluster": "local", "nodes": 1, "tasks_per_node": ranks}
        assert (moved / "spec.json").read_bytes() == spec
        assert decided(moved) == decided(whole)
        ledger = [json.loads(x) for file in moved.glob("events/*") for x in file.read_text().splitlines()]
        assert [e["changes"] for e in ledger if e["event"] == "placed"] == [[f"tasks_per_node: 2 -> {ranks}"]]
        sizes = {e["generation"]: e["world_size"] for e in ledger if e["event"] == "start"}
        assert sizes == {1: 2, 2: ranks}


@pytest.mark.slow
def test_there_and_back_again_it_goes_on_with_the_same_bytes(sslrun, stopped, tmp_path):
    """Moving alone changes nothing: stopped before a step in another world, and moved back, it is byte for byte the
    run that never moved."""
    run = stopped(9, *DEEPERCLUSTER)
    stayed = copy_of(run, tmp_path / "stayed")
    sslrun("resume", stayed)
    before = sslrun.show(run)["state_digest"]
    lock = run / "lock"
    refused = sslrun("resume", run, "tasks_per_node=3", code=2).complaint
    assert "4m = 8 groups" in refused and "use 1, 2, 4, 8, 16, 32 ranks" in refused
    assert not (run / "placement.json").exists() and lock.exists()
    assert sslrun.show(run)["state_digest"] == before
    sslrun("resume", run, "tasks_per_node=2")
    assert not (run / "placement.json").exists()
    assert sslrun.show(run)["state_digest"] == sslrun.show(stayed)["state_digest"]


def test_what_cannot_be_is_refused_in_one_line_and_changes_nothing(sslrun, interrupted, copied, one_line):
    before = sorted((path, path.stat().st_mtime_ns) for path in copied.rglob("*") if path.is_file())
    for words, parts in {
        ("tasks_per_node=3",): ("nodes x tasks_per_node=3", "do not fit", "use 1, 2, 4, 8, 16, 32, 64 ranks"),
        ("tasks_per_node=0",): ("tasks_per_node=0", "at least 1"),
        ("nodes=2",): ("nodes=2", "cluster=local is this one machine", "tasks_per_node"),
        ("seed=1",): ("seed=1", "stays as it was made"),
        ("method.lr=1",): ("method.lr=1", "stays as it was made"),
        ("cluster=nowhere",): ("cluster=nowhere", "no such name"),
        ("cluster.gpu=2",): ("cluster.gpu=2", "no such key"),
    }.items():
        line = one_line(sslrun("resume", copied, *words, code=2))
        assert all(part in line for part in parts), line
    assert sorted((path, path.stat().st_mtime_ns) for path in copied.rglob("*") if path.is_file()) == before


def test_a_run_at_work_is_not_moved(sslrun, watched, endless, one_line):
    launcher = sslrun.start(*endless, f"runs={watched.runs}")
    watched.reach(2, launcher)
    assert "a run has one writer" in one_line(sslrun("resume", watched.path, "tasks_per_node=2", code=2))
    assert not (watched.path / "placement.json").exists()
    launcher.kill()
    assert watched.gone()


def test_a_placement_that_was_edited_is_refused(sslrun, signalled, copied, one_line):
    moved = "resume", copied, "tasks_per_node=2", "cluster.stall_minutes=1"
    assert signalled(*moved, number=signal.SIGINT, after=9).code == 130
    file = copied / "placement.json"
    file.write_text(file.read_text().replace('"tasks_per_node": 2', '"tasks_per_node": 4'))
    line = one_line(sslrun("resume", copied, code=2))
    assert "placement.json does not fit: it was edited" in line
