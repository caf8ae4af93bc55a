"""The code under test is what lies beside these tests: here, on ranks, and in what the command line starts.

Where several checkouts share an environment, the packages that it has installed may be those of another one.
"""

import subprocess
import sys
from pathlib import Path

import launcher
import methods

ROOT = Path(__file__).parents[1]


def packages(_world=None):
    return [launcher.__file__, methods.__file__]


def test_here_and_on_ranks_it_is_this_trees(ranks):
    assert packages() == [str(ROOT / name / "__init__.py") for name in ("launcher", "methods")]
    assert ranks(2, packages) == [packages()] * 2


def test_what_the_command_line_starts_is_this_trees(sslrun, forge, tmp_path):
    """A rank that is not told of a run falls over it, and the traceback says in which file."""
    command = [sys.executable, "-P", "-m", "launcher.start.worker"]
    rank = forge.start(command, env=sslrun.environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    _, said = rank.communicate(timeout=600)
    assert "IndexError" in said and f'File "{ROOT / "launcher" / "start" / "worker.py"}"' in said
