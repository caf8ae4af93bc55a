"""A rank that stands still is named, with its host, and every rank's log says where it stood."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from PIL import Image

from launcher import heartbeats
from launcher.rundir import Ledger, RunDir
from launcher.runtime.health import Heart

pytestmark = pytest.mark.fault

HOST = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
STALL = "cluster.stall_minutes=0.2"  # 12 seconds: longer than any import on a busy machine


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.2)
    return value


def test_a_rank_that_stays_stopped_ends_the_others_in_bounded_time(sslrun, watched, endless):
    launcher = sslrun.start(*endless, "tasks_per_node=2", STALL, f"runs={watched.runs}")
    watched.reach(4, launcher)
    stopped = json.loads((watched.path / "heartbeats" / "rank1.json").read_text())["pid"]
    os.kill(stopped, signal.SIGSTOP)
    answer = sslrun.finish(launcher, timeout=60)
    assert answer.code == 4
    assert f"stuck: rank 1 on {HOST}: no sign of life while the others waited" in answer.complaint
    assert watched.gone()
    assert watched.events("end")[0]["cause"] == "stuck"


def test_a_stopped_process_is_named_and_the_others_say_where_they_wait(sslrun, watched, endless):
    launcher = sslrun.start(*endless, "tasks_per_node=2", STALL, f"runs={watched.runs}")
    watched.reach(4, launcher)
    run = watched.path
    assert sslrun.show(run)["waits_for"] == []
    stopped = json.loads((run / "heartbeats" / "rank1.json").read_text())["pid"]
    os.kill(stopped, signal.SIGSTOP)
    before = watched.step()

    event = until(lambda: [e for e in watched.events("stalled") if e["stage"] != "starting"])[0]
    assert (event["rank"], event["node"], event["writer"]) == (0, HOST, "health0")
    assert before <= event["step"] <= before + 2
    log = run / "logs" / "rank0.log"
    until(lambda: "most recent call first" in log.read_text())
    assert 'methods/engine.py", line' in log.read_text()
    assert "rank 0 on " + HOST + ": no progress" in log.read_text()

    suspects = until(lambda: [s for s in sslrun.show(run)["waits_for"] if "no sign of life" in s["why"]])
    assert [(s["rank"], s["host"]) for s in suspects] == [(1, HOST)]
    text = sslrun("show", run).out
    assert f"waits_for     rank 1 on {HOST}: no sign of life" in text
    assert "stalled       1 ranks; their stacks are in" in text

    os.kill(stopped, signal.SIGCONT)
    watched.reach(watched.step() + 20, launcher)  # nobody was ended
    until(lambda: sslrun.show(run)["waits_for"] == [])
    assert len([e for e in watched.events("stalled") if e["stage"] != "starting" and e["rank"] == 0]) == 1
    launcher.kill()


def test_a_rank_that_hangs_in_a_read_is_behind_those_that_wait_for_it(sslrun, watched, tmp_path):
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

    suspect = until(lambda: sslrun.show(watched.path)["waits_for"])
    assert len(suspect) == 1
    assert (suspect[0]["host"], suspect[0]["stage"]) == (HOST, "data")
    assert "behind the others" in suspect[0]["why"]
    logs = [watched.path / "logs" / f"rank{rank}.log" for rank in range(2)]
    answer = sslrun.finish(launcher, timeout=60)
    assert (answer.code, watched.events("end")[0]["cause"]) == (4, "stuck")
    assert f"stuck: rank {suspect[0]['rank']} on {HOST}: behind the others, last in data" in answer.complaint
    reading = ['methods/data/folder.py", line' in log.read_text() for log in logs]
    assert reading == [suspect[0]["rank"] == 0, suspect[0]["rank"] == 1]


def test_the_stacks_are_written_while_a_c_call_keeps_the_interpreter(tmp_path):
    (tmp_path / "events").mkdir()
    program = f"""
        import re
        from launcher.rundir import RunDir
        from launcher.runtime.health import Heart
        Heart(RunDir({str(tmp_path)!r})).start(0.5)
        def stuck():
            re.match("(a+)+$", "a" * 30 + "b")  # for minutes, without letting any other thread run
        stuck()
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr.readline().startswith("Timeout (0:00:00.")
        assert any("in stuck" in line for line in process.stderr)
    finally:
        process.kill()
        process.wait()


def test_a_process_that_was_stopped_does_not_count_itself_among_those_that_wait(tmp_path):
    """Whoever ends a job lets stopped processes go on first, and they must not look like the others then."""
    (tmp_path / "events").mkdir()
    program = f"""
        import time
        from launcher.rundir import RunDir
        from launcher.runtime.health import Heart
        Heart(RunDir({str(tmp_path)!r})).start(4.0)
        time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stderr=subprocess.DEVNULL)
    try:
        file = tmp_path / "heartbeats" / "rank0.json"
        until(file.exists)
        process.send_signal(signal.SIGSTOP)
        before = json.loads(file.read_text())["beat"]
        time.sleep(9)
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
        Ledger(run, generation, "launcher").write("start", cause="submitted", world_size=3)

    def start(count: int, *, generation: int = 2, stall_s: float = 1.0) -> list[Heart]:
        for rank in range(count):
            made.append(Heart(run, generation=generation, rank=rank, size=count).start(stall_s))
            made[-1].joined()
        return made

    yield start
    for heart in made:
        heart.stop()


def test_a_clock_that_is_off_by_an_hour_makes_nobody_suspect(hearts, tmp_path):
    ranks = hearts(3)
    end = time.monotonic() + 4  # longer than the patience with a silent rank
    while time.monotonic() < end:
        for heart in ranks:
            heart.point("training")
        for rank, hours in ((0, -1), (1, 1)):
            file = tmp_path / "heartbeats" / f"rank{rank}.json"
            if file.exists():
                os.utime(file, (time.time() + 3600 * hours,) * 2)
        time.sleep(0.05)
        assert heartbeats.slowest(RunDir(tmp_path)) == []


def test_ranks_that_were_never_heard_of_are_named_and_earlier_lives_are_not(hearts, tmp_path):
    for heart in hearts(3, generation=1):
        heart.stop()
    time.sleep(0.5)
    hearts(2)
    assert heartbeats.slowest(RunDir(tmp_path)) == []  # it has only just begun
    suspects = until(lambda: heartbeats.slowest(RunDir(tmp_path)))
    assert [str(suspect) for suspect in suspects] == ["rank 2: not heard of yet"]


def test_a_mark_costs_next_to_nothing(hearts):
    """A step marks a dozen times; the shortest steps take 10 ms, and 1 % of these is 100 microseconds."""
    (heart,) = hearts(1)

    def seconds(count: int) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            heart.mark("training")
        return (time.perf_counter() - begin) / count

    assert min(seconds(10_000) for _ in range(5)) < 8e-6


def test_zero_turns_it_off_and_less_is_refused(sslrun, one_line, hearts, tmp_path):
    answer = sslrun("method=rotnet", "recipe=tiny", "cluster.stall_minutes=-1", f"runs={tmp_path}", code=2)
    assert "cluster.stall_minutes=-1" in one_line(answer)
    hearts(1, stall_s=0, generation=3)
    hearts(1, stall_s=0.3)
    until(lambda: (tmp_path / "events" / "0002-health0.jsonl").exists())
    assert not (tmp_path / "events" / "0003-health0.jsonl").exists()
