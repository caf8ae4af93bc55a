"""How a command that a person started hears that it is to stop."""

import contextlib
import signal
from collections.abc import Callable, Iterator

FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def heard_by(handler: Callable[[int, object], object]) -> Iterator[None]:
    """Ctrl-C, TERM and a closed terminal call `handler`.

    Not those of the terminal that are ignored already: that is how `nohup`, and `&` in a script, keep a command alive.
    """
    numbers = [number for number in FROM_THE_TERMINAL if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, *numbers)}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


def noted_in(came: list[int]) -> Callable[[int, object], None]:
    """A handler that notes every stop. That a terminal closed is said by the shell, by the kernel once the shell ended,
    and by systemd with a TERM: it is one stop."""

    def hear(number: int, _frame: object) -> None:
        if came == [signal.SIGHUP]:
            came[0] = number
        elif number != signal.SIGHUP or not came:
            came.append(number)

    return hear
