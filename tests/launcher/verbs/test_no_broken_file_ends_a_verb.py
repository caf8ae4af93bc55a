"""Whatever the files hold that a verb reads, it answers: no traceback, no waiting, and nothing outside is touched."""

import contextlib
import fcntl
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import breakage
import numpy as np
import pytest
from PIL import Image

from launcher import cli
from launcher.run.files import write_json
from launcher.run.ledger import Ledger
from launcher.start import local, submit

STOPPED, DONE = "rotnet-tiny-d438549a", "rotnet-tiny-caa2e7a3"
LIVE, ASKED = "live", "asked"  # one at work, one that was submitted
HANGS = 10.0  # seconds after which nobody waits any more
MEMORY = 3 * 2**30  # bytes beyond what the process has already
STRANGER = 65534
BEGINS = 77  # the exit code of what would start a process, or signal one
CODES = (0, 2, 3, 4, 5, 130, BEGINS)
VERBS = 8  # that are asked of one broken file
SWEEP = "swav/queue"

Broken = tuple[str, str, Callable[[Path], None]]  # a file of the folder, what happens to it, and what does it


class Hangs(BaseException):
    """No error that anybody would catch."""


@pytest.fixture(scope="module")
def whole(ledgers_in):
    """A folder with all that is read, and what must stay beside it. Root's tests also read it as somebody else."""
    folder = Path(tempfile.mkdtemp(prefix="broken-"))
    folder.chmod(0o755)
    os.environ["XDG_CACHE_HOME"], before = str(folder / "cache"), os.environ["XDG_CACHE_HOME"]
    (folder / "cache").mkdir(mode=0o777)
    (folder / "cache").chmod(0o777)
    yield _made(folder, ledgers_in)
    os.environ["XDG_CACHE_HOME"] = before
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def _made(folder: Path, ledgers_in) -> Path:
    from methods.data.convert import convert
    from methods.data.shard_index import index_all

    whole = folder / "whole"
    whole.mkdir()
    with tarfile.open(Path(__file__).parents[2] / "support" / "made_before.tar.xz") as kept:
        kept.extractall(whole, filter="data")
    runs = whole / "runs"
    shutil.move(runs / ".code", folder / "code")
    (runs / ".code").symlink_to(folder / "code")
    shutil.copytree(runs / STOPPED, runs / LIVE, symlinks=True)
    with (runs / LIVE / "events" / "0001-launcher.jsonl").open("r+") as file:
        file.truncate(len(file.readline()))
    Image.new("RGB", (4, 4)).save(runs / LIVE / "clusters.png")
    beat = {
        "rank": 0,
        "host": "here",
        "pid": 1,
        "generation": 1,
        "stage": "training",
        "step": 9,
        "points": 3,
        "marks": 1,
    }
    times = {"still_s": 0.1, "stalled": False, "beat": 3, "every_s": 1.0, "joined": True, "alive_s": 5.0}
    for rank in range(2):
        write_json(runs / LIVE / "heartbeats" / f"rank{rank}.json", {**beat, **times, "rank": rank})
    told = json.loads((runs / STOPPED / "spec.json").read_text())
    placed = {key: told[key] for key in ("format", "cluster", "nodes", "tasks_per_node")}
    plan = json.loads((runs / STOPPED / "plan.json").read_text())
    write_json(runs / LIVE / "placement.json", breakage.sealed({**placed, "plan": plan}))
    _say_everything(runs / LIVE)

    made = ledgers_in(runs)
    asked = made.create("method=swav", "recipe=tiny")
    pen = Ledger(asked.path, 1, "submit")
    pen.write("intent", token="token", index=None, folder=str(asked.path / "submit"))
    pen.write("submitted", job="7", token="token", folder=str(asked.path / "submit"))
    (asked.path / "submit").mkdir()
    (asked.path / "submit" / "slurm-7.log").write_text("sslrun: no room\n")
    (asked.path / "code").unlink()
    (asked.path / "code").symlink_to("../.code/" + os.listdir(folder / "code")[0])
    shutil.move(asked.path, runs / ASKED)

    row = {"sweep": SWEEP, "scale": "tiny", "run": STOPPED, "series": "", "value": 0, "at": 0, "seed": 0}
    row |= {"given": [], "kind": "k", "identity": told["identity"], "axis": "method.queue", "metric": "knn.trained"}
    (runs / ".sweeps").mkdir()
    record = {"overrides": [], "time": 1.0, "points": [{**row, "varied": ["seed=0"]}]}
    write_json(runs / ".sweeps" / "swav-queue-tiny-sweep-1.json", record)
    write_json(runs / ".bad_nodes.json", {"n1": {"until": 4e9, "why": "went down", "run": STOPPED}})
    features = runs / STOPPED / "features" / "step_00000009"
    features.mkdir(parents=True)
    write_json(features / "key.json", {"world_size": 1})
    (features / "rank0.1-64.features.safetensors").write_bytes(b"features")

    (whole / "features").mkdir()
    np.save(whole / "features" / "part-0000.npy", np.ones((40, 8), np.float32))
    shutil.copytree(whole / "features", whole / "result" / "assignments")
    write_json(whole / "result" / "summary.json", {"identity": told["identity"], "k": 2})
    for number in range(6):
        place = whole / "images" / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((24, 24, 3), number, np.uint8)).save(place / f"{number}.png")
    convert(whole / "images", whole / "shards", size_mb=0.005)
    index_all(str(whole / "shards"), workers=1, anew=True, progress=lambda *_: None)
    for name in ("elsewhere", "neighbour"):
        (whole / name / "folder").mkdir(parents=True)
        for file in (whole / name / "file", whole / name / "folder" / "file"):
            file.write_text('{"theirs": 1}')
    for path in (whole, *whole.rglob("*")):  # whatever the umask
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    return whole


def _say_everything(run: Path) -> None:
    """One event of every name that is asked for, in its latest start."""
    pen = Ledger(run, 1, "rank0")
    pen.write("restored", step=9, lost_steps=2, lost_seconds=1.5)
    pen.write("health", step=9, of="backbone", what="collapsed")
    pen.write("kept", work=[9, 64])
    pen.write("eval", protocol="knn", step=9, scores={"trained": 20.0, "k10": 19.0})
    pen.write("scored", protocol="linear", step=9, scores={"top1": 20.0})
    pen.write("finished", step=9, seconds={"training": 3.0})
    pen.write("broken_images", count=1, files=["a.jpg"])
    pen.write("sweep", sweep=SWEEP, scale="tiny", given=[], kind="k", series="", value=0, at=0, seed=0, identity="x")
    pen.write("error", message="it broke", exit_code=4, cause="crash", alive_s=3.0)


def verbs(whole: Path) -> dict[str, list[str]]:
    """What is asked of all that is there."""
    runs = f"runs={whole}/runs"
    out = whole / "out"
    asked = {
        "status": ["status", runs],
        "status --csv": ["status", "--csv", runs],
        "status --json": ["status", "--json", runs],
        "status --where": [
            "status",
            "--where",
            "state=done",
            "--sort=evals.knn.trained",
            "--columns=id,loss,started",
            runs,
        ],
        "best": ["best", "knn.trained", runs],
        "sweep list": ["sweep", "list", "swav", runs],
        "report sweep": ["report", f"sweep={SWEEP}", "recipe=tiny", f"--out={out}.html", runs],
        "cancel sweep": ["cancel", "-y", "swav-queue-tiny-sweep-1", runs],
        "plan init_from": ["plan", "method=rotnet", "recipe=tiny", f"init_from={STOPPED}", runs],
        "plan continue_from": ["plan", "method=rotnet", f"continue_from={DONE}", "method.epochs=9", runs],
        "plan shards": ["plan", "method=rotnet", "recipe=tiny", "data=shards", f"data.path={whole}/shards"],
        "kmeans --plan": ["kmeans", "--plan", f"features={whole}/features", "k=2", runs],
        "kmeans out": ["kmeans", f"features={whole}/features", "k=2", f"out={whole}/result", runs],
        "kmeans run": ["kmeans", "--plan", f"features={STOPPED}", "k=2", runs],
        "shards": ["shards", f"{whole}/shards"],
        "shards OUT": ["shards", f"{whole}/images", f"{whole}/shards", "--size-mb=0.005"],
        "doctor": ["doctor", f"runs={whole}/runs"],
    }
    for run in (LIVE, STOPPED, DONE, ASKED):
        asked |= {
            f"show {run}": ["show", run, runs],
            f"show {run} --json": ["show", run, "--json", runs],
            f"logs {run}": ["logs", "--all", run, runs],
            f"report {run}": ["report", run, f"--out={out}.html", runs],
            f"export {run}": ["export", run, f"--out={out}.safetensors", runs],
            f"eval {run}": ["eval", run, "protocol=logistic", runs],
            f"cancel {run}": ["cancel", "-y", run, runs],
            f"resume {run}": ["resume", run, runs],
            f"prune {run}": ["prune", "-y", run, runs],
        }
    return asked


@contextlib.contextmanager
def broken(whole: Path, name: str, how) -> Iterator[Path]:
    """A copy in which what is called `name` was changed, and the lock of one run is held."""
    copy = Path(shutil.copytree(whole, whole.parent / "copy", symlinks=True))
    held = os.open(copy / "runs" / LIVE / "lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        how(copy / name)
        yield copy
    finally:
        os.close(held)
        for path in copy.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(copy)


def trouble(words: list[str], *, well: bool, stranger: bool) -> str:
    """What was wrong with an answer; empty where there was one. well: it must be exit code 0. stranger: somebody else
    asks."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors=how) for how in ("strict", "backslashreplace")]
    before, mask = (sys.stdout, sys.stderr), os.umask(0o022)
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        sys.stdout, sys.stderr = streams
        if stranger:
            os.setegid(STRANGER)
            os.seteuid(STRANGER)
        cli.main(words)
        return "it did not end"
    except SystemExit as end:
        streams[0].flush()
        streams[1].flush()
        said = streams[1].buffer.getvalue().decode(errors="replace").strip()
        return "" if end.code in ((0,) if well else CODES) else f"exit code {end.code}: {said}"
    except BaseException as error:
        return f"{'it hangs' if isinstance(error, Hangs) else 'it raises'}: {traceback.format_exc(limit=-8)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if stranger:
            os.seteuid(0)
            os.setegid(0)
        sys.stdout, sys.stderr = before
        os.umask(mask)


@pytest.fixture
def stopping_short() -> Callable:
    """`with stopping_short():` nothing is started or signalled, and no memory is taken without end."""
    return _stopping_short


@contextlib.contextmanager
def _stopping_short() -> Iterator[None]:
    def begin(*_: object, **__: object) -> None:
        raise SystemExit(BEGINS)

    def hear(*_: object) -> None:
        raise Hangs

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most, before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, hear)
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((local, "run"), (submit, "submit"), (os, "kill")):
            patch.setattr(module, name, begin)
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, most[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, most)
            signal.signal(signal.SIGALRM, before)


def entries(whole: Path) -> list[Path]:
    kept = whole.parent / "code", whole / "elsewhere", whole / "neighbour"
    return [p for p in sorted(whole.rglob("*")) if not p.is_symlink() and not any(p.is_relative_to(k) for k in kept)]


def broken_files(whole: Path) -> tuple[list[Broken], list[Broken]]:
    """What may happen to files and folders as such, and what files of JSON may hold."""
    elsewhere, found = whole.parent / "copy" / "elsewhere", ([], [])
    for path in entries(whole):
        name = str(path.relative_to(whole))
        found[0].extend((name, *way) for way in breakage.ways(path, elsewhere))
        found[1].extend((name, *way) for way in breakage.contents(path))
    return found


def about(name: str, asked: dict[str, list[str]]) -> list[str]:
    """The verbs that may read the file `name`."""
    runs = [run for run in (LIVE, STOPPED, DONE, ASKED) if f"runs/{run}" in name]
    others = [run for run in (LIVE, STOPPED, DONE, ASKED) if run not in runs]
    return [verb for verb in asked if not runs or verb.split()[-1] not in others]


def check(whole: Path, broken_file: Broken, choose: Callable[[list[str]], list[str]]) -> tuple[int, list[str]]:
    """(how many verbs were asked, what was wrong)."""
    name, way, how = broken_file
    wrong, stranger = [], way == "forbidden" and os.geteuid() == 0
    with broken(whole, name, how) as copy:
        asked = verbs(copy)
        chosen = sorted(choose(about(name, asked)), key=list(asked).index)
        for verb in chosen:
            outside = [breakage.state_of(copy / part) for part in ("elsewhere", "neighbour")]
            # One run that is broken is one row.
            well = verb.startswith("status") and name.startswith("runs/") and "--where" not in verb
            if said := trouble(asked[verb], well=well, stranger=stranger):
                wrong.append(f"{name}, {way}: {verb}: {said}")
            if outside != [breakage.state_of(copy / part) for part in ("elsewhere", "neighbour")]:
                wrong.append(f"{name}, {way}: {verb}: it touched what lies elsewhere")
    return len(chosen), wrong


def fuzz(whole: Path, count: int, draw: random.Random, leave_out: Sequence[str] = ()) -> None:
    """So many cases, half of them of files as such. A case is a broken file and a verb."""

    def answered(asked: list[str]) -> list[str]:
        return [verb for verb in asked if not verb.startswith(tuple(leave_out))]

    def some(asked: list[str]) -> list[str]:
        there = answered(asked)
        return draw.sample(there, min(VERBS, len(there)))

    # First all of them where nothing is broken: what they import may be closed to somebody else.
    done, wrong = check(whole, ("runs", "nothing", lambda _: None), answered)
    kinds = [draw.sample(kind, len(kind)) for kind in broken_files(whole)]
    for each in itertools.chain.from_iterable(zip(*kinds, strict=False)):
        asked, found = check(whole, each, some)
        done, wrong = done + asked, wrong + found
        if done >= count:
            break
    print(f"{done} cases")
    assert not wrong, f"{len(wrong)} of {done}:\n" + "\n".join(wrong[:10])


def test_some_broken_files_end_no_verb(whole, stopping_short):
    with stopping_short():
        fuzz(whole, 120, random.Random(0), leave_out=("export", "kmeans run", "sweep list"))  # torch, and every table


def test_what_once_ended_or_held_them(whole, stopping_short):
    asked = ["status", "status --csv", *(f"{verb} {LIVE}" for verb in ("show", "logs", "report", "resume"))]
    ledger = f"runs/{LIVE}/events/0001-rank0.jsonl"
    lines = {name: way for name, way in breakage.contents(whole / ledger) if name in ("line '5'", f"line {'[' * 12!r}")}
    ways = dict(breakage.ways(whole / ledger, whole.parent / "copy" / "elsewhere"))
    known = [(ledger, *line) for line in lines.items()]
    for name in (ledger, f"runs/{LIVE}/spec.json", f"runs/{LIVE}/progress.json"):
        known += [(name, way, ways[way]) for way in ("FIFO", "link to /dev/zero", "huge")]
    assert len(known) == 11
    with stopping_short():
        for each in known:
            assert check(whole, each, lambda _: asked) == (len(asked), []), each[:2]


@pytest.mark.slow
def test_thousands_of_broken_files_end_no_verb(whole, stopping_short):
    """SSLRUN_FUZZ: how many; other numbers are other cases, too."""
    import torch  # noqa: F401 before memory is short

    count = int(os.environ.get("SSLRUN_FUZZ", 4000))
    with stopping_short():
        fuzz(whole, count, random.Random(count))
