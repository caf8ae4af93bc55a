"""`sslrun shards`: a folder of images as a few large tars, and the index of a folder of tars."""

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import TracebackType

from launcher.errors import InputError
from launcher.verbs import arguments

EXAMPLE = "sslrun shards /data/images /scratch/shards"
PLAIN_SECONDS = 10.0  # between two lines where there is no terminal


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="images; without OUT, tars to index")
    parser.add_argument(
        "out", metavar="OUT", nargs="?", help="where the shards go: an empty folder, or what is there of them"
    )
    parser.add_argument("--size-mb", type=float, default=1000, metavar="MB", help="of a shard, 1000 by default")
    parser.add_argument("--labels", default="auto", help="auto, folders or none, as of data=image_folder")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="files read at once, 8 by default")
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Convert a folder of images into shards for data=shards, or, without OUT, index a folder of tars. Started again it
    goes on where it was stopped; finished shards stay."""
    from methods.data.convert import convert
    from methods.data.shard_index import index_all

    if not 0 < options.size_mb < 1e6:
        raise InputError.of("--size-mb", options.size_mb, "no size of a shard", "give 1 to 1000000, better about 1000")
    if options.workers < 1:
        raise InputError.of("--workers", options.workers, "nobody would work", "give 1 or more")
    known = ("auto", "folders", "none")
    if options.labels not in known:
        raise InputError.of("--labels", options.labels, "unknown", f"choose one of {', '.join(known)}")
    folder, made = Path(options.out or options.folder).expanduser().absolute(), {}
    with _Bar() as bar:
        if options.out:
            made = convert(
                options.folder,
                folder,
                size_mb=options.size_mb,
                labels=options.labels,
                threads=options.workers,
                progress=bar,
            )
        try:
            found = index_all(folder, workers=options.workers, anew=not options.out, progress=bar)
        except ValueError as error:
            raise InputError(str(error).replace("data.path", "OUT" if options.out else "FOLDER")) from None
    answer = {"path": str(folder), **found, **made}
    for tar, problem in answer["damaged"]:
        print(f"damaged: {tar}: {problem}; what can be read of it is in the index", file=sys.stderr)
    print(
        f"{answer['images']:,} images in {answer['shards']:,} shards: data=shards data.path={folder}", file=sys.stderr
    )
    if options.json:
        print(json.dumps(answer))
    return 0


class _Bar:
    """Called with (what is done, of it so far, all of it): a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from launcher import view

        self._screen = view.console()
        columns = TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.percentage:>3.0f} %")
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self._screen, transient=True)
        self._stage, self._task, self._said, self._began = "", None, time.monotonic(), (0.0, 0)

    def __enter__(self) -> "_Bar":
        if self._screen.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._screen.is_terminal:
            self._bar.stop()
        if kind is KeyboardInterrupt:
            self._screen.print("stopped; the same command goes on where this one was", soft_wrap=True)

    def __call__(self, stage: str, done: int, of: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began = stage, (now, done)
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(stage, total=of)
        self._bar.update(self._task, completed=done)
        if not self._screen.is_terminal and now - self._said > PLAIN_SECONDS and done > self._began[1]:
            self._said = now
            left = (now - self._began[0]) * (of - done) / (done - self._began[1])
            self._screen.print(f"{stage}: {done / of:.0%}, {_duration(left)} left", soft_wrap=True, markup=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
