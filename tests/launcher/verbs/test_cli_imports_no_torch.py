"""What a person types answers at once: nothing heavy is imported before a job runs."""

import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "torchvision",
    "faiss",
    "PIL",
    "skimage",
    "sklearn",
    "scipy",
    "tensorboard",
    "safetensors",
}
PROBE = """
import sys
from launcher.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules)
"""
ROOMS = ("methods", "methods.data.sets", "methods.evals")
COMMANDS = {
    "help": ["--help"],
    "plan": ["plan", "method=deepercluster", "nodes=8", "--json"],
    "plan for people": ["plan", "method=rotnet", "recipe=tiny"],
    "config": ["plan", "method=deepercluster", "recipe=demo", "--cfg"],
    "plan of a clustering": ["kmeans", "features={run}", "k=3", "cluster=local", "--plan"],
    "status": ["status", "runs={runs}"],
    "best": ["best", "knn.trained", "runs={runs}"],
    "show": ["show", "{run}"],
    "show as JSON": ["show", "{run}", "--json"],
    "logs": ["logs", "{run}"],
    "report": ["report", "sweep=swav/prototypes", "recipe=demo", "runs={runs}", "--out", "{runs}/report.html"],
    "report of a run": ["report", "{run}", "--out", "{runs}/report.html"],
    "sweep list": ["sweep", "list", "runs={runs}"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_it_imports_nothing_heavy(undisturbed, sslrun, words):
    run = undisturbed()
    words = [word.format(run=run, runs=run.parent) for word in words]
    assert not HEAVY.intersection(name.partition(".")[0] for name in imported(sslrun, words))


@pytest.mark.parametrize("words", [["plan", "nodes=8", "--json"], ["recipe=demo", "--cfg"]], ids=" ".join)
def test_what_is_typed_imports_what_it_is_of_and_no_more(sslrun, words):
    names = imported(sslrun, [*words[:-1], "method=swav", "data=places205", words[-1]])
    kinds = {name.removesuffix(".spec") for name in names if name.startswith("methods.") and name.endswith(".spec")}
    of = {room: {k.rpartition(".")[2] for k in kinds if k.rpartition(".")[0] == room} for room in ROOMS}
    assert of["methods"] - {"augment", "backbones", "data", "evals"} == {"swav"}
    # Those of all recipes, and what it names.
    assert of["methods.data.sets"] == {"image_folder", "photos", "places"}
    assert not of["methods.evals"]
    assert not {"submitit", "asyncio", "numpy", "rich", "launcher.sweep", "launcher.slurm.queue"} & names


def imported(sslrun, words):
    """The modules that a command has loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE, *words],
        cwd=sslrun.home,
        env=sslrun.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {*done.stdout.splitlines()[-1].split()}
