"""Faults: a checkpoint whose files were damaged, cut short or lost after it was written."""

import shutil
from collections.abc import Callable
from pathlib import Path

from launcher.drill.catalog import ANY, fault
from launcher.drill.subject import DrilledRun
from launcher.errors import RunFailed

STOPPED = {"local": ["stopped"], "slurm": ["cancelled"], "lost": ANY}
OLDER_LOADED = "set aside, the older one loaded"


def _shard(checkpoint: Path) -> Path:
    """The last of its shards: the one of the last rank that has any."""
    return max(checkpoint.glob("*.safetensors"))


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    _replace(file, content)


def _halve(file: Path) -> None:
    content = file.read_bytes()
    _replace(file, content[: len(content) // 2])


def _replace(file: Path, content: bytes) -> None:
    """Another checkpoint, or a pin, may be a link to the same file: that one stays as it is."""
    file.unlink()
    file.write_bytes(content)


def _damaged(run: DrilledRun, damage: Callable[[Path], None]) -> None:
    """Stop, damage the newest checkpoint, resume: it is set aside, and the older one is loaded."""
    run.stop()
    *_, older, newest = run.run.checkpoints()
    damage(newest)
    _resume_from(run, older, newest)


def _resume_from(run: DrilledRun, older: Path, newest: Path) -> None:
    generation = run.run.generation()
    run.resume()
    restored = [e["step"] for e in run.events("restored", since=generation + 1)]
    wanted = int(older.name.rpartition("_")[2])
    run.check(restored == [wanted], f"restored {restored}, not the older step {wanted}")
    aside = list(newest.parent.glob(f"broken-{newest.name}-*"))
    run.check(len(aside) == 1, f"{newest.name} was not set aside")
    for path in aside:
        shutil.rmtree(path)


@fault(12, "truncated-shard", **STOPPED, by_hand=OLDER_LOADED)
def truncated_shard(run: DrilledRun) -> None:
    """Half of a shard of the newest checkpoint is gone"""
    _damaged(run, lambda path: _halve(_shard(path)))


@fault(12, "flipped-bit", **STOPPED, by_hand=OLDER_LOADED)
def flipped_bit(run: DrilledRun) -> None:
    """A bit of a shard of the newest checkpoint is another"""
    _damaged(run, lambda path: _flip(_shard(path)))


@fault(12, "missing-shard", **STOPPED, by_hand=OLDER_LOADED)
def missing_shard(run: DrilledRun) -> None:
    """A shard of the newest checkpoint is gone"""
    _damaged(run, lambda path: _shard(path).unlink())


@fault(12, "missing-manifest", **STOPPED, by_hand=OLDER_LOADED)
def missing_manifest(run: DrilledRun) -> None:
    """The manifest of the newest checkpoint is gone"""
    _damaged(run, lambda path: (path / "manifest.json").unlink())


@fault(12, "no-checkpoint-left", local=["stopped", "damaged", "damaged"], lost=ANY, by_hand="fails, never from step 0")
def no_checkpoint_left(run: DrilledRun) -> None:
    """A bit of every checkpoint is another: the run fails, and never begins anew; with the bits put right it goes on"""
    run.stop()
    folder = run.run.path / "checkpoints"
    kept = folder.with_name("checkpoints-kept")
    shutil.copytree(folder, kept)
    for checkpoint in run.run.checkpoints():
        _flip(_shard(checkpoint))
    for _ in range(2):  # nor does the next one
        refused = run.sslrun("resume", run.run.id)
        code, said = refused.returncode, refused.stderr.strip().splitlines()[-1:]
        run.check(code == RunFailed.exit_code, f"`sslrun resume` ended with {code}: {said}")
    run.check(run.saved() == -1, f"step {run.saved()} was saved by a run that began anew")
    shutil.rmtree(folder)
    kept.rename(folder)
    run.seen.generation = run.run.generation()
    run.resume()


@fault(20, "prune-beside-a-broken-one", **STOPPED, by_hand="the older one stays")
def prune_beside_a_broken_one(run: DrilledRun) -> None:
    """The newest checkpoint is damaged, and `sslrun prune` may keep one: it is the older one, which verifies"""
    run.stop()
    *_, older, newest = run.run.checkpoints()
    _flip(_shard(newest))
    answer = run.sslrun("prune", run.run.id, "--keep", "1", "--yes")
    run.check(answer.returncode == 0, f"`sslrun prune` said: {answer.stderr.strip()}")
    run.check(older.is_dir(), f"{older.name}, the last that verifies, was deleted")
    _resume_from(run, older, newest)
