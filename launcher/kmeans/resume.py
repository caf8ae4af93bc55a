"""How a clustering that takes hours stops within a second, and goes on: safe points inside a pass over the features,
and the state between two passes in the caller's hands."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from launcher.kmeans.shards import Ranks

SafePoint = Callable[[str, int, int], None]  # (stage, done, total)

# Operations between two safe points of a pass: below a second on the slowest device of the kind that is worth using.
FLOPS = {"cpu": 2e10, "cuda": 2e12}


class StateSlot(Protocol):
    """Where a caller keeps one state; `launcher.runtime.store.StoreSlot` is one. Both are called on rank 0 alone."""

    def load(self) -> tuple[int, Mapping[str, Any]] | None:
        """(number, tensors and values) of the newest state; None where there is none."""

    def note(self, number: int, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """A newer state. The tensors are not changed any more."""


@dataclass(frozen=True, eq=False)
class Pass:
    """A walk over this rank's rows in chunks, with `between` called equally often on all ranks."""

    rows: int
    longest: int  # rows of the rank that has most
    chunk: int
    flops: float  # a row
    device: torch.device
    between: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[slice]:
        """Slices of the rows. A rank that has fewer chunks than another waits for it at the safe points."""
        whole = 0, self.rows, self.longest, self.flops
        for leg in legs([whole], self.chunk, self.device, 1, self.between):
            yield from (slice(part.start, part.stop) for part in leg)


class Stretch(NamedTuple):
    """A stretch of the rows of one group: places start to stop - 1 among this rank's rows of that group."""

    group: int
    start: int
    stop: int


def legs(
    groups: Iterable[tuple[int, int, int, float]],
    chunk: int,
    device: torch.device,
    workers: int,
    between: Callable[[], None] | None,
) -> Iterator[list[Stretch]]:
    """A walk over this rank's rows of the given groups, in legs with `between` called between any two, equally often on
    all ranks; the parts of a leg may be worked on at the same time, by as many workers as any rank has.

    groups: (its number, rows of this rank, of the rank that has most, operations a row) of each.
    """
    leg: list[Stretch] = []
    budget = FLOPS.get(device.type, FLOPS["cuda"])
    spent, chunks, first = 0.0, 0, True
    for group, rows, longest, flops in groups:
        for start in range(0, longest, chunk):
            if not first and chunks == 0 and between:
                between()
            first = False
            if start < rows:
                leg.append(Stretch(group, start, min(start + chunk, rows)))
            spent, chunks = spent + flops * chunk, chunks + 1
            if spent >= budget * workers and chunks % workers == 0:  # every worker has as much to do
                yield leg
                leg, spent, chunks = [], 0.0, 0
    yield leg


def loaded(
    slot: StateSlot | None,
    shapes: Mapping[str, tuple[int, ...]],
    fits: Callable[[Mapping[str, Any]], bool],
    ranks: Ranks,
    device: torch.device,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """What rank 0 finds in `slot`, on all ranks: float32 tensors of `shapes` and values, as JSON has them, that `fits`
    accepts; None where there is nothing like that. Collective."""
    if slot is None:
        return None
    found = slot.load() if ranks.rank == 0 else None
    state = dict(found[1]) if found else {}
    values = {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}
    good = bool(found) and all(tuple(getattr(state.get(n), "shape", ())) == shape for n, shape in shapes.items())
    text = json.dumps(values).encode() if good and fits(values) else b""
    length = ranks.table([len(text)])[0][0]
    if not length:
        return None
    values = json.loads(ranks.told(text, length, 0))
    tensors = {}
    for name, shape in shapes.items():
        # As integers: what arrives must be the same bits, and 0.0 + -0.0 is not.
        bits = torch.zeros(shape, dtype=torch.int32, device=device)
        if ranks.rank == 0:
            bits.copy_(state[name].contiguous().view(torch.int32))
        tensors[name] = ranks.sum(bits).view(torch.float32)
    return tensors, values
