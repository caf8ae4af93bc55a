"""The terminal closes, the reader of a pipe goes, the disk of a redirected log is full: the run goes on all the same,
and saves when it is told to stop. Its rank is a stand-in that says a line every few milliseconds."""

import os
import pty
import signal
import subprocess

import pytest
from warm import SSLRUN

from launcher.compose.training import resolve
from launcher.plan import plan as planning
from launcher.run import snapshot
from launcher.run.folder import RunDir
from launcher.run.snapshot import Snapshot
from launcher.start import local

pytestmark = pytest.mark.fault

RANK = """
import json, os, pathlib, signal, sys, time

run, said = pathlib.Path(sys.argv[1]), []
head = {"generation": int(os.environ["SSLRUN_GENERATION"]), "writer": "rank0", "host": "here", "number": 1, "time": 1.0}

def end(event, code):
    (run / "events" / f"{head['generation']:04d}-rank0.jsonl").write_text(json.dumps({**head, **event}) + "\\n")
    os._exit(code)

signal.signal(signal.SIGTERM, lambda *_: end({"event": "stopped_at_safe_point"}, 75))
while not (run / "go").exists():
    said.append(f"notice {len(said)}")
    (run / ".beside").write_text(json.dumps({"stage": "training", "step": 1, "steps": 2, "notices": said}))
    (run / ".beside").rename(run / "progress.json")
    time.sleep(0.02)
end({"event": "finished", "seconds": {}}, 0)
"""


@pytest.fixture
def run(tmp_path) -> RunDir:
    """Made, and never started."""
    code = tmp_path / "runs" / ".code" / "stand-in"
    for folder in (code / "launcher", code / "launcher" / "start"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (code / "launcher" / "start" / "worker.py").write_text(RANK)
    spec, recipe = resolve(["method=rotnet", "recipe=tiny", "cluster=local", f"runs={tmp_path / 'runs'}"])
    run = RunDir(tmp_path / "runs" / spec.run_id)
    run.create(spec, planning.make(spec, recipe), lambda: Snapshot(code, snapshot.digest_of(code), ""))
    return run


@pytest.fixture
def launched(run, forge, sslrun, until):
    """`launched(file)`: the run on its way, what its launcher says going there."""
    started = []

    def launch(screen: int, program=forge.start, *before: str):
        words = [*before, SSLRUN, "resume", run.path]
        environment = {**sslrun.environment, "PYTHONUNBUFFERED": "1"}
        process = program(words, stdin=subprocess.DEVNULL, stdout=screen, stderr=screen, env=environment)
        started.append(process)
        until(lambda: (run.path / "progress.json").exists() or process.poll() is not None, poll=0.01)
        assert process.poll() is None
        return process

    yield launch
    for process in started:
        process.kill()


def said_more(run: RunDir, launcher: subprocess.Popen, until) -> None:
    """Wait until the launcher has had several lines to show; fails where it ends of them."""
    before = len(run.progress()["notices"])

    def several() -> bool:
        assert launcher.poll() is None
        return len(run.progress()["notices"]) > before + 15

    until(several, poll=0.01)


def ended(run: RunDir) -> tuple[str, str]:
    (end,) = run.history().all("end")
    return end["state"], end["cause"]


def test_the_reader_of_its_pipe_goes_and_it_is_trained_to_the_end(run, launched, until):
    out, screen = os.pipe()
    launcher = launched(screen)
    os.close(screen)
    assert os.read(out, 1)  # as `| head -1` has read enough
    os.close(out)
    said_more(run, launcher, until)
    (run.path / "go").touch()
    assert launcher.wait(60) == 0 and ended(run) == ("done", "done")


def test_ctrl_c_also_ends_the_reader_and_it_is_saved(run, launched, until):
    out, screen = os.pipe()
    launcher = launched(screen)
    os.close(screen)
    os.close(out)  # `2>&1 | tee log`
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(60) == 130 and ended(run) == ("stopped", "stopped")


def test_the_terminal_closes_and_it_is_saved(run, launched, until):
    out, screen = pty.openpty()
    launcher = launched(screen)
    os.close(screen)
    os.close(out)
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):  # of the shell, the kernel, and systemd
        launcher.send_signal(number)
    assert launcher.wait(60) == 130 and ended(run) == ("stopped", "stopped")


def test_after_nohup_the_terminal_closes_and_it_is_trained_to_the_end(run, launched, until):
    out, screen = pty.openpty()
    launcher = launched(screen, subprocess.Popen, "sh", "-c", "trap '' HUP; exec \"$@\"", "as nohup does")
    os.close(screen)
    os.close(out)
    launcher.send_signal(signal.SIGHUP)
    said_more(run, launcher, until)
    (run.path / "go").touch()
    assert launcher.wait(60) == 0 and ended(run) == ("done", "done")


def test_the_disk_of_its_log_is_full_and_it_is_trained_to_the_end(run, launched, until):
    with open("/dev/full", "wb") as screen:
        launcher = launched(screen.fileno())
        said_more(run, launcher, until)
        (run.path / "go").touch()
        assert launcher.wait(60) == 0 and ended(run) == ("done", "done")


def test_whatever_is_wrong_with_what_shows_it_it_is_trained_to_the_end(run, capsys):
    (run.path / "go").touch()

    class Failing:
        def __call__(self) -> None:
            raise KeyError("stage")

    outcome = local.run(run, run.spec(), cause="submitted", watch=Failing())
    assert outcome.state == "done" and ended(run) == ("done", "done")
    assert capsys.readouterr().err == "what the run does cannot be shown: KeyError: 'stage'\n"


def test_a_verb_that_only_reads_ends_with_its_reader(sslrun):
    out, screen = os.pipe()
    os.close(out)
    process = subprocess.Popen([SSLRUN, "sweep", "list", "--json"], stdout=screen, env=sslrun.environment)
    os.close(screen)
    assert process.wait(60) == -signal.SIGPIPE


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("prune RUN -y --json", 4),
        ("show RUN --json", 4),
        ("prune --help", 4),
        ("show --help", 4),
        ("show no --json", 2),
    ],
)
def test_an_answer_that_could_not_be_written_is_a_failure(fresh, sslrun, words, code):
    command = [SSLRUN, *(fresh.path if word == "RUN" else word for word in words.split())]
    with open("/dev/full", "wb") as disk:
        done = subprocess.run(command, stdout=disk, stderr=subprocess.PIPE, text=True, env=sslrun.environment)
    said = "sslrun: the answer on stdout could not be written: No space left on device"
    assert done.stderr.splitlines()[-1] == said and "Traceback" not in done.stderr
    assert done.returncode == code
