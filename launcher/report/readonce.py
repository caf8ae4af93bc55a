"""A run whose files are read once: what follows from them is asked for several times."""

import functools
from pathlib import Path

from launcher.run.folder import RunDir


class ReadOnce(RunDir):
    """It stays as it was at the first question; who wants news takes another."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.history = functools.cache(super().history)
        self.spec = functools.cache(super().spec)
        self.progress = functools.cache(super().progress)
