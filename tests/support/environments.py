"""Small virtual environments to be packed."""

import subprocess
import sys
from pathlib import Path


def environment_at(folder: Path) -> Path:
    """The interpreter of a new virtual environment that stands on ours."""
    subprocess.run([sys._base_executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def packages(python: Path) -> Path:
    return next(python.parents[1].glob("lib/python*/site-packages"))
