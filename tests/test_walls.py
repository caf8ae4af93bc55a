"""Who may import whom (docs/structure.md), read from the source files themselves."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from benchmarks.structure import FILES, METHODS, ROOT, figures, graph, imports, module, own, picture, room

JOBS = sorted(p.parent.name for p in ROOT.glob("methods/*/spec.py") if p.with_name("job.py").exists())
HEAVY = (
    "torch", "torchvision", "timm", "numpy", "PIL", "faiss", "submitit", "sklearn", "skimage", "safetensors",
    "tensorboard",
)  # fmt: skip

# A room imports rooms that stand before it, and no other.
LAUNCHER = [
    "errors", "durations", "spec", "plan", "run", "slurm", "compose", "start", "sweep", "report", "drill", "verbs",
    "cli",
]  # fmt: skip
SHARED = ["backbones", "data", "parts", "augment", "engine", "evals"]
APART = {("run", "plan")}  # though one stands before the other
# Rooms with torch, and what of the launcher they know.
IN_JOBS = {
    "launcher.runtime": ("launcher.errors", "launcher.run"),
    "launcher.kmeans": ("launcher.runtime.dist", "launcher.runtime.preempt"),
    "methods": ("launcher.errors", "launcher.spec", "launcher.run", "launcher.runtime", "launcher.kmeans"),
}

# What the launcher reads of methods/, through its registry: none of it imports anything heavy.
SPECS = {
    "methods.augment.patches", "methods.augment.spec", "methods.backbones.size", "methods.backbones.spec",
    "methods.data.listing", "methods.data.mapped", "methods.data.spec", "methods.data.sets.base",
    "methods.data.splits", "methods.data.tars",
    "methods.engine.banked_spec", "methods.engine.outline", "methods.evals.settings", "methods.evals.spec",
    "methods.kmeans.folder",
    "methods.parts.layout", "methods.parts.memory_layout", "methods.parts.recipes", "methods.parts.rounds",
    "methods.parts.shapes",
    *(f"methods.{name}.spec" for name in (*METHODS, *JOBS)),
    *(module(p) for place in ("backbones", "data/sets", "evals") for p in ROOT.glob(f"methods/{place}/*/spec.py")),
}  # fmt: skip

# (file, function that holds the import; "" is the top of the file) -> what it may import beyond the walls, and why.
EXCEPTIONS = {
    # The worker is what runs inside a job. Only its top is read before torch is needed: the handlers come first.
    ("launcher/start/worker.py", ""): {
        "launcher.runtime.health", "launcher.runtime.patient", "launcher.runtime.preempt", "launcher.runtime.watchdog",
    },
    ("launcher/start/worker.py", "_rank"): {"launcher.runtime.dist", "torch"},
    ("launcher/start/worker.py", "_work"): {"methods.evals.alone"},
    ("launcher/start/worker.py", "_train"): {
        "launcher.runtime.environment",
        "methods.data", "methods.data.broken", "methods.engine.loop", "methods.engine.staging", "methods.evals.during",
        "methods.engine.job", "methods.evals.remarks",
    },
    # What waits for its start beside the ranks of the one before is a rank, too.
    ("launcher/start/ahead.py", ""): {"launcher.runtime.preempt"},
    ("launcher/start/ahead.py", "wait"): {"numpy"},
    ("launcher/verbs/export.py", "run"): {"methods.backbones.export"},  # the one verb that touches weights
    ("launcher/verbs/shards.py", "run"): {"methods.data.convert", "methods.data.shard_index"},  # and one, images
    # What simulates thousands of starts at once; only who simulates imports it.
    ("launcher/plan/foresight.py", ""): {"numpy"},
    # What submits: imported only where there is something to submit.
    ("launcher/start/executor.py", ""): {"submitit.core.utils", "submitit.slurm.slurm"},
}  # fmt: skip


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def trespasses(files: list[Path], forbidden) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}{':' + function if function else ''} imports {name}"
        for file in files
        for function, name in imports(file)
        if forbidden(file, name) and name not in EXCEPTIONS.get((str(file.relative_to(ROOT)), function), ())
    ]


def files_of(*packages: str) -> list[Path]:
    return [file for file in FILES if under(module(file), *packages)]


def test_a_room_imports_those_that_stand_before_it():
    for package, order in (("launcher", LAUNCHER), ("methods", SHARED)):

        def forbidden(file: Path, name: str, package=package, order=order) -> bool:
            mine, theirs = room(module(file)).split(".")[-1], room(name).split(".")[-1]
            if not under(name, package) or theirs not in order or mine == theirs:
                return False
            return order.index(theirs) > order.index(mine) or (mine, theirs) in APART

        assert not trespasses(files_of(*(f"{package}.{name}" for name in order)), forbidden)


def test_every_room_has_its_place():
    for package, known in (("launcher", {*LAUNCHER, "runtime", "kmeans"}), ("methods", {*SHARED, *METHODS, *JOBS})):
        assert {room(module(file)) for file in files_of(package)} == {package, *(f"{package}.{name}" for name in known)}


@pytest.mark.parametrize("of", ["files", "rooms"])
def test_there_is_no_circle(of):
    try:
        TopologicalSorter(graph(of)).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_launcher_starts_without_torch_and_knows_methods_through_its_registry():
    rooms = [f"launcher.{name}" for name in LAUNCHER]
    assert not trespasses(
        files_of(*rooms), lambda _, name: under(name, *HEAVY, "launcher.runtime", "launcher.kmeans", "methods")
    )


def test_every_exception_is_still_needed():
    used = {(str(f.relative_to(ROOT)), function, name) for f in FILES for function, name in imports(f)}
    assert {(file, function, m) for (file, function), names in EXCEPTIONS.items() for m in names} <= used


def test_only_who_simulates_imports_numpy():
    file = "launcher.plan.foresight"
    users = {(module(f), function) for f in FILES for function, name in imports(f) if name == file}
    typed = {"launcher.report.outlook"}  # whose own import at the top is for a reader of types
    assert users and not {user for user, function in users if not function} - typed


def test_specs_import_nothing_heavy():
    files = [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in sorted(SPECS)]
    known = ("launcher.errors", "launcher.run.files", "launcher.spec", *SPECS)
    assert not trespasses(
        files, lambda _, name: under(name, *HEAVY) or (under(name, "launcher", "methods") and not under(name, *known))
    )


@pytest.mark.parametrize("package", IN_JOBS)
def test_what_runs_in_jobs_knows_little_of_the_launcher(package):
    known = (package, *IN_JOBS[package])
    others = ("launcher",) if package == "methods" else ("launcher", "methods")
    assert not trespasses(files_of(package), lambda _, name: under(name, *others) and not under(name, *known))


@pytest.mark.parametrize("method", [*METHODS, *JOBS])
def test_a_method_never_imports_another(method):
    others = [f"methods.{other}" for other in (*METHODS, *JOBS) if other != method]
    assert not trespasses(files_of(f"methods.{method}"), lambda _, name: under(name, *others))


def test_shared_rooms_know_no_method():
    shared = files_of(*(f"methods.{name}" for name in SHARED))
    assert not trespasses(shared, lambda _, name: under(name, *(f"methods.{m}" for m in (*METHODS, *JOBS))))


def test_files_are_short_and_none_is_a_drawer():
    assert FILES
    assert not {str(f.relative_to(ROOT)): n for f in FILES if (n := len(f.read_text().splitlines())) >= 400}
    assert not [f for f in FILES if f.name in ("utils.py", "util.py", "helpers.py", "common.py", "misc.py")]


def test_there_are_few_rooms():
    """Folders and files of code that a reader meets first."""
    for package, most in (("launcher", 16), ("methods", 12)):
        found = {path.relative_to(ROOT / package).parts[0] for path in files_of(package)}
        assert len(found - {*METHODS}) <= most, sorted(found)


def test_a_name_means_one_thing_in_the_whole_house():
    """But for `Network`: what a trainer calls the one that it trains."""
    homes: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module(file))
    assert {name for name, where in homes.items() if len(where) > 1} == {"Network"}


def test_the_document_shows_the_rooms_as_they_are():
    """`python benchmarks/structure.py` prints both."""
    said = (ROOT / "docs" / "structure.md").read_text()
    assert figures(own()) in said and picture(own()) in said
