"""What a person is told when something is wrong: one line, and the exit code that goes with it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

NAMED = 5  # of several that one line tells of
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What moves a terminal's cursor, changes its colours or its title, or has letters read in another order, and halves of
# characters, which cannot be written. \n and \t are as they are.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class SslrunError(Exception):
    """Ends the program with one line on stderr and `exit_code`; never with a traceback."""

    exit_code = 4
    cause = "crash"  # for the ledger: one of run/causes.py

    def __str__(self) -> str:
        # One line, whatever a path or a value contained.
        return harmless(" ".join(super().__str__().split()))


class InputError(SslrunError):
    """The user's input is wrong. The line names the field, the value, the reason and the fix.

    They stay apart, so that `about` can say the same of another field. An error that is made of a sentence has none.
    """

    exit_code = 2
    cause = "input"
    field = reason = fix = ""
    value: object = ...

    @classmethod
    def of(cls, field: str, value: object, reason: str, fix: str = "") -> "InputError":
        """value: `...` where the line is to show none."""
        named = field if value is ... else f"{field}={value}"
        error = cls(f"{named}: {reason}; {fix}" if fix else f"{named}: {reason}")
        error.field, error.value, error.reason, error.fix = field, value, reason, fix
        return error

    def about(self, field: str) -> "InputError":
        """The same error, of a field that the reader knows under this name; an error that names none stays as it is."""
        return self.of(field, self.value, self.reason, self.fix) if self.field else self


class ClusterError(SslrunError):
    """The cluster refused, or there is none where one is needed."""

    exit_code = 3
    cause = "cluster"


class NotStarted(ClusterError):
    """Slurm gave the job its nodes and could start nothing there; it may at the next try."""

    cause = "not_started"


class NodesRefused(NotStarted):
    """Some of the job's nodes lack what the run needs, or start nothing. `why`: {node: half a sentence}.

    fix: for a person, where there are no other nodes."""

    def __init__(self, why: Mapping[str, str], fix: str = ""):
        self.why, self.fix = dict(why), fix
        super().__init__(first_few(of_nodes(self.why)))

    def of_all(self) -> ClusterError:
        """Where the job has no others: then it is no node's fault."""
        return ClusterError("; ".join(filter(None, (str(self), self.fix))))


class SetupFailed(ClusterError):
    """The job's first node cannot do what cluster.setup says, which was done before."""

    cause = "setup"


class RunFailed(SslrunError):
    """The run itself failed, as another start may not: unless a subclass says otherwise, it is a crash."""

    cause = "crash"


class Damaged(RunFailed):
    """There are checkpoints, and none can be read."""

    cause = "damaged"


class Unreadable(RunFailed):
    """A file could not be read for as long as a start waits. What it holds is not known; another node may read it."""

    cause = "unreadable"


class Diverged(RunFailed):
    """The loss is not a number, or the features collapsed: going on would meet the same step again."""

    cause = "diverged"


class Superseded(RunFailed):
    """The run was started again elsewhere while this start of it stood still: it must touch nothing any more."""

    cause = "superseded"


class NoProgress(RunFailed):
    """The run ended several times in a row without getting on; starting it again would only burn GPUs."""

    exit_code = 5
    cause = "no_progress"


def harmless(text: str) -> str:
    """`text` without commands to the terminal that it is shown on: a file may be called anything."""
    return _COMMANDS.sub("?", _COLOURS.sub("", text))


def line_of(error: BaseException) -> str:
    """`Type: what it says`, on one line of at most 500 characters. Where the text is itself a traceback, as of what
    another process raised, it is that one's type and words, which stand behind its last frame."""
    lines = f"{type(error).__name__}: {error}".splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    if frames and any("Traceback (most recent call last):" in line for line in lines):
        behind = lines[frames[-1] + 1 :]
        while behind and behind[0].startswith("    "):  # the code of the frame, and marks below it
            behind = behind[1:]
        lines = behind or lines
    return " ".join(" ".join(lines).split())[:500]


def first_few(said: Sequence[str]) -> str:
    """The first NAMED of several in one line, and how many more there are; empty where there are none."""
    more = [f"and {len(said) - NAMED} more"] if len(said) > NAMED else []
    return "; ".join([*said[:NAMED], *more])


def of_nodes(why: Mapping[str, str]) -> list[str]:
    """{node: half a sentence} -> a sentence for each reason: many nodes often have the same."""
    nodes: dict[str, list[str]] = {}
    for node, reason in sorted(why.items()):
        nodes.setdefault(reason, []).append(node)
    return [f"{_each_of(names)} {reason}" for reason, names in nodes.items()]


def _each_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return names[0] if len(names) == 1 else f"each of {', '.join(names[:NAMED])}{more}"


def unknown(field: str, value: str, known: Iterable[str], *, what: str = "name", never: Iterable[str] = ()) -> NoReturn:
    """Refuse an unknown name (the value) or key (the field) with the nearest known one. never: what nobody is led to by
    a slip of the hand."""
    import difflib

    known = sorted(known)
    near = difflib.get_close_matches(field if what == "key" else str(value), known, n=1, cutoff=0.5)
    fix = f"did you mean {near[0]}?" if near and near[0] not in never else f"known: {', '.join(known)}"
    raise InputError.of(field, value, f"there is no such {what}", fix)
