"""Being told to stop: handlers that only set a flag, in the main process only."""

import os
import signal

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class StopFlag:
    """True once TERM or USR2 arrived in this process. Installing it makes Ctrl-C the launcher's business alone.

    Forked children inherit the handlers; they are not the ones who were asked, so the flag is theirs to ignore.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self.signal: int | None = None

    def install(self) -> "StopFlag":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, _frame: object) -> None:
        if os.getpid() == self._owner:
            self.signal = number

    def __bool__(self) -> bool:
        return self.signal is not None


class Stopped(Exception):
    """All ranks agreed to stop; whoever catches it saves and leaves."""
