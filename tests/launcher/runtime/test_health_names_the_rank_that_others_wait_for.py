"""A rank that stands still is named, with its host, and every rank's log says where it stood."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launcher.run import heartbeats
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime import health
from launcher.runtime.health import Heart
from launcher.verbs import show

pytestmark = pytest.mark.fault

HOST = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
# 21 seconds: no machine is so busy that a step of milliseconds takes as long. Ten and more are left until a rank ends.
STALL = "cluster.stall_minutes=0.35"


@pytest.fixture
def shown(capsys, monkeypatch):
    """`shown(run, *words)`: what `sslrun show` prints, in this process: before the ranks that wait end themselves."""
    monkeypatch.setenv("COLUMNS", "100")

    def ask(run: Path, *words: str) -> str:
        parser = ArgumentParser()
        show.add_arguments(parser)
        assert show.run(parser.parse_args([str(run), *words])) == 0
        return capsys.readouterr().out

    return ask


def stalls(watched, rank: int) -> list[dict]:
    """Since training began; the start may take what it takes."""
    return [e for e in watched.events("stalled") if e["stage"] != "starting" and e["rank"] == rank]


@pytest.mark.slow
def test_a_stopped_process_is_named_and_when_it_stays_stopped_the_others_end(sslrun, watched, endless, until, shown):
    def waits_for():
        return json.loads(shown(run, "--json"))["waits_for"]

    launcher = sslrun.start(*endless, "method.log_every=1", "tasks_per_node=2", STALL, f"runs={watched.runs}")
    watched.reach(4, launcher)
    run = watched.path
    until(lambda: waits_for() == [])
    stopped = json.loads((run / "heartbeats" / "rank1.json").read_text())["pid"]
    os.kill(stopped, signal.SIGSTOP)

    (event,) = until(lambda: stalls(watched, 0))
    log = (run / "logs" / "rank0.log").read_text
    until(lambda: "rank 0 on " + HOST + ": no progress" in log())
    suspects, text, last = waits_for(), shown(run), watched.rows()[-1]["step"]
    os.kill(stopped, signal.SIGCONT)
    assert [(s["rank"], s["host"]) for s in suspects] == [(1, HOST)]
    assert "no sign of life" in suspects[0]["why"]
    assert f"waits_for     rank 1 on {HOST}: no sign of life" in text
    assert "stalled       1 ranks; their stacks are in" in text
    assert "most recent call first" in log() and 'methods/engine/loop.py", line' in log()
    assert (event["node"], event["writer"]) == (HOST, "health0")
    assert last <= event["step"] <= last + 2

    watched.reach(last + 20, launcher)  # nobody was ended
    until(lambda: waits_for() == [])
    assert stalls(watched, 0) == [event]

    os.kill(stopped, signal.SIGSTOP)
    answer = sslrun.finish(launcher)
    assert answer.code == 4
    assert f"stuck: rank 1 on {HOST}: no sign of life while the others waited" in answer.complaint
    assert watched.gone()
    assert watched.events("end")[0]["cause"] == "stuck"


@pytest.mark.slow
def test_a_rank_that_hangs_in_a_read_is_behind_those_that_wait_for_it(sslrun, watched, until, shown, tmp_path):
    """Its heart beats on: its process lives."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(80):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    small = ("method=rotnet", "recipe=tiny", "method.global_batch=8", "method.epochs=1000")
    data = ("data=image_folder", f"data.path={images}", "data.labels=none")
    launcher = sslrun.start(*small, *data, "tasks_per_node=2", STALL, f"runs={watched.runs}")
    watched.reach(4, launcher)
    os.mkfifo(images / "fifo")
    (images / "fifo").rename(images / "7.png")  # whoever opens it waits for a writer who never comes

    until(lambda: stalls(watched, 0) and stalls(watched, 1))
    (suspect,) = json.loads(shown(watched.path, "--json"))["waits_for"]
    assert (suspect["host"], suspect["stage"]) == (HOST, "data")
    assert "behind the others" in suspect["why"]
    logs = [watched.path / "logs" / f"rank{rank}.log" for rank in range(2)]
    answer = sslrun.finish(launcher)
    assert (answer.code, watched.events("end")[0]["cause"]) == (4, "stuck")
    assert f"stuck: rank {suspect['rank']} on {HOST}: behind the others, last in data" in answer.complaint
    reading = ['methods/data/folder.py", line' in log.read_text() for log in logs]
    assert reading == [suspect["rank"] == 0, suspect["rank"] == 1]


def started(program: str, **files: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], text=True, **files)


def asleep(pid: int) -> bool:
    """Whether all of its threads wait."""
    states = [file.read_text().rpartition(")")[2].split()[0] for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"S"}


def test_a_process_that_was_stopped_does_not_count_itself_among_those_that_wait(tmp_path, until):
    """Whoever ends a job lets stopped processes go on first, and they must not look like the others then."""
    (tmp_path / "events").mkdir()
    program = f"""
        import signal
        from launcher.run.folder import RunDir
        from launcher.runtime.health import Heart
        from launcher.runtime.watchdog import Watchdog
        Heart(RunDir({str(tmp_path)!r}), watchdog=Watchdog()).start(4.0)
        while True:
            signal.pause()  # which ends where its watchdog asks for the stacks
    """
    process = started(program, stderr=subprocess.DEVNULL)
    try:
        file = tmp_path / "heartbeats" / "rank0.json"
        until(lambda: file.exists() and asleep(process.pid))
        process.send_signal(signal.SIGSTOP)
        before = json.loads(file.read_text())["beat"]
        time.sleep(9)  # longer than a beat of 2 s may be late; more of it does no harm
        process.send_signal(signal.SIGCONT)
        until(lambda: json.loads(file.read_text())["beat"] > before + 1)
        beat = json.loads(file.read_text())
        assert beat["still_s"] > 9 and not beat["stalled"]
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def hearts(tmp_path):
    """`hearts(3)`: three ranks that beat in a run which is in its second generation."""
    (tmp_path / "events").mkdir()
    run, made = RunDir(tmp_path), []
    for generation in (1, 2):
        Ledger(run.path, generation, "launcher").write("start", cause="submitted", world_size=3)

    def start(count: int, *, generation: int = 2, stall_s: float = 1.0) -> list[Heart]:
        started = [Heart(run, generation=generation, rank=rank, size=count).start(stall_s) for rank in range(count)]
        for heart in started:
            heart.joined()
        made.extend(started)
        return started

    yield start
    for heart in made:
        heart.stop()


@pytest.fixture
def hush(until):
    """`hush(hearts)`: they beat no more, and what they told last can be changed with `tell`."""

    def stop(hearts: list[Heart]) -> None:
        for heart in hearts:
            heart.stop()
        until(lambda: not any(thread.name == "heartbeat" for thread in threading.enumerate()))

    return stop


def tell(folder: Path, rank: int, *, hours: float = 0, **changes: object) -> None:
    """Let a heartbeat say something else, by a clock that is so many hours off."""
    file = folder / "heartbeats" / f"rank{rank}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    os.utime(file, (time.time() + 3600 * hours,) * 2)


def test_a_clock_that_is_off_by_an_hour_makes_nobody_suspect(hearts, hush, until, tmp_path):
    made, files = hearts(3), [tmp_path / "heartbeats" / f"rank{rank}.json" for rank in range(3)]
    until(lambda: all(file.exists() and json.loads(file.read_text())["joined"] for file in files))
    hush(made)
    for rank, hours in enumerate((-1, 1, 0)):
        tell(tmp_path, rank, hours=hours, alive_s=3601.0)
    assert heartbeats.slowest(RunDir(tmp_path)) == []
    tell(tmp_path, 2, alive_s=1.0)  # an hour behind by the time since all met
    assert [suspect.rank for suspect in heartbeats.slowest(RunDir(tmp_path))] == [2]


def test_ranks_that_were_never_heard_of_are_named_and_earlier_starts_are_not(hearts, hush, until, tmp_path):
    run = RunDir(tmp_path)
    hush(hearts(3, generation=1))
    made = hearts(2)
    until(lambda: heartbeats.alive(run, 2) == 2)
    suspects = until(lambda: heartbeats.slowest(run))
    assert [str(suspect) for suspect in suspects] == ["rank 2: not heard of yet"]
    hush(made)
    for rank in range(2):
        tell(tmp_path, rank, alive_s=0.1)
    assert heartbeats.slowest(run) == []  # it has only just begun


def test_zero_turns_it_off_and_less_is_refused(sslrun, one_line, until, tmp_path):
    answer = sslrun("method=rotnet", "recipe=tiny", "cluster.stall_minutes=-1", f"runs={tmp_path}", code=2)
    assert "cluster.stall_minutes=-1" in one_line(answer)
    (tmp_path / "events").mkdir()
    program = f"""
        import signal
        from launcher.run.folder import RunDir
        from launcher.runtime.health import Heart
        from launcher.runtime.watchdog import Watchdog
        for generation, stall_s in ((3, 0.0), (2, 0.3)):
            Heart(RunDir({str(tmp_path)!r}), generation=generation, watchdog=Watchdog()).start(stall_s)
        while True:
            signal.pause()  # which ends where its watchdog asks for the stacks
    """
    process = started(program, stderr=subprocess.DEVNULL)
    try:
        until(lambda: (tmp_path / "events" / "0002-health0.jsonl").exists())
        assert not (tmp_path / "events" / "0003-health0.jsonl").exists()
    finally:
        process.kill()
        process.wait()


def test_the_time_of_a_rank_is_counted_from_when_all_had_met(monkeypatch, tmp_path):
    now = [100.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    heart = Heart(RunDir(tmp_path))
    now[0] += 5
    assert heart.alive_s() == 0  # what ends it now keeps all the others from beginning
    heart.joined()
    now[0] += 2
    assert heart.alive_s() == 2


def test_a_rank_says_at_once_that_all_had_met(monkeypatch, tmp_path, until):
    """A rank that is stopped before its next beat would not be compared with the others."""
    monkeypatch.setattr(health, "SHORTEST_BEAT", 3600.0)
    monkeypatch.setattr(health, "LONGEST_BEAT", 3600.0)
    heart = Heart(RunDir(tmp_path)).start(0)
    beat = tmp_path / "heartbeats" / "rank0.json"
    until(lambda: beat.exists() and not json.loads(beat.read_text())["joined"])
    heart.joined()
    until(lambda: json.loads(beat.read_text())["joined"])
    heart.stop()
