"""What people type who know another program, and what it is called here. Nothing is done in its place: they get the
line to type."""

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NoReturn

from launcher.errors import InputError, unknown

LAUNCH = ("train", "run", "launch", "start", "submit", "pretrain", "fit", "sbatch")
VERBS = {
    "ls": "status", "list": "status", "ps": "status", "jobs": "status", "runs": "status", "squeue": "status",
    "queue": "status", "top": "status", "stop": "cancel", "kill": "cancel", "abort": "cancel", "scancel": "cancel",
    "log": "logs", "tail": "logs", "info": "show", "describe": "show", "inspect": "show", "continue": "resume",
    "restart": "resume", "requeue": "resume", "evaluate": "eval", "test": "eval", "knn": "eval", "probe": "eval",
    "linear": "eval", "check": "doctor", "diagnose": "doctor", "compare": "report", "table": "report",
    "ablation": "sweep", "ablate": "sweep", "cluster": "kmeans", "dry-run": "plan", "config": "plan",
}  # fmt: skip
# Fields by their last part: those of a method as people know them from papers and other programs.
FIELDS = {
    "learning_rate": "lr", "base_lr": "lr", "batch_size": "global_batch", "batch": "global_batch", "bs": "global_batch",
    "n_epochs": "epochs", "num_epochs": "epochs", "max_epochs": "epochs", "wd": "weight_decay", "model": "backbone",
    "arch": "backbone", "architecture": "backbone", "network": "backbone", "encoder": "backbone", "tau": "temperature",
    "temp": "temperature", "img_size": "image_size", "input_size": "image_size", "crop_size": "image_size",
    "resolution": "image_size", "num_workers": "workers", "n_workers": "workers", "warmup": "warmup_epochs",
    "amp": "precision", "dtype": "precision", "nmb_prototypes": "prototypes", "n_prototypes": "prototypes",
    "k": "clusters", "n_clusters": "clusters", "num_clusters": "clusters", "n_crops": "local_crops",
    "save_every": "checkpoint_every", "root": "path", "dir": "path", "folder": "path", "dataset": "data",
    "gpus": "tasks_per_node", "num_gpus": "tasks_per_node", "ngpus": "tasks_per_node", "world_size": "tasks_per_node",
    "nproc_per_node": "tasks_per_node", "num_nodes": "nodes", "n_nodes": "nodes", "nnodes": "nodes",
    "random_seed": "seed", "output": "runs", "output_dir": "runs", "out": "runs", "save_dir": "runs", "log_dir": "runs",
    "checkpoint": "init_from", "weights": "init_from", "pretrained": "init_from",
    "evaluate": "eval_after", "config": "recipe", "preset": "recipe", "time": "cluster.timeout_min",
    "partition": "cluster.partition", "account": "cluster.account", "qos": "cluster.qos",
}  # fmt: skip

ROOT = (
    "method", "recipe", "data", "eval_data", "cluster", "nodes", "tasks_per_node", "seed", "init_from", "continue_from",
    "runs", "sweep", "eval_after",
)  # fmt: skip
OPTIONS = ("-m", "--multirun", "--wait", "--anyway", "--json", "--cfg")  # of a launch, without values
# What has no other name, as there is nothing to be set.
SAID = dict.fromkeys(
    ("device", "gpu", "cuda", "use_gpu", "accelerator"),
    "GPUs are found and used by themselves; tasks_per_node=N takes N of them",
) | dict.fromkeys(
    ("strategy", "distributed", "ddp", "backend", "launcher", "master_port", "dist_url", "rank", "local_rank"),
    "ranks are started and find one another by themselves; nodes=N and tasks_per_node=N say how many",
) | dict.fromkeys(
    ("resume", "auto_resume", "resume_from"),
    "the same line again goes on with a run that there is, and so does `sslrun resume RUN`",
)  # fmt: skip


def unknown_key(key: str, value: str, known: Iterable[str], *, also: Iterable[str] = ()) -> NoReturn:
    """Refuse a key with the one of `known` that is meant or nearest. also: what may be meant, too, and is too much to
    be listed."""
    known = sorted(known)
    said = SAID.get(key.rpartition(".")[2]) or ((meant := field(key, {*known, *also})) and f"did you mean {meant}?")
    if said:
        raise InputError.of(key, value, "there is no such key", said)
    unknown(key, value, known, what="key")


def field(key: str, known: Collection[str]) -> str:
    """What somebody means who types a key that there is not: one of `known`, or empty.

    >>> field("method.learning_rate", ["method.lr"]), field("batch_size", ["seed", "method.global_batch"])
    ('method.lr', 'method.global_batch')
    """
    group, _, last = key.rpartition(".")
    ours = FIELDS.get(last, last)
    meant = (f"{group}.{ours}", ours, f"method.{ours}", f"data.{ours}")
    return next((each for each in meant if each in known and each != key), "")


def line(typed: Sequence[str], verbs: Collection[str], methods: Collection[str]) -> str:
    """The command that somebody may have meant who typed words that are no verb, override or option; empty where nobody
    knows.

    >>> line(["train", "--method", "dino", "nodes=8"], ["status"], ["dino"])
    'sslrun method=dino nodes=8'
    """
    first, *rest = typed
    if first == "help":
        asked = next((word for word in rest if word in verbs), "")
        return _command(asked, "--help") if asked else "sslrun --help"
    if first in VERBS:  # whose short options are others, but for that of `logs`
        return _command(VERBS[first], *(word for word in rest if word == "-f" or word[:1] != "-" or word[:2] == "--"))
    words = [*_overrides(rest if first in LAUNCH else typed, methods)]
    if not words:
        return "sslrun method=NAME"
    known = all(word in OPTIONS or re.match(r"[^-=].*=|--config-dir=", word) for word in words)
    return _command(*words) if known and words != [*typed] else ""


def _overrides(typed: Sequence[str], methods: Collection[str]) -> Iterator[str]:
    """`--method dino`, `--method=dino`, `method dino` and `dino` as `method=dino`; --lr as what it is called here."""
    left = [*typed]
    while left:
        word = left.pop(0)
        dashes, (name, sign, value) = word[:2] == "--", word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        follows = bool(left) and left[0][:1] != "-" and "=" not in left[0]
        if word in methods:
            yield f"method={word}"
        elif (dashes or word == "method") and _is_field(name) and (sign or follows):
            yield f"{_ours(name)}={value if sign else left.pop(0)}"
        else:
            yield word


def _is_field(name: str) -> bool:
    return name in ROOT or name in FIELDS or name in FIELDS.values() or "." in name


def _ours(name: str) -> str:
    """
    >>> _ours("lr"), _ours("root"), _ours("num_nodes"), _ours("partition")
    ('method.lr', 'data.path', 'nodes', 'cluster.partition')
    """
    ours = FIELDS.get(name, name)
    return ours if "." in ours or ours in ROOT else f"{'data' if ours == 'path' else 'method'}.{ours}"


def _command(*words: str) -> str:
    return shlex.join(["sslrun", *words])
