"""The screens that people read. Nothing that is said on them is a command to them, neither to rich nor to the terminal:
the name of a file, or what a run says, may hold anything."""

import os
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from launcher.errors import harmless

UNBOUNDED = 10_000  # characters a line where nobody says how wide it may be


class HarmlessConsole(Console):
    """rich's own commands move the cursor, and no others."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """width: in characters; None: the terminal's."""
    return HarmlessConsole(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def width_of(screen: Console) -> int:
    """Of a terminal, or of who says it has one; what goes into a file or a pipe has no width."""
    return screen.width if screen.is_terminal or "COLUMNS" in os.environ else UNBOUNDED


def show(texts: Iterable[Text], screen: Console) -> None:
    """Lines that end as they are to."""
    for text in texts:
        if screen.is_terminal:
            screen.print(text, soft_wrap=True, end="")
        else:  # ten thousand lines in no time
            sys.stdout.write(harmless(text.plain))
