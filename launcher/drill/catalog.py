"""What a fault is: how it is injected, and what must come of it."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from launcher.drill.places import LOCAL, SLURM
from launcher.errors import InputError

if TYPE_CHECKING:
    from launcher.drill.subject import DrilledRun

FAMILIES = ("signals", "kills", "corruption", "disk", "hangs", "races", "nodes", "preemption")

# How many steps may be done twice.
NOTHING = "nothing"
INTERVAL = "one interval"  # between two checkpoints; one more where the kill met a save that was under way
GRACE = "nothing with a grace"  # NOTHING where the partition gives a GraceTime, one interval otherwise
ANY = "any"


@dataclass(frozen=True)
class Fault:
    """`inject` is called while the run trains (`at_start`: as soon as it has been started) and returns when the run
    trains again, or is done; it tells the subject whatever is not as it should be.

    causes: those of the starts that follow, in order, as the ledger calls them; alternatives with a `|`.
    by_hand: what is to be said where somebody must start it again. in_place: whether, on Slurm, the starts that follow
    by themselves are in the same job, which kept its nodes; None: some are. ends_s: within how many seconds of the
    fault the ranks must have ended. alone: not in one run with other faults. needs: what the drill must have been given
    (see engine.Setting). simulated: what the run's processes are to believe; see simulated.py.
    """

    number: int
    name: str
    family: str
    about: str
    inject: "Callable[[DrilledRun], None]"
    causes: Mapping[str, tuple[str, ...]]  # by place
    lost: str
    by_hand: str = ""
    in_place: bool | None = False
    ends_s: float = 120.0
    at_start: bool = False
    alone: bool = False
    needs: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    simulated: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.number} {self.name}"

    def expected(self, place: str, interval: int | str) -> str:
        """For the table. `interval`: steps between two checkpoints."""
        causes = self.causes[place]
        where = " in the same job" if self.in_place and place == SLURM else ""
        again = f"{' and '.join(causes)}, starts again{where}" if causes else "goes on"
        again = f"{self.by_hand}; resumed" if self.by_hand else again
        most = {NOTHING: "0 lost", INTERVAL: f"at most {interval} lost", GRACE: "0 lost in the grace", ANY: ""}
        return ", ".join(filter(None, (again, most[self.lost], "exact")))


_known: dict[str, Fault] = {}


def fault(
    number: int,
    name: str,
    *,
    local: Sequence[str] | None = None,
    slurm: Sequence[str] | None = None,
    **more: object,
):
    """Register the decorated function as the injector of a fault; its docstring says what it does.

    local, slurm: the causes of the starts that follow; None where it cannot be injected there. more: as `Fault` has it.
    """

    def register(inject: "Callable[[DrilledRun], None]") -> "Callable[[DrilledRun], None]":
        given = {LOCAL: local, SLURM: slurm}
        causes = {place: tuple(words) for place, words in given.items() if words is not None}
        family = inject.__module__.rpartition(".")[2]
        about = " ".join((inject.__doc__ or "").split())
        _known[name] = Fault(number, name, family, about, inject, causes, **more)  # type: ignore[arg-type]
        return inject

    return register


@cache
def faults() -> tuple[Fault, ...]:
    """All of them, in the order in which a run meets them."""
    for family in FAMILIES:
        importlib.import_module(f"launcher.drill.{family}")
    return tuple(sorted(_known.values(), key=lambda f: (not f.at_start, FAMILIES.index(f.family))))


def select(wanted: str) -> list[Fault]:
    """The faults that `faults=` names: `all`, numbers and names between commas. Raises InputError for others."""
    words = [word.strip() for word in wanted.strip("[]").split(",") if word.strip()]
    if not words:
        raise InputError.of("faults", wanted, "it names none", "use faults=all")
    known = {str(f.number) for f in faults()} | {f.name for f in faults()} | {"all"}
    for word in words:
        if word not in known:
            listed = ", ".join(map(str, sorted(faults(), key=lambda f: f.number)))
            raise InputError.of("faults", word, "there is no such fault", f"known: all, {listed}")
    return [f for f in faults() if {"all", str(f.number), f.name} & set(words)]
