"""The screens that people read. Nothing that is said on them is a command to them, neither to rich nor to the terminal:
the name of a file, or what a run says, may hold anything."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from launcher.errors import harmless


class HarmlessConsole(Console):
    """rich's own commands move the cursor, and no others."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """width: in characters; None: the terminal's."""
    return HarmlessConsole(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)
