"""The structure of launcher/ and methods/, counted from the imports: rooms, circles, the longest file.

    python benchmarks/structure.py          figures, and the rooms as a picture (Mermaid), as docs/structure.md has them

A room is a folder or a file directly in launcher/ or methods/. tests/test_walls.py compares rooms, floors, imports and
picture with the document; how many files and lines there are changes every day.
"""

import argparse
import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(p for folder in ("launcher", "methods") for p in (ROOT / folder).rglob("*.py"))
METHODS = sorted(p.parent.name for p in ROOT.glob("methods/*/spec.py") if p.with_name("trainer.py").exists())


@cache
def imports(file: Path) -> tuple[tuple[str, str], ...]:
    """(function, module) of every import, wherever it stands; `from package import module` counts as the module."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((function, alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}: relative imports hide who imports whom"
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    yield function, inner if is_module(inner) else child.module or ""
            else:
                inside = isinstance(child, ast.FunctionDef) and not function
                yield from walk(child, child.name if inside else function)

    return tuple(walk(ast.parse(file.read_text()), ""))


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def module(file: Path) -> str:
    """launcher/run/folder.py -> launcher.run.folder"""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(name: str) -> str:
    """launcher.run.folder -> launcher.run"""
    return ".".join(name.split(".")[:2])


def graph(of: str = "rooms") -> dict[str, set[str]]:
    """{who: whom it imports} of "rooms" or "files"; a package itself is no room."""
    name = {"rooms": lambda file: room(module(file)), "files": module}[of]
    known, found = {module(file): name(file) for file in FILES}, {}
    for file in FILES:
        theirs = {known[other] for _, other in imports(file) if other in known}
        found.setdefault(name(file), set()).update(theirs - {name(file), "launcher", "methods"})
    return found


def floors(rooms: Mapping[str, set[str]]) -> dict[str, int]:
    """How far above the ground a room stands: 0 imports none, and each stands above all that it imports."""
    found: dict[str, int] = {}

    def floor(name: str) -> int:
        if name not in found:
            found[name] = 1 + max((floor(other) for other in rooms[name]), default=-1)
        return found[name]

    for name in rooms:
        floor(name)
    return found


def needed(rooms: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that no chain of other imports implies."""

    def reached(name: str) -> set[str]:
        return set().union({name}, *(reached(other) for other in rooms[name]))

    return [
        (name, other)
        for name, others in sorted(rooms.items())
        for other in sorted(others)
        if not any(other in reached(between) for between in others - {other})
    ]


def own() -> dict[str, set[str]]:
    """The rooms and whom they import, without the methods: these stand on all the rest."""
    found = {name: others for name, others in graph().items() if name.split(".")[-1] not in METHODS and "." in name}
    return {name: others & found.keys() for name, others in found.items()}


def picture(rooms: Mapping[str, set[str]]) -> str:
    """As Mermaid draws it."""
    arrows = [f"  {other.replace('.', '/')} --> {name.replace('.', '/')}" for name, other in needed(rooms)]
    return "\n".join(["```mermaid", "flowchart BT", *arrows, "```"])


def figures(rooms: Mapping[str, set[str]]) -> str:
    """Rows of a table: what the walls decide."""
    found = {f"rooms of {top}/": sum(name.startswith(top) for name in rooms) for top in ("launcher", "methods")}
    found |= {"floors": 1 + max(floors(rooms).values()), "imports between rooms": sum(map(len, rooms.values()))}
    return "\n".join(f"| {name} | {number} |" for name, number in found.items())


def main() -> None:
    lengths = {module(file): len(file.read_text().splitlines()) for file in FILES}
    longest = max(lengths, key=lengths.get)
    print(figures(own()))
    print(f"| files | {len(FILES)} |")
    print(f"| lines | {sum(lengths.values()):,} |")
    print(f"| longest file | {longest}, {lengths[longest]} |\n")
    print(picture(own()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    main()
