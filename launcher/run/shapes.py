"""What is believed of the small files in a folder of runs: which keys each must have, and of which kind every value is
that is known. Others may write there, disks break, and another version may have another mind.

A name means one kind of thing wherever it stands, but for those that an event lists itself. What is not known here is
let through: nobody asks for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.run.files import NotOurs, read_json

Shape = Callable[[Any], bool]
Shapes = Mapping[str, Shape]
LARGEST = 2**53  # of a count; beyond that JSON's numbers are no counts elsewhere
LAST_MOMENT = 253_370_764_800  # the year 9999, in seconds since 1970: no calendar goes further


def text(value: Any) -> bool:
    return isinstance(value, str)


def name(value: Any) -> bool:
    """Of something in a folder, and no way out of it."""
    return isinstance(value, str) and value not in ("", ".", "..") and not {"/", "\0"} & {*value}


def job(value: Any) -> bool:
    """Slurm's id of one: a number, and that of a task."""
    return isinstance(value, str) and value.replace("_", "", 1).isdecimal()


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def integer(value: Any) -> bool:
    return type(value) is int and -LARGEST < value < LARGEST


def count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def positive(value: Any) -> bool:
    return type(value) is int and 0 < value < LARGEST


def real(value: Any) -> bool:
    """Any number; a loss may also be none."""
    return isinstance(value, float) or integer(value)


def finite(value: Any) -> bool:
    return real(value) and abs(value) < LARGEST  # NaN is not, either


def moment(value: Any) -> bool:
    """Seconds since 1970."""
    return real(value) and 0 <= value < LAST_MOMENT


def scalar(value: Any) -> bool:
    return text(value) or flag(value) or real(value)


def mapping(value: Any) -> bool:
    return isinstance(value, dict)


def maybe(shape: Shape) -> Shape:
    return lambda value: value is None or shape(value)


def each(shape: Shape) -> Shape:
    """A list of such."""
    return lambda value: isinstance(value, list) and all(map(shape, value))


def each_value(shape: Shape) -> Shape:
    """A mapping to such."""
    return lambda value: isinstance(value, dict) and all(map(shape, value.values()))


def each_file(value: Any) -> bool:
    """Of a manifest: {name: what it must be}."""
    summed = isinstance(value, dict) and all(FILE(v) and ("xxh3" in v or "sha256" in v) for v in value.values())
    return summed and all(map(name, value))


def pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(count, value))


@dataclass(frozen=True)
class Form:
    """A mapping in which all that is known fits, and nothing that is needed is missing."""

    shapes: Shapes
    needed: tuple[str, ...] = ()

    def misfit(self, found: Any) -> str:
        """The first key that is missing or not of its kind; empty where there is none."""
        missing = (key for key in self.needed if key not in found)
        wrong = (key for key, value in found.items() if key in self.shapes and not self.shapes[key](value))
        return next(missing, None) or next(wrong, "")

    def __call__(self, value: Any) -> bool:
        return isinstance(value, dict) and not self.misfit(value)

    def read(self, path: Path) -> dict[str, Any]:
        """What the file at `path` holds. Raises NotOurs where it is not this, OSError where it cannot be read."""
        found = read_json(path)
        if key := self.misfit(found):
            raise NotOurs(f"{path}: {key} is missing, or is not what it should be; put back what was there")
        return found


# -- files that are replaced whole -----------------------------------------------------------------------------------

FILE = Form({"size": count, "xxh3": text, "sha256": text}, ("size",))  # of a checkpoint, with one of the two
MANIFEST = Form(
    {"step": count, "steps": count, "generation": count, "digest": text, "files": each_file},
    ("step", "digest", "files"),
)
ON_NODES = Form({"world_size": positive, "checkpoint_every": positive}, ("world_size", "checkpoint_every"))
PLAN = Form(
    {"steps": count, "signal_delay_s": count, "save_seconds": finite, "layouts": each(ON_NODES)},
    ("steps", "signal_delay_s"),
)
PLACEMENT = Form({"checksum": text, "plan": PLAN}, ("checksum", "plan"))  # the rest is for the reader of specs
PROGRESS = Form(
    {
        "generation": count, "stage": text, "step": count, "steps": maybe(count), "done": count, "total": count,
        "loss": maybe(real), "images_per_s": maybe(finite), "seconds_left": maybe(finite), "unkept_s": finite,
        "notices": each(text), "broken": count, "inertia": real, "reassigned": real, "empty": count,
        "skipped": real,
    },
    ("stage",),
)  # fmt: skip
HEARTBEAT = Form(
    {
        "rank": count, "host": text, "generation": count, "stage": text, "step": maybe(count), "points": count,
        "marks": count, "still_s": finite, "stalled": flag, "every_s": finite, "joined": flag, "alive_s": finite,
        "pid": positive,
    },
    (
        "rank", "host", "generation", "stage", "step", "points", "marks", "still_s", "stalled", "every_s", "joined",
        "alive_s",
    ),
)  # fmt: skip
WAITING = Form({"generation": count, "pid": positive}, ("generation",))  # a rank whose start has not begun
ASKED = Form(
    {"protocol": text, "settings": each_value(mapping), "step": maybe(count), "digest": maybe(text), "after": flag},
    ("protocol", "step"),
)  # eval.json
PACKED = Form(
    {
        "digest": text,
        "sha256": text,
        "size": count,
        "bytes": count,
        "python": text,
        "prefixes": each_value(text),
        "seconds": finite,
        "fresh": flag,
    },
    ("digest", "sha256", "size", "bytes", "python", "prefixes"),
)  # of .environments/, and what the ledger says of it
BAD_NODE = Form({"until": moment, "why": text, "run": text}, ("until", "why", "run"))

# -- the ledger ------------------------------------------------------------------------------------------------------

OF_EVENTS: Shapes = {
    "event": text, "generation": count, "writer": text, "host": text, "number": count, "time": moment,
    "cause": text, "pid": positive, "job": maybe(job), "restart_count": count, "world_size": count,
    "state": text, "message": text, "requeued": flag, "in_place": flag, "exit_code": integer, "alive_s": finite,
    "step": maybe(count), "path": text, "digest": maybe(text), "lost_steps": count, "lost_seconds": finite,
    "protocol": text, "scores": mapping, "data": text, "of": text, "what": text,
    "token": text, "index": maybe(count), "folder": text, "why": maybe(text), "origin": text,
    "field": text, "source": text, "signal": maybe(text), "files": each(text), "rank": count, "node": text,
}  # fmt: skip
EVERY_EVENT = Form(OF_EVENTS, ("event", "generation", "writer", "host", "number", "time"))
IN_A_TABLE = Form(
    {
        "sweep": text, "scale": text, "given": each(text), "kind": text, "series": text, "value": scalar, "at": scalar,
        "seed": count, "identity": text, "axis": text, "metric": text, "run": name, "time": moment,
        "judges": Form({"neighbours": maybe(count), "labels": maybe(mapping)}, ("neighbours", "labels")),
    },
    ("sweep", "scale", "given", "kind", "series", "value", "at", "seed", "identity"),
)  # fmt: skip
RECORD = Form({"points": each(Form({"run": text}, ("run",))), "time": moment}, ("points",))  # of .sweeps/
OF_A_TABLE = Form(IN_A_TABLE.shapes, ("sweep", "axis", "at", "seed"))  # what a run itself asks of the event
VARIED = Form({"sweep": text, "values": mapping}, ("sweep", "values"))  # of a multirun that is no paper's table
OF_ONE_EVENT: Mapping[str, Shape] = {
    "packed": PACKED,
    "unpacked": Form({"fresh": count, "seconds": finite}, ("digest", "fresh", "seconds")),
    "start": Form({"nodes": text, "spares": count}, ("cause",)),
    "end": Form({}, ("state", "cause", "message")),
    "intent": Form({}, ("token", "index", "folder")),
    "submitted": Form({"job": job}, ("job", "folder")),
    "code": Form({}, ("digest", "origin")),
    "checkpoint": Form({"step": count}, ("step", "path")),
    "restored": Form({"step": count}, ("step",)),
    "first_step": Form({"step": count, "seconds": each_value(finite)}, ("step", "seconds")),
    "pinned": Form({"step": count, "digest": text}, ("field", "path", "step", "digest")),
    "waits": Form({}, ("source", "why")),
    "awaited": Form({}, ("path",)),
    "finished": Form({"step": count, "seconds": each_value(finite)}, ("seconds",)),
    "kept": Form({"work": pair}, ("work",)),
    "left_out": Form({}, ("node", "why")),
    "health": Form({}, ("what",)),
    "paused": Form({"seconds": finite}, ("rank", "seconds", "alive_s")),
    "slow_rank": Form({"ratio": finite, "step": count}, ("rank", "node", "ratio", "step")),
    "slow_rank_over": Form({"ratio": finite, "step": count}, ("rank", "node", "ratio", "step")),
    "eval": Form({"by": text, "step": count}, ("protocol", "step", "scores")),
    "scored": Form({"by": text, "step": count}, ("protocol", "step", "scores")),
    "error": Form({}, ("message", "exit_code", "cause")),
    "broken_images": Form({}, ("files",)),
    "sweep": lambda event: (OF_A_TABLE if "axis" in event else VARIED)(event),
}


def is_event(found: Any) -> bool:
    """Whether a line of a ledger is one that this sslrun, or one before it, could have written."""
    return EVERY_EVENT(found) and OF_ONE_EVENT.get(found["event"], mapping)(found)
