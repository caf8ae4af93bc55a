"""Who may import whom (DESIGN.md, "The rooms"), read from the source files themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(p for folder in ("launcher", "methods") for p in (ROOT / folder).rglob("*.py"))
METHODS = sorted(p.parent.name for p in ROOT.glob("methods/*/trainer.py"))
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "PIL",
    "faiss",
    "submitit",
    "sklearn",
    "skimage",
    "safetensors",
    "tensorboard",
}

# A method's spec is what the launcher reads of it, and may use these; none of them imports anything heavy.
JOBS = sorted(p.parent.name for p in ROOT.glob("methods/*/job.py"))
SPECS = {
    "methods.layout", "methods.augment.spec", "methods.backbones.spec", "methods.data.mapped", "methods.data.spec",
    "methods.evals.spec",
    "methods.data.tars", "methods.kmeans.folder",
    *(f"methods.{m}.spec" for m in (*METHODS, *JOBS)),
}  # fmt: skip

# (file, function that holds the import; "" is the top of the file) -> what it may import beyond the walls, and why.
EXCEPTIONS = {
    # The worker is what runs inside a job. Only its top is read before torch is needed: the handlers come first.
    ("launcher/worker.py", ""): {"launcher.runtime.health", "launcher.runtime.preempt"},
    ("launcher/worker.py", "main"): {"launcher.runtime.dist"},
    ("launcher/worker.py", "_limit_threads"): {"torch"},
    ("launcher/worker.py", "_evaluate"): {"methods.evals.alone"},
    ("launcher/worker.py", "_train"): {
        "launcher.runtime.environment", "launcher.runtime.uncompiled",
        "methods.data", "methods.data.staging", "methods.engine", "methods.evals.during", "methods.job",
    },
    ("launcher/verbs/export.py", "run"): {"methods.export"},  # the one verb that touches weights
    ("launcher/verbs/shards.py", "run"): {"methods.data.convert", "methods.data.shard_index"},  # and one, images
    # What renders the batch script, and what submits it: both are imported only where there is one.
    ("launcher/script.py", "text"): {"submitit.slurm.slurm"},
    ("launcher/executor.py", ""): {"submitit.core.utils", "submitit.slurm.slurm"},
}  # fmt: skip

# What may not be imported by whom: spec <- plan <- submit <- {sweep, cli}.
ORDER = [
    "errors", "slurm", "state", "snapshot", "spec", "registry", "kmeans_cost", "cost", "script", "plan", "goodput",
    "rundir", "badnodes", "heartbeats", "ending", "requeue", "limits", "local", "batch", "executor", "queue", "submit",
    "yamlfile", "clusters", "scores", "protocols", "compose", "ablation", "points", "asked", "evaluation", "clustering",
    "weights", "sweep", "doctor", "trial", "view", "cli",
]  # fmt: skip


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """(function, module) of every import, wherever it stands; `from package import module` counts as the module."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((function, alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}: relative imports hide who imports whom"
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    yield function, inner if is_module(inner) else child.module
            else:
                inside = isinstance(child, ast.FunctionDef) and not function
                yield from walk(child, child.name if inside else function)

    return walk(ast.parse(file.read_text()), "")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def under(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def allowed(file: Path, function: str) -> set[str]:
    return EXCEPTIONS.get((str(file.relative_to(ROOT)), function), set())


def trespasses(files: list[Path], forbidden) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}{':' + function if function else ''} imports {module}"
        for file in files
        for function, module in imports(file)
        if forbidden(file, module) and module not in allowed(file, function)
    ]


def test_the_launcher_starts_without_torch_and_without_trainers():
    def forbidden(_: Path, module: str) -> bool:
        return under(module, *HEAVY, "launcher.runtime", "launcher.kmeans") or (
            under(module, "methods") and module not in SPECS
        )

    rooms = ("launcher/*.py", "launcher/verbs/*.py", "launcher/drill/*.py", "launcher/report/*.py")
    assert not trespasses(sorted(file for room in rooms for file in ROOT.glob(room)), forbidden)


def test_every_exception_is_still_needed():
    used = {(str(f.relative_to(ROOT)), function, module) for f in FILES for function, module in imports(f)}
    assert {(file, function, m) for (file, function), modules in EXCEPTIONS.items() for m in modules} <= used


def test_specs_import_nothing_heavy():
    files = [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in sorted(SPECS)]
    known = {"launcher.errors", "launcher.registry", "launcher.spec", *SPECS}
    assert not trespasses(
        files, lambda _, module: under(module, *HEAVY) or (under(module, "launcher", "methods") and module not in known)
    )


def test_the_launcher_is_built_from_the_bottom():
    def forbidden(file: Path, module: str) -> bool:
        package, _, name = module.partition(".")
        if package != "launcher" or name not in ORDER or file.stem not in ORDER:
            return False
        # RunSpec.from_json looks up the schema of its method while it reads.
        return ORDER.index(name) > ORDER.index(file.stem) and (file.stem, name) != ("spec", "registry")

    assert not trespasses(sorted(ROOT.glob("launcher/*.py")), forbidden)


def test_the_runtime_knows_no_methods_and_little_of_the_launcher():
    known = ("launcher.errors", "launcher.manifest", "launcher.rundir", "launcher.runtime")
    assert not trespasses(
        sorted(ROOT.glob("launcher/runtime/*.py")),
        lambda _, module: under(module, "methods", "launcher") and not under(module, *known),
    )


def test_kmeans_uses_the_runtime_alone():
    known = ("launcher.kmeans", "launcher.runtime.dist", "launcher.runtime.preempt")
    assert not trespasses(
        sorted(ROOT.glob("launcher/kmeans/*.py")),
        lambda _, module: under(module, "methods", "launcher") and not under(module, *known),
    )


def test_methods_use_the_launcher_through_its_lower_rooms():
    known = [f"launcher.{room}" for room in ("errors", "registry", "rundir", "runtime", "kmeans", "spec")]
    assert not trespasses(
        sorted(ROOT.glob("methods/**/*.py")), lambda _, module: under(module, "launcher") and not under(module, *known)
    )


@pytest.mark.parametrize("method", [*METHODS, *JOBS])
def test_a_method_never_imports_another(method):
    others = [f"methods.{other}" for other in (*METHODS, *JOBS) if other != method]
    assert not trespasses(sorted((ROOT / "methods" / method).glob("**/*.py")), lambda _, module: under(module, *others))


def test_shared_parts_know_no_method():
    shared = [f for f in FILES if f.is_relative_to(ROOT / "methods") and f.parent.name not in (*METHODS, *JOBS)]
    assert not trespasses(shared, lambda _, module: under(module, *(f"methods.{m}" for m in (*METHODS, *JOBS))))


def test_files_are_short_and_none_is_a_drawer():
    assert FILES
    assert not {str(f.relative_to(ROOT)): n for f in FILES if (n := len(f.read_text().splitlines())) >= 400}
    assert not [f for f in FILES if f.name in ("utils.py", "util.py", "helpers.py", "common.py", "misc.py")]
