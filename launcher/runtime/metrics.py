"""What a run says while it trains: metrics.jsonl and TensorBoard every few steps, progress.json for whoever looks."""

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from launcher.run.files import append, write_json
from launcher.run.folder import RunDir
from launcher.run.ledger import History

PROGRESS_SECONDS = 0.3  # how often progress.json is replaced, at most


class Reporter:
    """Rank 0's voice, from `start` on. Until then, and on other ranks, every call does nothing."""

    def __init__(self, run: RunDir, *, main: bool, generation: int):
        """generation: of the start that speaks, so that nobody takes its word for that of the next one."""
        self._run, self._main, self._speaks = run, main, False
        self._said = 0.0
        # A rename over a file that is there takes a disk milliseconds, which no step waits for.
        self._behind, self._written = ThreadPoolExecutor(1, "progress"), Future[None]()
        self._written.set_result(None)
        self._row: dict[str, Any] = {"generation": generation}
        self._board, self._at_the_end = None, []

    def start(self, *, purge_step: int) -> None:
        """Speak from now on. TensorBoard drops its points from `purge_step` on: a start that was cut off wrote them."""
        if self._main:
            from torch.utils.tensorboard import SummaryWriter

            self._speaks = True
            with _said_if_full("tensorboard"):
                self._board = SummaryWriter(str(self._run.path / "tensorboard"), purge_step=purge_step)
                self._at_the_end = self._hyperparameters()

    def _hyperparameters(self) -> list[Any]:
        """Tell TensorBoard's HPARAMS what the sweeps of this run vary, and which score they are about: a scalar like
        any other, which comes when it is known. An evaluation says so of the run that it judges. Returns what to write
        when the run is done."""
        from torch.utils.tensorboard.summary import hparams

        values, metrics = swept((self._run.owner or self._run).history())
        if not values:
            return []
        *begin, end = hparams(values, dict.fromkeys(metrics, 0.0))
        for part in begin:
            self._board.file_writer.add_summary(part)
        return [end]

    def log(self, step: int, **values: float) -> None:
        """One row of metrics."""
        if not self._speaks:
            return
        with _said_if_full("metrics"):
            row = {"step": step, "time": round(time.time(), 3), **values}
            append(self._run.path / "metrics.jsonl", json.dumps(row).encode() + b"\n", durable=False)
            for name, value in values.items() if self._board else ():
                self._board.add_scalar(name, value, step)

    def progress(self, *, force: bool = False, **values: Any) -> None:
        """Replace what the run is doing now, behind what it does; calls closer together than PROGRESS_SECONDS, or than
        the disk takes, only remember. force: it is there when this returns."""
        if not self._speaks:
            return
        self._row |= values
        if force or (time.monotonic() - self._said > PROGRESS_SECONDS and self._written.done()):
            self._said = time.monotonic()
            self._written.result()  # raises what the one before met
            self._written = self._behind.submit(self._replace, dict(self._row))
            if force:
                self._written.result()

    def _replace(self, row: dict[str, Any]) -> None:
        with _said_if_full("progress"):
            write_json(self._run.path / "progress.json", row, durable=False)

    def image(self, name: str, pixels: Any, step: int) -> None:
        """pixels: uint8 [H, W, 3]."""
        if self._board:
            with _said_if_full("picture"):
                self._board.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._written.result()
        if self._board is not None:
            with _said_if_full("tensorboard"):
                for part in self._at_the_end if self._row.get("stage") == "done" else ():
                    self._board.file_writer.add_summary(part)
                self._board.close()


def swept(history: History) -> tuple[dict[str, Any], list[str]]:
    """({what varies: the run's own value}, [tags of the scores]) of every sweep that a ledger names."""
    values: dict[str, Any] = {}
    metrics: list[str] = []
    for event in history.all("sweep"):
        own = {event["axis"]: event["at"], "seed": event["seed"]} if "axis" in event else event["values"]
        values |= {key: _number(value) for key, value in own.items()}
        metrics.append(event.get("metric", "knn.trained").replace(".", "/"))
    return values, list(dict.fromkeys(metrics))


def _number(value: Any) -> Any:
    """A number where it is one: an override of a multirun is text, and TensorBoard draws axes of numbers."""
    with contextlib.suppress(TypeError, ValueError):
        return float(value)
    return str(value)


@contextlib.contextmanager
def _said_if_full(what: str) -> Iterator[None]:
    """A full disk is no reason to end a run here: the next save says so, in one clear line."""
    try:
        yield
    except OSError as error:
        print(f"{what}: {error.strerror or error}", flush=True)
