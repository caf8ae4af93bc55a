"""Every benchmark opens with the command that runs it, and has a --help that says what it says."""

import ast
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STARTED_BY_OTHERS = {"with_hydra.py", "with_submitit.py"}  # as their libraries ask: by jobs of preemption/run.py
# A file without this is a part of others. None is run: what they import takes longer than what is looked at here.
SCRIPTS = {
    file.relative_to(BENCHMARKS): file.read_text()
    for file in sorted(BENCHMARKS.rglob("*.py"))
    if file.name not in STARTED_BY_OTHERS and '__name__ == "__main__"' in file.read_text()
}


def test_each_opens_with_its_command():
    for name, text in SCRIPTS.items():
        beginning = "".join(ast.get_docstring(ast.parse(text)).split("\n\n")[:2])
        assert f"python benchmarks/{name}" in beginning, name


def test_each_has_a_help():
    for name, text in SCRIPTS.items():
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        made = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "argparse.ArgumentParser"]
        parsed = [call for call in calls if ast.unparse(call.func).endswith(("parse_args", "parse_intermixed_args"))]
        assert [each for each in made if "description=__doc__" in each] == made != [] and parsed, name


def test_what_the_gpu_script_runs_is_there():
    script = (BENCHMARKS / "gpu.sh").read_text()
    asked = {word for word in script.replace("benchmarks/", "").split() if word.endswith(".py")}
    assert asked and asked <= {str(name) for name in SCRIPTS}
