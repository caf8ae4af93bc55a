"""`sslrun kmeans`: what is typed -> a run that clusters instead of training.

It is a run in all else: a folder with a frozen spec, a ledger and a snapshot of the code, started, watched, stopped,
resumed and read like one. What its ranks do is in methods/kmeans/.
"""

from pathlib import Path

from launcher.compose import work
from launcher.compose.sources import split
from launcher.compose.training import frozen
from launcher.errors import InputError
from launcher.run.files import read_json
from launcher.run.folder import RunDir, find
from launcher.spec import paths, registry
from launcher.spec.runspec import RunSpec

kmeans, augment, DATA = registry.facts("kmeans"), registry.facts("augment"), registry.facts("data").DATA

SUMMARY = "summary.json"  # of a result; see methods/kmeans/results.py


def want(overrides: list[str], *, config_dir: Path | None = None) -> RunSpec:
    """The frozen spec of `sslrun kmeans ...`. Raises InputError for whatever a person can get wrong."""
    config = work.config_of(translated(overrides), config_dir)
    given = {text.partition("=")[0] for text in overrides}
    for name in ("features", "k"):
        if name not in given:
            raise InputError(f"{name} is missing; say features=FOLDER_OR_RUN k=NUMBER")
    method, path = config["method"], paths.absolute(config["method"].features)
    if path.is_dir() and not (path / "spec.json").exists():
        if config["data"] is not None or method.layer is not None:
            field = "layer" if method.layer is not None else "data"
            reason = "the features are files: there is no backbone to run"
            raise InputError.of(field, getattr(method, field, "..."), reason, "leave it out, or give features=RUN")
        found = kmeans.scan(path)
        method.features, method.rows, method.dim, method.content = str(found.path), found.rows, found.dim, found.content
    else:
        runs = paths.absolute(config["runs"])
        name, step = split("features", method.features, runs)
        run = _run(name, runs)
        theirs = run.spec()
        method.features, config["init_from"] = str(run.path), f"{run.path}{step and f'@{step}'}"
        for field in ("backbone", "image_size", "precision", "workers"):
            setattr(method, field, getattr(theirs.method, field))
        method.interpolation = augment.interpolation_of(theirs.method)
        if config["data"] is None:  # thawed: freezing begins with what can be changed
            config["data"] = DATA[theirs.data.name](**theirs.to_json()["data"])
    if method.out is not None:
        method.out = str(paths.absolute(method.out))
    try:
        spec = frozen(config)
    except InputError as error:
        raise error.about("features") if error.field == "init_from" else error from None
    refuse_foreign(spec)
    return spec


def translated(overrides: list[str]) -> list[str]:
    """As `composed` knows them. Raises InputError for a key that k-means does not have."""
    return work.translated("kmeans", kmeans.RECIPE, overrides, kmeans.GIVEN)


def refuse_foreign(spec: RunSpec) -> None:
    """Raises InputError when `out` holds something that is not this run's result, or cannot be made."""
    if spec.method.out is None:
        return
    out = Path(spec.method.out)
    if out.exists():
        try:
            theirs = read_json(out / SUMMARY)["identity"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            theirs = None
        if theirs != spec.identity:
            reason = "it holds another result" if theirs else "it exists, and nothing is overwritten"
            raise InputError.of("out", out, reason, "give a folder that does not exist")


def _run(name: str, runs: Path) -> RunDir:
    try:
        found = find(name, runs)
    except InputError as error:
        if any(spec.parent.name.startswith(name) for spec in runs.glob("*/spec.json")):  # several begin like this
            raise error.about("features") from None
        reason = f"there is no such folder, and no such run in {runs}"
        fix = f"give a folder of {' or '.join(kmeans.SUFFIXES)} files, or a run"
        raise InputError.of("features", name, reason, fix) from None
    if not registry.method(found.spec().method.name).trains:
        raise InputError.of("features", name, "that run has no backbone", "give a run that trains one")
    return found
