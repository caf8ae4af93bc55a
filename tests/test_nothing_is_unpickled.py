"""No file and no message is read as a pickle, which may execute anything: neither by us nor by a library for us."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Collectives of torch.distributed that pickle whatever they are given.
OBJECTS = {
    "all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list", "send_object_list",
    "recv_object_list",
}  # fmt: skip
PICKLES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
READS = {"load", "loads", "Unpickler", "open"}
# What a call must say, or must not say, to read no pickle.
SAFE = {"torch.load": ("weights_only", "True", None), "np.load": ("allow_pickle", "False", "False")}
# The ground truths of Oxford and Paris are published in no other form. This reader takes no operation but those that
# build plain values, and whatever they name is a recipient of its own: tests/methods/data/test_searched.py attacks it.
PLAIN_VALUES = {"methods/data/sets/revisited/ground_truth.py": ["pickle.Unpickler"]}


def unpickled(source: str) -> list[str]:
    """Each place of `source` that reads a pickle, or might."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = {name.name for name in node.names}
            found += sorted(names & OBJECTS) + sorted(names & READS if node.module in PICKLES else ())
        elif isinstance(node, ast.Attribute) and node.attr in OBJECTS:
            found.append(node.attr)
        elif isinstance(node, ast.Attribute) and node.attr in READS and ast.unparse(node.value) in PICKLES:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in SAFE:
            word, safe, default = SAFE[called]
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            found += [] if given.get(word, default) == safe else [ast.unparse(node)]
    return found


def test_no_source_reads_a_pickle():
    sources = [file for room in ("launcher", "methods", "benchmarks") for file in (ROOT / room).rglob("*.py")]
    found = {str(file.relative_to(ROOT)): unpickled(file.read_text()) for file in sources}
    assert found and {file: places for file, places in found.items() if places} == PLAIN_VALUES


@pytest.mark.parametrize(
    "line",
    [
        "dist.all_gather_object(values, value)",
        "torch.distributed.broadcast_object_list(box)",
        "from torch.distributed import gather_object",
        "pickle.loads(text)",
        "pickle.Unpickler(file)",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_one_that_did_would_be_seen(line):
    assert unpickled(line)


@pytest.mark.parametrize("line", ["torch.load(path, weights_only=True)", "np.load(path)", "json.loads(text)"])
def test_other_ways_to_read_are_not_meant(line):
    assert not unpickled(line)
