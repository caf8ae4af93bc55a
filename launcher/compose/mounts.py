"""What to type so that a container shows the ranks what they open."""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from launcher.compose.overrides import as_one, in_shell, quoted
from launcher.plan import containers, script
from launcher.spec.runspec import RunSpec

KEY = "container-mounts"
BIND = ("-B", "--bind")  # of Apptainer


def line(spec: RunSpec) -> str:
    """For a shell: the override with which the container of `spec` shows its ranks all that they open. Empty where
    there is no container, or where its mounts say so already; of a command whose options are not known, the folders."""
    cluster = spec.cluster
    wanted = containers.folders(spec, Path(os.path.realpath(spec.runs), ".code"))
    if script.image(cluster):
        given = cluster.srun.get(KEY, cluster.srun.get(KEY.replace("-", "_"))) or ()
        mounts = given.split(",") if isinstance(given, str) else list(map(str, given))
        lacks = [f"{path}:{path}" for path in _unseen(wanted, mounts)]
        return in_shell(f"cluster.srun.{KEY}=[{','.join(map(_item, [*mounts, *lacks]))}]") if lacks else ""
    words = containers.command(cluster)
    given = [value for name, value in cluster.environment.items() if name.endswith(("_BIND", "_BINDPATH"))]
    lacks = _unseen(wanted, _mounts(words, given)) if words else []
    at = next((number for number, word in enumerate(words, 1) if word in ("exec", "run")), None)
    if not lacks:
        return ""
    if not at or not {*map(os.path.basename, words[:at])} & {"apptainer", "singularity"}:
        return f"the folders {', '.join(lacks)}"
    return as_one(f"cluster.python={shlex.join([*words[:at], '--bind', ','.join(lacks), *words[at:]])}")


def _unseen(paths: Iterable[str], mounts: Sequence[str]) -> list[str]:
    inside = [(mount.split(":") * 2)[1] for mount in mounts]
    return [path for path in paths if not any(Path(path).is_relative_to(seen) for seen in inside)]


def _mounts(words: Sequence[str], given: Sequence[str]) -> list[str]:
    """Those that the words of a command bind, and what else is `given`."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    bound = [after for word, after in pairs if word in BIND]
    bound += [word.partition("=")[2] for word in words if word.partition("=")[0] in BIND]
    return [mount for each in (*bound, *given) for mount in each.split(",") if mount]


def _item(text: str) -> str:
    """Of a list, as Hydra's grammar takes it."""
    return text if re.fullmatch(r"[\w./:+-]+", text, re.ASCII) else quoted("", text)[1:]
