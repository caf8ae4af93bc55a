"""What a person is told when something is wrong: one line, and the exit code that goes with it."""


class SslrunError(Exception):
    """Ends the program with one line on stderr and `exit_code`; never with a traceback."""

    exit_code = 4
    cause = "crash"  # for the ledger

    def __str__(self) -> str:
        # One line, whatever a path or a value contained.
        return " ".join(super().__str__().split())


class InputError(SslrunError):
    """The user's input is wrong. The line names the field, the value, the reason and the fix."""

    exit_code = 2
    cause = "input"

    @classmethod
    def of(cls, field: str, value: object, reason: str, fix: str) -> "InputError":
        return cls(f"{field}={value}: {reason}; {fix}")


class ClusterError(SslrunError):
    """The cluster refused, or there is none where one is needed."""

    exit_code = 3
    cause = "cluster"


class RunFailed(SslrunError):
    """The run itself failed; the ledger of the run says how."""


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
