"""Batches of a job's images: a few broken ones are made up for, more end the run."""

import contextlib
from collections.abc import Iterable, Iterator

from launcher.errors import InputError
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.spec.runspec import RunSpec
from methods.data.broken import Tally
from methods.data.dataset import BrokenImage, ImageDataset
from methods.data.loader import Batch, Request, View, batches
from methods.data.prefetch import prefetched
from methods.engine.clock import Clock

NAMED = 50  # broken files that one event of the ledger names


class Loading:
    """`load(view, requests)`, and the tally of what could not be decoded. dataset: the one that is read by default."""

    def __init__(self, spec: RunSpec, world: World, dataset: ImageDataset, ledger: Ledger, clock: Clock):
        self._spec, self._world, self._dataset, self._ledger, self._clock = spec, world, dataset, ledger, clock
        self._tallies: dict[int, Tally] = {}  # by dataset

    def __call__(
        self, view: View, requests: Iterable[Request], *, dataset: ImageDataset | None = None, drop: bool = False
    ) -> Iterator[Batch]:
        """Batches with broken images counted. `drop` leaves them out; otherwise good samples of the batch stand in.

        On a GPU their images are there already, a batch ahead of the step; ids and columns are in host memory.
        """
        dataset, device = dataset or self._dataset, self._world.device
        tally = self._tallies.setdefault(id(dataset), Tally(dataset, self._spec.data.max_broken))
        made = batches(
            dataset,
            view,
            requests,
            workers=self._spec.method.workers,
            pin_memory=device.type == "cuda",
            replace_broken=not drop,
        )
        stream = prefetched(made, device)
        with contextlib.closing(made), contextlib.closing(stream):
            while True:
                try:
                    with self._clock("data"):
                        batch = next(stream, None)
                except BrokenImage as error:  # not one of a batch: no good image can stand in
                    raise InputError.of("data", ..., str(error), "mend them") from None
                if batch is None:
                    return
                fresh = tally.add(batch.ids.numpy(), batch.broken)
                if fresh:
                    self._ledger.write("broken_images", count=self.broken, files=fresh[:NAMED])
                yield batch

    @property
    def broken(self) -> int:
        """Images that this rank could not decode in this start."""
        return sum(len(tally.reasons) for tally in self._tallies.values())

    @property
    def too_many_broken(self) -> bool:
        """On this rank, of any data set that it read."""
        return any(tally.too_many for tally in self._tallies.values())

    def broken_error(self) -> InputError:
        """Collective: names the files of all ranks."""
        mine = [reason for tally in self._tallies.values() for reason in tally.reasons.values()]
        gathered = sorted({reason for part in self._world.gather(mine) for reason in part})
        return InputError.of(
            "data.max_broken",
            self._spec.data.max_broken,
            f"{len(gathered)} images cannot be decoded, more than this share: {', '.join(gathered[:10])}",
            "mend them and resume, or start a new run without them or with a larger share",
        )
