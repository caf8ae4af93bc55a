"""`sslrun eval weights=FILE`: what is typed -> a run that judges a file of weights instead of training.

It is a run in all else, with its scores in its own ledger. What its ranks do is in methods/weights/.
"""

from collections.abc import Sequence
from pathlib import Path

from launcher.compose import protocols, work
from launcher.compose.evaluation import check_truth
from launcher.compose.overrides import text_of
from launcher.compose.training import frozen
from launcher.errors import InputError, unknown
from launcher.run.manifest import sha256
from launcher.spec import paths, registry
from launcher.spec.runspec import RunSpec

weights, BACKBONES = registry.facts("weights"), registry.facts("backbones").BACKBONES
SUFFIXES = registry.facts("backbones").SUFFIXES
kind_of, key_of = registry.facts("evals").kind_of, registry.facts("evals").key_of


def asked(overrides: Sequence[str]) -> bool:
    """Whether somebody means a file rather than a run."""
    return any(text.partition("=")[0] == "weights" for text in overrides)


def want(overrides: Sequence[str], *, config_dir: Path | None = None) -> RunSpec:
    """The frozen spec of `sslrun eval weights=FILE ...`. Raises InputError for whatever a person can get wrong."""
    given = dict(text.partition("=")[::2] for text in overrides)
    backbone = given.get("backbone", "")
    if not backbone:
        raise InputError(f"backbone is missing; say backbone=NAME, one of {', '.join(BACKBONES)}")
    if backbone not in BACKBONES:
        unknown("backbone", backbone, BACKBONES)
    settings, rest = protocols.taken(overrides, backbone)
    if not any(text.partition("=")[0] == "data" for text in rest):
        raise InputError("data is missing; say data=image_folder data.path=/path/to/labelled/images")
    path = paths.led_to(text_of(f"weights={given['weights']}"))
    rest = [text for text in rest if text.partition("=")[0] != "weights"]
    told = work.translated("weights", weights.RECIPE, rest, weights.GIVEN, also=("protocol",))
    config = work.config_of(told, config_dir)
    method = config["method"]
    method.weights, method.content = str(path), _digest(path)
    method.settings = {name: key_of(kind_of(name)(**given)) for name, given in settings.items()}
    method.image_size = method.image_size or BACKBONES[backbone].image_size
    if "interpolation" not in given and not BACKBONES[backbone].batch_norm:
        method.interpolation = "bicubic"
    spec = frozen(config)
    check_truth(spec, settings, give="data")
    return spec


def _digest(path: Path) -> str:
    """sha256 of the file."""
    if not path.is_file():
        raise InputError.of("weights", path, "there is no such file", f"give a file of {' or '.join(SUFFIXES)}")
    if path.suffix not in SUFFIXES:
        reason = "its name does not end as one of weights does"
        raise InputError.of("weights", path, reason, f"give one of {', '.join(SUFFIXES)}")
    try:
        return sha256(path)
    except OSError as error:
        raise InputError.of("weights", path, f"cannot be read ({error.strerror})", "make it readable") from None
