"""Asking the person at the terminal."""

import sys

from launcher.errors import harmless


def agreed(question: str) -> bool:
    """Did they type yes? Asked on stderr: stdout is the answer's, and may go into a file. Any other line, and the end
    of the input, is a no."""
    print(harmless(f"{question} [y/N] "), end="", file=sys.stderr, flush=True)
    said = sys.stdin.readline()
    if not said.endswith("\n"):  # Ctrl-D leaves the cursor behind the question
        print(file=sys.stderr)
    return said.strip().lower() in ("y", "yes")
