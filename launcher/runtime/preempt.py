"""How a rank hears that it is to stop: handlers of signals, in the main process only, that set a flag and no more."""

import os
import signal
import time

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class StopFlag:
    """True once TERM or USR2 arrived in this process. Installing it makes Ctrl-C the launcher's business alone.

    Forked children inherit the handlers; they are not the ones who were asked, so the flag is theirs to ignore.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self.signal: int | None = None
        self._told = 0.0

    def install(self) -> "StopFlag":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, _frame: object) -> None:
        if os.getpid() == self._owner:
            self.signal = self.signal or number  # the first one tells why
            if number == signal.SIGTERM and not self._told:
                self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first TERM, which a kill follows; 0 before. By this process's own watch: clocks may be wrong."""
        return time.monotonic() - self._told if self._told else 0.0

    def __bool__(self) -> bool:
        return self.signal is not None


class Stopped(Exception):
    """All ranks agreed to stop; whoever catches it saves and leaves."""
