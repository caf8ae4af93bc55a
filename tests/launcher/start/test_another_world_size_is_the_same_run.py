"""A run that goes on with another number of ranks is the same run.

What is equal: the samples of every batch and their order, the targets, the images that share batch statistics, the
masks of dropout and the schedule exactly; so losses and weights to the rounding of sums that other ranks add up in
another order: a relative 1e-5 over the steps until the next clustering. There rounding may decide about a sample that
lies between two clusters; from then on the run is one that another order of summation could have given as well.
"""

import json
import shutil
import signal

import pytest
import torch

LOSS = 1e-5  # relative
# Of a tensor's largest. Where rounding moves a unit over the kink of its ReLU, its gradient differs, not the loss.
WEIGHTS, MOMENTA = 1e-3, 5e-2
# Two epochs of eight steps; DeeperCluster clusters before the second.
DEEPERCLUSTER = (
    "method=deepercluster", "recipe=tiny", "method.epochs=2", "method.global_batch=32", "method.log_every=1",
)  # fmt: skip
# Statistics over 16 of 32 images: on one rank in two passes, on two ranks one pass each, on four over two ranks.
ROTNET = (
    "method=rotnet", "recipe=tiny", "method.epochs=2", "method.log_every=1", "method.batch_norm_group=16",
    "method.dropout=0.3",
)  # fmt: skip

# What couples a batch keeps more: a queue, a cache and groups, a teacher. Rounding grows faster through these.
COUPLED = {"swav": 1e-4, "dino": 1e-4, "smog": 1e-4}


def stop_at(sslrun, watched, until, step, *overrides):
    """The folder of a run on two ranks that was stopped at `step`, or a little later."""
    launcher = sslrun.start(*overrides, "tasks_per_node=2", f"runs={watched.runs}")
    until(lambda: any(row["step"] >= step for row in watched.rows()), poll=0.01)
    launcher.send_signal(signal.SIGINT)
    assert sslrun.finish(launcher).code == 130
    return watched.path


def copy_of(run, folder):
    """A copy of a run with the code that it shares."""
    shutil.copytree(run.parent / ".code", folder / ".code")
    return shutil.copytree(run, folder / run.name, symlinks=True)


def losses(run):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def tensors(run):
    """Everything that its last checkpoint holds."""
    from launcher.runtime import shard

    found = {}
    for file in max(run.glob("checkpoints/step_*")).glob("*.safetensors"):
        for owner, state in shard.read(file).items():
            found |= {f"{owner}/{key}": value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return found


def assert_equal_to_rounding(run, whole):
    ours, theirs = losses(run), losses(whole)
    assert ours.keys() == theirs.keys()
    for step, loss in theirs.items():
        assert ours[step] == pytest.approx(loss, rel=LOSS), f"at step {step}"
    ours, theirs = tensors(run), tensors(whole)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        if tensor.is_floating_point():
            worst = (ours[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-12)
            assert worst < (MOMENTA if name.startswith("optimizer/") else WEIGHTS), f"{name}: {worst:.1e}"
        else:
            assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize(("step", "overrides"), [(9, DEEPERCLUSTER), (6, ROTNET)], ids=["deepercluster", "rotnet"])
def test_on_one_rank_and_on_four_it_ends_as_on_two(sslrun, watched, until, undisturbed, tmp_path, step, overrides):
    """DeeperCluster is stopped after its clustering, and its targets are those of samples, whoever hosts them."""
    run, whole = stop_at(sslrun, watched, until, step, *overrides), undisturbed(2, overrides)
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
        assert_equal_to_rounding(moved, whole)
        ledger = [json.loads(x) for file in moved.glob("events/*") for x in file.read_text().splitlines()]
        assert [e["changes"] for e in ledger if e["event"] == "placed"] == [[f"tasks_per_node: 2 -> {ranks}"]]
        sizes = {e["generation"]: e["world_size"] for e in ledger if e["event"] == "start"}
        assert sizes == {1: 2, 2: ranks}


@pytest.mark.slow
@pytest.mark.parametrize("method", COUPLED)
def test_queues_caches_and_teachers_move_with_it(sslrun, watched, until, undisturbed, tmp_path, method):
    overrides = (f"method={method}", "recipe=tiny", "method.epochs=2", "method.log_every=1")
    run, whole = stop_at(sslrun, watched, until, 9, *overrides), undisturbed(2, overrides)
    last, expected = sslrun.show(whole)["step"], losses(whole)
    for ranks in (1, 4):
        moved = copy_of(run, tmp_path / str(ranks))
        sslrun("resume", moved, f"tasks_per_node={ranks}")
        assert sslrun.show(moved)["step"] == last
        assert losses(moved) == pytest.approx(expected, rel=COUPLED[method])
        ours, theirs = tensors(moved), tensors(whole)
        assert ours.keys() == theirs.keys()
        assert all(ours[name].shape == theirs[name].shape for name in theirs)


def test_there_and_back_again_it_goes_on_with_the_same_bytes(sslrun, watched, until, tmp_path):
    """Moving alone changes nothing: stopped before a step in another world, and moved back, it is byte for byte the
    run that never moved."""
    run = stop_at(sslrun, watched, until, 9, *DEEPERCLUSTER)
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
        ("seed=1",): ("seed=1", "no such key", "tasks_per_node"),
        ("method.lr=1",): ("method.lr=1", "no such key"),
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


def test_a_placement_that_was_edited_is_refused(sslrun, copied, one_line):
    sslrun("resume", copied, "tasks_per_node=2", "cluster.stall_minutes=1")
    file = copied / "placement.json"
    file.write_text(file.read_text().replace('"tasks_per_node": 2', '"tasks_per_node": 4'))
    line = one_line(sslrun("resume", copied, code=2))
    assert "placement.json does not fit: it was edited" in line
