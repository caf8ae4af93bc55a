"""A run's folder as its ranks read it, for days: what cannot be read for a moment is waited for (run/waiting.py)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.run.folder import RunDir
from launcher.run.ledger import History
from launcher.run.waiting import patiently


class PatientRunDir(RunDir):
    """Reads as RunDir does, and raises Unreadable where it waited in vain. show: see waiting.patiently."""

    def __init__(self, path: Path | str, show: Callable[[str], None] | None = None):
        super().__init__(path)
        self._show = show

    @property
    def owner(self) -> "PatientRunDir | None":
        found = super().owner
        return found and PatientRunDir(found.path, self._show)

    def spec(self) -> Any:
        return patiently(super().spec, self._show)

    def plan(self) -> dict[str, Any]:
        return patiently(super().plan, self._show)

    def history(self) -> History:
        return patiently(super().history, self._show)

    def checkpoints(self) -> list[Path]:
        return patiently(super().checkpoints, self._show)
