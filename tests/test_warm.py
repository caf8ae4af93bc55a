"""Forks that stand for new interpreters (warm.py) are like them in everything that a test looks at."""

import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import errors


@pytest.fixture
def asked(forge, tmp_path):
    """`asked(code)`: a fork that runs it."""

    def start(code: str, **options):
        script = tmp_path / "script.py"
        script.write_text(code)
        return forge.start(
            [sys.executable, "-P", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    return start


def test_it_begins_with_the_libraries_and_nothing_of_this_project_and_one_thread(asked):
    out, err = asked(
        "import os, sys\n"
        "print('torch' in sys.modules, any(m.split('.')[0] in ('launcher', 'methods') for m in sys.modules))\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    ).communicate()
    assert (out.split(), err) == (["True", "False", "1"], "")


def test_a_worker_of_pytest_has_the_libraries_too_and_what_a_test_starts_by_itself_is_new(forge):
    worker = Path(__file__).parent / "support" / "pytest_worker.py"
    said = "import subprocess; print('torch' in sys.modules, subprocess.Popen.__module__)"
    fork = forge.start([sys.executable, "-P", worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert fork.communicate(f"{said!r}\n")[0] == "True subprocess\n"
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert sys.orig_argv[1:] == ["-P", str(worker)]


def test_a_copy_of_our_code_is_compiled_already_and_an_edited_one_as_usual(asked, tmp_path):
    copy = tmp_path / "launcher" / "errors.py"
    copy.parent.mkdir()
    (copy.parent / "__init__.py").write_text("")
    script = (
        "import builtins; usual = builtins.compile\n"
        "def compile(source, path, *options, **more): print('compiled'); return usual(source, path, *options, **more)\n"
        "builtins.compile = compile\n"
        "import launcher.errors; print(launcher.errors.harmless.__code__.co_filename)\n"
    )
    said = []
    for edit in (b"", b"\n# edited\n"):
        copy.write_bytes(Path(errors.__file__).read_bytes() + edit)
        out, err = asked(script, env={**os.environ, "PYTHONPATH": str(tmp_path)}).communicate()
        assert not err
        said.append(out.splitlines())
    assert said == [[str(copy)], ["compiled", str(copy)]]


def test_its_environment_folder_and_command_line_are_what_was_given(asked, tmp_path):
    given = {"ONLY": "this", "PATH": "/bin"}
    out, _ = asked(
        "import os\nprint(sorted(os.environ)); print(os.getcwd())\n"
        "print(open('/proc/self/cmdline').read().split('\\0'))",
        cwd=tmp_path,
        env=given,
    ).communicate()
    environment, folder, words = out.splitlines()
    assert environment == "['ONLY', 'PATH']" and Path(folder) == tmp_path.resolve()
    assert str(tmp_path / "script.py") in words


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("import atexit; atexit.register(print, 'end')", 0, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("raise KeyError('x')", 1, "KeyError"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("import signal; raise SystemExit(signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN)", 1, ""),
    ],
    ids=["end", "code", "sentence", "atexit", "signal", "error", "interrupt", "broken pipe"],
)
def test_it_ends_as_an_interpreter_does(asked, code, status, said):
    process = asked(code)
    out, err = process.communicate()
    assert process.returncode == process.poll() == process.wait() == status
    assert said in err and (out == "end\n") == ("atexit" in code)


def test_it_can_be_waited_for_and_signalled(asked):
    process = asked("import time\nprint('here', flush=True)\ntime.sleep(1000)")
    assert process.stdout.readline() == "here\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


def test_subprocess_has_what_is_overridden_in_it():
    """Private names of subprocess.Popen, with the arguments that warm.py reads."""
    wanted = {"args", "preexec_fn", "pass_fds", "cwd", "env", "p2cread", "c2pwrite", "errwrite", "start_new_session"}
    assert wanted <= inspect.signature(subprocess.Popen._execute_child).parameters.keys()
    assert "wait_flags" in inspect.signature(subprocess.Popen._try_wait).parameters
    assert callable(subprocess.Popen._internal_poll) and callable(subprocess.Popen._handle_exitstatus)


def test_a_run_of_forks_is_the_run_of_new_interpreters(sslrun, tmp_path):
    given = "method=rotnet", "recipe=tiny", "method.epochs=1"
    digests = []
    for cold in (False, True):
        run = sslrun(*given, f"runs={tmp_path / str(cold)}", "--json", cold=cold).json["path"]
        digests.append(sslrun.show(run)["state_digest"])
    assert digests[0] == digests[1]
