"""The threads that share the work on a CPU."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


class Crew:
    """As many workers as torch has threads, each of one thread; a context manager.

    Every worker takes whole chunks. Torch's own threads would share each product instead and meet after each of some
    ten operations a chunk: on a machine where others run, too, most of their time is spent waiting for the last one.
    """

    def __init__(self, device: torch.device, make: Callable[[], Any]):
        """make: makes what one worker needs for itself, buffers for example."""
        self.size = torch.get_num_threads() if device.type == "cpu" else 1
        self._own = [make() for _ in range(self.size)]
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Crew":
        if self.size > 1:
            self._pool = ThreadPoolExecutor(self.size, thread_name_prefix="k-means", initializer=_alone)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown()
            self._pool = None

    def run(self, work: Callable[[Any, Any], None], items: Iterable[Any]) -> None:
        """work(what the worker has for itself, item) for every item, each once, in any order."""
        if self._pool is None:
            for item in items:
                work(self._own[0], item)
            return
        items = list(items)
        todo = iter(items)  # next() of a list's iterator is atomic

        def serve(own: Any) -> None:
            for item in todo:
                work(own, item)

        # The number of threads is one for the whole process: set back as soon as the workers are through.
        torch.set_num_threads(1)
        try:
            for future in [self._pool.submit(serve, own) for own in self._own[: len(items)]]:
                future.result()
        finally:
            torch.set_num_threads(self.size)


def _alone() -> None:
    """A worker starts with one thread and without gradients, which are settings of each thread."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
