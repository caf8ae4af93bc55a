"""How many lines a method is, without blanks, comments and docstrings: `python benchmarks/lines.py [FOLDER ...]`.

Counted are spec.py and trainer.py of each folder, by default of every method here, and what is left of them without the
recipes, functions that return a `Recipe`.
"""

import argparse
import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = ("spec.py", "trainer.py")
SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip


def lines(source: str) -> set[int]:
    """Numbers of the lines of `source` on which code stands."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {n for each in tokens if each.type not in SILENT for n in range(each.start[0], each.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found -= set(range(node.lineno, node.end_lineno + 1))
    return found


def recipes(source: str) -> set[int]:
    """Numbers of the lines of functions that return a Recipe."""
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    made = (f for f in functions if isinstance(f.returns, ast.Name) and f.returns.id == "Recipe")
    return {n for function in made for n in range(function.lineno, function.end_lineno + 1)}


def count(folder: Path) -> tuple[int, int]:
    """(lines of a method, those that are no recipe's)."""
    whole = without = 0
    for name in FILES:
        source = (folder / name).read_text()
        whole += len(lines(source))
        without += len(lines(source) - recipes(source))
    return whole, without


def methods() -> list[Path]:
    """The folders of the methods that are here."""
    found = (path.parent for path in ROOT.glob("methods/*/spec.py"))
    return sorted(path for path in found if (path / "trainer.py").exists())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    folders = parser.parse_args().folders or methods()
    counted = {folder.name: count(folder) for folder in folders}
    counted["together"] = tuple(map(sum, zip(*counted.values(), strict=True)))
    for name, (whole, without) in counted.items():
        print(f"{name:15} {whole:5} lines, {without:5} beside recipes")
