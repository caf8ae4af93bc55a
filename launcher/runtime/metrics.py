"""What a run says while it trains: metrics.jsonl and TensorBoard every few steps, progress.json for whoever looks."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from launcher.rundir import RunDir, write_json

PROGRESS_SECONDS = 0.3  # how often progress.json is replaced, at most


class Reporter:
    """Rank 0's voice. On other ranks every call does nothing."""

    def __init__(self, run: RunDir, *, speaks: bool, purge_step: int):
        self._run, self._speaks = run, speaks
        self._said = 0.0
        self._row: dict[str, Any] = {}
        self._board = None
        if speaks:
            from torch.utils.tensorboard import SummaryWriter

            # TensorBoard drops points from this step on: they were written by a life that was cut off.
            self._board = SummaryWriter(str(run.path / "tensorboard"), purge_step=purge_step)

    def log(self, step: int, **values: float) -> None:
        """One row of metrics."""
        if not self._speaks:
            return
        with _said_if_full("metrics"):
            with (self._run.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def progress(self, *, force: bool = False, **values: Any) -> None:
        """Replace what the run is doing now; calls closer together than PROGRESS_SECONDS only remember."""
        self._row |= values
        if self._speaks and (force or time.monotonic() - self._said > PROGRESS_SECONDS):
            self._said = time.monotonic()
            with _said_if_full("progress"):
                write_json(self._run.path / "progress.json", self._row, durable=False)

    def image(self, name: str, pixels: Any, step: int) -> None:
        """pixels: uint8 [H, W, 3]."""
        if self._speaks:
            with _said_if_full("picture"):
                self._board.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        if self._board is not None:
            with _said_if_full("tensorboard"):
                self._board.close()


@contextlib.contextmanager
def _said_if_full(what: str) -> Iterator[None]:
    """A full disk is no reason to end a run here: the next save says so, in one clear line."""
    try:
        yield
    except OSError as error:
        print(f"{what}: {error.strerror or error}", flush=True)
