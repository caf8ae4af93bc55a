"""How a clustering that takes hours stops within a second, and goes on: safe points inside a pass over the features,
and the state between two passes in the caller's hands."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from launcher.kmeans.shards import Ranks, Shards

SafePoint = Callable[[str, int, int], None]  # (stage, done, total)

# Operations between two safe points of a pass: below a second on the slowest device of the kind that is worth using.
FLOPS = {"cpu": 2e10, "cuda": 2e12}


class Slot(Protocol):
    """Where a caller keeps one state; `launcher.runtime.store.Slot` is one. Both are called on rank 0 alone."""

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
        every = max(1, int(FLOPS.get(self.device.type, FLOPS["cuda"]) / max(1.0, self.flops) / self.chunk))
        for number, start in enumerate(range(0, self.longest, self.chunk)):
            if self.between and number and number % every == 0:
                self.between()
            if start < self.rows:
                yield slice(start, min(start + self.chunk, self.rows))


def passes(
    features: torch.Tensor, shards: Shards, chunk: int, flops: float, between: Callable[[], None] | None
) -> Pass:
    """The pass over `features` [n, d] of this rank, in chunks of `chunk` rows of `flops` operations each."""
    return Pass(len(features), shards.longest, chunk, flops, features.device, between)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A state, the same on all ranks."""

    tensors: Mapping[str, torch.Tensor]
    numbers: Mapping[str, int]
    inertia: list[float]


def loaded(
    slot: Slot | None, shapes: Mapping[str, tuple[int, ...]], numbers: Sequence[str], ranks: Ranks, device: torch.device
) -> Loaded | None:
    """What rank 0 finds in `slot`: float32 tensors of `shapes`, integers of `numbers`; None where there is nothing
    like that. Collective."""
    if slot is None:
        return None
    found = slot.load() if ranks.rank == 0 else None
    state = found[1] if found else {}
    fits = bool(found) and all(tuple(getattr(state.get(n), "shape", ())) == shape for n, shape in shapes.items())
    history = list(state.get("inertia", ()))
    row = [int(fits), len(history), *(int(state.get(name, 0)) for name in numbers)]
    fits, count, *given = ranks.table(row)[0]
    if not fits:
        return None
    tensors = {}
    for name, shape in shapes.items():
        # As integers: what arrives must be the same bits, and 0.0 + -0.0 is not.
        bits = torch.zeros(shape, dtype=torch.int32, device=device)
        if ranks.rank == 0:
            bits.copy_(state[name].contiguous().view(torch.int32))
        tensors[name] = ranks.sum(bits).view(torch.float32)
    sums = torch.zeros(count, dtype=torch.float64, device=device)
    if ranks.rank == 0:
        sums.copy_(torch.tensor(history, dtype=torch.float64))
    return Loaded(tensors, dict(zip(numbers, given, strict=True)), ranks.sum(sums).tolist())
