"""A bar for work that a command does itself, and of which nobody knows beforehand whether it takes an instant."""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from launcher import durations
from launcher.report.screen import console

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_SECONDS = 10.0  # between two lines where there is no terminal
PATIENCE_SECONDS = 0.5  # of a person, who needs no bar before
STOPPED = "stopped; the same command goes on"


class Bar:
    """Called with (what is done, of it so far, all of it or 0 where that is not known).

    A bar on a terminal, a line now and then elsewhere; `stopped` is said on Ctrl-C.
    """

    def __init__(self, stopped: str) -> None:
        self._screen, self._stopped = console(stderr=True), stopped
        self._bar: Progress | None = None
        self._made = self._said = time.monotonic()
        self._stage, self._task, self._began = "", None, (0.0, 0)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
        if kind is KeyboardInterrupt:
            self._screen.print(self._stopped, soft_wrap=True)

    def __call__(self, stage: str, done: int, of: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began = stage, (now, done)
            if self._bar and self._task is not None:
                self._bar.remove_task(self._task)
            self._task = None
        if self._screen.is_terminal:
            self._draw(stage, done, of, now)
        elif now - self._said > PLAIN_SECONDS and done > self._began[1]:
            self._said = now
            left = (now - self._began[0]) * (of - done) / (done - self._began[1])
            figures = f"{done / of:.0%}, {durations.exact(left)} left" if of else f"{done:,}"
            self._screen.print(f"{stage}: {figures}", soft_wrap=True)

    def _draw(self, stage: str, done: int, of: int, now: float) -> None:
        if not self._bar and now - self._made > PATIENCE_SECONDS:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            percent = TextColumn("{task.percentage:>3.0f} %")
            columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), percent
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._screen, transient=True)
            self._bar.start()
        if self._bar:
            if self._task is None:
                self._task = self._bar.add_task(stage, total=of or None)
            self._bar.update(self._task, completed=done)
