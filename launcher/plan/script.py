"""(spec, folder) -> the batch script of a job, to the letter as submitit renders it. Pure: touches no file.

A value from the user ends up behind `#SBATCH --option=`, where submitit quotes it, or in a line of bash, where it is
quoted here. What no quotes can carry there (a line break, a character that Slurm or Python reads its own way) is
refused. Only `cluster.setup` is shell on purpose, and `cluster.python` is split into words as a shell does.
"""

import json
import re
import shlex
import sys
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import InputError
from launcher.plan import setup, worlds
from launcher.spec.runspec import RunSpec
from launcher.spec.schema import ClusterConfig

# Options of sbatch that have a field, or that a run relies on: not to be given a second time, where the last one wins.
FIELDS = {
    "partition": "cluster.partition", "qos": "cluster.qos", "account": "cluster.account",
    "constraint": "cluster.constraint", "exclude": "cluster.exclude", "gres": "cluster.gres",
    "time": "cluster.timeout_min", "mem": "cluster.mem_gb", "mem-per-gpu": "cluster.mem_per_gpu",
    "mem-per-cpu": "cluster.mem_per_cpu", "cpus-per-task": "cluster.cpus_per_task",
    "cpus-per-gpu": "cluster.cpus_per_gpu", "signal": "cluster.signal_delay_s", "nodes": "nodes",
    "ntasks": "tasks_per_node", "ntasks-per-node": "tasks_per_node", "gpus": "cluster.gpus_per_node",
    "tasks-per-node": "tasks_per_node", "gpus-per-node": "cluster.gpus_per_node",
    "gpus-per-task": "cluster.gpus_per_node",
    "export": "cluster.environment",
}  # fmt: skip
OURS = {
    "job-name", "output", "error", "open-mode", "requeue", "no-requeue", "comment", "array", "wrap", "wait", "chdir",
    "parsable", "test-only", "hold", "kill-on-invalid-dep", "ntasks-per-gpu", "no-kill",
}  # fmt: skip
# And of srun, which has most of sbatch's.
OURS_OF_STEPS = {
    *OURS, "begin", "clusters", "dependency", "exact", "exclusive", "help", "het-group", "immediate", "input", "jobid",
    "kill-on-bad-exit", "label", "multi-prog", "no-allocate", "nodefile", "nodelist", "overlap", "pack-group",
    "preserve-env", "pty", "relative", "usage", "version", "whole",
}  # fmt: skip

IMAGES = ("--container-image", "--container-name", "--container")  # Pyxis's, and Slurm's own

# What srun would take over from the shell that the job was submitted in: bindings to the CPUs of another machine.
INHERITED = (
    "SLURM_DISTRIBUTION", "SLURM_EXACT", "SLURM_EXCLUSIVE", "SLURM_EXPORT_ENV", "SLURM_GPU_BIND", "SLURM_HINT",
    "SLURM_NO_KILL", "SLURM_OVERLAP", "SLURM_THREADS_PER_CORE", "SLURM_WAIT",
)  # fmt: skip
INHERITED_PREFIXES = ("SLURM_CPU_BIND", "SLURM_MEM_BIND")

TEXTS = (
    "partition", "qos", "account", "constraint", "exclude", "gres", "mem_per_gpu", "mem_per_cpu", "python", "local_env",
)  # fmt: skip
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUTF8")
MEETING = ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME")
OPTION = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
UNITS = {"K": 2**10, "M": 2**20, "": 2**20, "G": 2**30, "T": 2**40}  # Slurm's; a number alone counts megabytes


def of(spec: RunSpec, signal_delay_s: int) -> str:
    """The batch script of a run that is submitted by itself. Raises InputError as `parameters` does."""
    folder, python = Path(spec.runs, spec.run_id, "submit"), python_of(spec.cluster)
    return text(folder, parameters(spec, signal_delay_s=signal_delay_s, folder=folder, python=python), python=python)


def parameters(
    spec: RunSpec, *, signal_delay_s: int, folder: Path | None = None, python: str | None = None
) -> dict[str, Any]:
    """Keyword parameters of submitit's SlurmExecutor for the job of `spec`.

    signal_delay_s: seconds before the time limit at which the ranks are told. folder: of the submission,
    `<runs>/<run_id>/submit` by default. python: path of the interpreter that starts the job on its first node; see
    `python_of`. Raises InputError for a value that a batch script cannot carry, and where nothing of a range of nodes
    can be laid out.
    """
    folder = Path(spec.runs, spec.run_id, "submit") if folder is None else folder
    python = python or python_of(spec.cluster)
    check(spec.cluster)
    _check_folder(folder)
    cluster, gpus, (least, most) = spec.cluster, gpus_per_node(spec), worlds.asked(spec)
    # Slurm 22.05 grants no more nodes of a range than the tasks of its lower end: where these are too few, the job asks
    # for what a node's tasks take instead. Measured: 2-8 with 2 tasks a node gave 4 nodes, and 8 without the tasks.
    capped = least < most and least * spec.tasks_per_node < most
    queue = {name: getattr(cluster, name) for name in ("partition", "qos", "account", "constraint", "exclude", "gres")}
    additional = {
        # Not as submitit's own parameter: it would warn that gpus_per_task is missing.
        **({"cpus-per-gpu": cluster.cpus_per_gpu} if cluster.cpus_per_gpu else {}),
        **({"mincpus": spec.tasks_per_node * cpus_per_task(spec)} if capped and spec.tasks_per_node > 1 else {}),
        "requeue": True,
        # The job outlives its nodes. Not for srun, whose own --no-kill has a dead rank leave the others hanging.
        **({"no-kill": True} if cluster.spare_nodes else {}),
        "open-mode": "append",
        "output": f"{folder}/".replace("%", "%%") + "slurm-%j.log",
        **_additional(cluster),
    }
    wanted = {
        "job_name": job_name(spec.run_id),
        "time": cluster.timeout_min,
        "nodes": most if least == most else f"{least}-{most}",
        "ntasks_per_node": None if capped else spec.tasks_per_node,
        "gpus_per_node": None if _gres_names_gpus(cluster) else gpus or None,
        "cpus_per_task": None if cluster.cpus_per_gpu else cpus_per_task(spec),
        **queue,
        "mem": None if cluster.mem_gb is None else _memory(cluster.mem_gb),
        "mem_per_gpu": cluster.mem_per_gpu,
        "mem_per_cpu": cluster.mem_per_cpu,
        "signal_delay_s": signal_delay_s,
        "array_parallelism": cluster.array_parallelism,
    }
    return {
        **{name: value for name, value in wanted.items() if value is not None},
        "wckey": None,  # submitit's default is refused by clusters that keep a list of them
        "stderr_to_stdout": True,
        "use_srun": False,
        "additional_parameters": additional,
        "setup": _setup(spec, folder, python),
    }


def dependency(jobs: Sequence[str], *, also: str = "") -> list[str]:
    """Options of sbatch for a job that waits until `jobs` have ended well, and for what `also` says. Where one of them
    ends otherwise it stays in the queue, to wait for the next job of that run."""
    after = ",".join(filter(None, (afterok(jobs), also)))
    return [f"--dependency={after}", "--kill-on-invalid-dep=no"] if after else []


def afterok(jobs: Sequence[str]) -> str:
    """The dependency of a job that waits until these have ended well; empty where there are none."""
    return f"afterok:{':'.join(jobs)}" if jobs else ""


def job_name(name: str) -> str:
    """`name` as Slurm's tools show and take it without quotes."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", name)


def text(folder: Path, parameters: Mapping[str, Any], *, python: str | None = None) -> str:
    """The batch script of `parameters`, for the submission folder that they were made for.

    python: path of the interpreter that starts the job, as given to `parameters`; ours by default.
    """
    # Written here, too: submitit has no public way to a script without a submission, and takes a fifth of a plan's time
    # to load. A test has both write the same.
    apart = ("setup", "signal_delay_s", "array_parallelism", "stderr_to_stdout", "use_srun", "additional_parameters")
    options = {name: value for name, value in parameters.items() if name not in apart and value is not None}
    options |= {"signal": f"USR2@{parameters['signal_delay_s']}", **parameters["additional_parameters"]}
    command = f"{shlex.quote(python or sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    lines = ["#!/bin/bash", "", "# Parameters", *(_option(name, options[name]) for name in sorted(options))]
    lines += ["", "# setup", *parameters["setup"], "", "# command", "export SUBMITIT_EXECUTOR=slurm", command, ""]
    return "\n".join(lines)


def _option(name: str, value: Any) -> str:
    """A line of the batch script: true is an option without a value."""
    return f"#SBATCH --{name.replace('_', '-')}" + ("" if value is True else f"={shlex.quote(str(value))}")


def python_of(cluster: ClusterConfig) -> str:
    """Path of the Python that starts a job on its first node: `cluster.python` where that is a path and no more, else
    ours. In a container there are the ranks alone: Slurm's own commands are seldom at hand inside."""
    given = "" if image(cluster) else cluster.python
    return given if given and given.startswith("/") and shlex.quote(given) == given else sys.executable


def gpus_per_node(spec: RunSpec) -> int:
    """GPUs that the job takes of each node, one a task. Raises InputError when a node has fewer."""
    has = spec.cluster.gpus_per_node
    if has and spec.tasks_per_node > has:
        reason = f"a node has cluster.gpus_per_node={has}, and each task takes one"
        raise InputError.of("tasks_per_node", spec.tasks_per_node, reason, f"use at most {has}")
    return spec.tasks_per_node if has else 0


def cpus_per_task(spec: RunSpec) -> int:
    """CPUs of one task: as given, else its share of the node. A job that leaves GPUs of a node leaves their CPUs."""
    cluster = spec.cluster
    share = cluster.cpus_per_node // max(spec.tasks_per_node, cluster.gpus_per_node)
    return cluster.cpus_per_task or cluster.cpus_per_gpu or max(1, share)


def asked_memory_gb(spec: RunSpec) -> float | None:
    """GB of host memory that the job asks for on a node; None where that is left to the cluster, or all of it."""
    cluster = spec.cluster
    if cluster.mem_gb is not None:
        return cluster.mem_gb * UNITS["G"] / 1e9 or None
    for given, times in (
        (cluster.mem_per_gpu, gpus_per_node(spec)),
        (cluster.mem_per_cpu, cpus_per_task(spec) * spec.tasks_per_node),
    ):
        if given is not None and (size := MEMORY.fullmatch(given)):
            return times * int(size[1]) * UNITS[size[2].upper()] / 1e9 or None
    return None


def check(cluster: ClusterConfig) -> None:
    """Raises InputError naming the first field of the queue whose value would not arrive as it stands."""
    for name in TEXTS:
        _check_text(f"cluster.{name}", getattr(cluster, name))
    for name in ("mem_per_gpu", "mem_per_cpu"):
        value = getattr(cluster, name)
        if value is not None and not MEMORY.fullmatch(value):
            raise InputError.of(f"cluster.{name}", value, "Slurm reads no size in it", "give one like 60G")
    for number, line in enumerate(cluster.setup):
        if not line.strip():
            raise InputError.of(f"cluster.setup[{number}]", repr(line), "it is empty", "leave it out")
        _check_text(f"cluster.setup[{number}]", line, allowed="\n\t")
    for name, value in cluster.environment.items():
        if not VARIABLE.fullmatch(name) or name in RANKS or name.startswith(("SLURM_", "SSLRUN_")):
            reason, fix = "it names no variable, or one that tells a rank who it is", "leave it out"
            raise InputError.of(f"cluster.environment.{name}", ..., reason, fix)
        if not isinstance(value, str):
            raise InputError.of(f"cluster.environment.{name}", _shown(value), "a variable is one text", "give one")
        if name in MEETING and (wrong := _no_meeting(name, value)):
            raise InputError.of(f"cluster.environment.{name}", repr(value), *wrong)
        _check_text(f"cluster.environment.{name}", value, may_be_empty=True, shown=False)
    if cluster.python is not None and not _words(cluster.python):
        raise InputError.of("cluster.python", cluster.python, "a shell finds no words in it", "close its quotes")
    if cluster.local_env is not None:
        _check_local_env(cluster)
    _additional(cluster)
    options_of_steps(cluster)


def _no_meeting(name: str, value: str) -> tuple[str, ...]:
    """Why ranks never meet where a variable of MEETING is this, and what would be right; empty where they may."""
    if name == "MASTER_PORT" and value and not (value.isdecimal() and int(value) < 2**16):
        return "it is no port", "give one below 65536, or leave it out"
    if name != "MASTER_PORT" and re.search(r"[\s$]", value):
        return "nothing is called that, and no shell reads it", "write the name itself, or leave it out"
    return ()


def _check_local_env(cluster: ClusterConfig) -> None:
    given = cluster.local_env
    if not given.startswith(("/", "$")):
        reason = "it is a folder of each node's own, and no path from here"
        raise InputError.of("cluster.local_env", given, reason, "give it from the root on, or as '$SCRATCH'")
    if image(cluster):
        reason = f"ranks start in the container {image(cluster)}, which brings an environment of its own"
        raise InputError.of("cluster.local_env", given, reason, "leave one of them out")
    if cluster.python is None or python_of(cluster) == cluster.python:
        return
    words = _words(cluster.python)
    if len(words) > 1:
        reason = f"ranks are started by cluster.python={cluster.python}, which brings an environment of its own"
        raise InputError.of("cluster.local_env", given, reason, "leave one of them out, or name an interpreter")
    if not words[0].startswith("/"):
        reason = "each node looks for it on a PATH of its own, and cluster.local_env packs one interpreter"
        raise InputError.of("cluster.python", cluster.python, reason, "give its full path")
    reason = "cluster.local_env packs no interpreter whose path needs quotes"
    raise InputError.of("cluster.python", cluster.python, reason, "give the path of a link to its environment")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _additional(cluster: ClusterConfig) -> dict[str, Any]:
    """The user's own options of sbatch: true is an option without a value, false or null none at all."""
    return _options("additional_parameters", cluster.additional_parameters, "sbatch", OURS)


def options_of_steps(cluster: ClusterConfig, *, of_the_node: bool = False) -> list[str]:
    """`cluster.srun` as words for srun. of_the_node: without those of containers, for what is about the node itself.

    Raises InputError for what is no option, or one that sslrun sets itself.
    """
    # A comma on the command line is a sweep, so there is a list for what srun takes with commas.
    joined = {name: _joined(value) for name, value in cluster.srun.items()}
    options = _options("srun", joined, "srun", OURS_OF_STEPS)
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options.items()
        if not (of_the_node and "container" in name)
    ]


def image(cluster: ClusterConfig) -> str:
    """What srun makes a container of; empty where it makes none."""
    words = (word.partition("=") for word in options_of_steps(cluster))
    return next((value for name, _, value in words if name in IMAGES), "")


def _joined(value: Any) -> Any:
    flat = isinstance(value, list | tuple) and not any(isinstance(item, list | tuple | Mapping) for item in value)
    return ",".join(map(str, value)) if flat else value


def _options(given_as: str, given: Mapping[str, Any], program: str, ours: Collection[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in given.items():
        field, name = f"cluster.{given_as}.{key}", key.replace("_", "-")
        if not OPTION.fullmatch(name):
            raise InputError.of(field, value, f"no option of {program} is called that", "use its long name")
        if name in FIELDS:
            raise InputError.of(field, value, "it has a field of its own", f"use {FIELDS[name]}")
        if name in ours:
            raise InputError.of(field, value, "sslrun sets it itself", "leave it out")
        if isinstance(value, list | tuple | Mapping):
            fix = f"write what {program} takes, as 'a,b'"
            raise InputError.of(field, _shown(value), "an option takes one value", fix)
        if isinstance(value, str):
            _check_text(field, value)
        if value is None or value is False:
            continue
        if name == "distribution" and not str(value).startswith(("block", "*")):
            raise InputError.of(field, value, "ranks lie one node after the other", "write block:..., as block:cyclic")
        options[name] = value
    return options


def _shown(value: Any) -> str:
    """As it is typed."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_shown(each)}' for name, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _check_text(
    field: str, value: str | None, *, allowed: str = "", may_be_empty: bool = False, shown: bool = True
) -> None:
    if value is None:
        return
    if not value.strip() and not may_be_empty:
        raise InputError.of(field, repr(value), "it is empty", "leave it out, or say null")
    # Control characters, line separators, and bytes that were no text to begin with.
    wrong = [c for c in value if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in allowed]
    if wrong:
        raise InputError.of(
            field, ascii(value) if shown else ..., f"a batch script cannot carry {wrong[0]!a}", "leave it out"
        )


def _check_folder(folder: Path) -> None:
    """The folder is a path of Slurm's log, of Python's modules and of submitit's pickles: each has its own escapes."""
    path, fix = str(folder), "choose another folder with runs=PATH"
    _check_text("runs", path)
    for wrong, reader in (
        ("\\", "Slurm takes a backslash in a log's path for an escape"),
        (":", "Python's module path ends a folder at a colon"),
        *((escape, f"submitit puts an id in place of {escape}") for escape in ("%j", "%t", "%a", "%A")),
    ):
        if wrong in path:
            raise InputError.of("runs", path, reader, fix)


def _gres_names_gpus(cluster: ClusterConfig) -> bool:
    """Whether `gres` asks for the GPUs: with gpus_per_node beside it, Slurm would add the two."""
    return any(item.partition(":")[0].removeprefix("gres/") == "gpu" for item in (cluster.gres or "").split(","))


def _memory(gb: float) -> str:
    """As sbatch reads it."""
    return f"{gb:g}G" if gb == int(gb) else f"{int(gb * 1024)}M"


def _setup(spec: RunSpec, folder: Path, python: str) -> list[str]:
    """Lines of bash that run before the job's Python: a clean environment, the user's own, and what must be there."""
    asked_for = {f"SLURM_{name.upper().replace('-', '_')}" for name in _additional(spec.cluster)}
    foreign = [f'"${{!{prefix}@}}"' for prefix in INHERITED_PREFIXES]
    foreign += [name for name in INHERITED if name not in asked_for]
    return [
        f"umask {'027' if spec.group else '077'}",
        f"unset {' '.join(foreign)}",
        *setup.lines(spec.cluster.setup, setup.RECORDED),
        f"python={shlex.quote(python)} folder={shlex.quote(str(folder))} node=${{SLURMD_NODENAME:-$HOSTNAME}}",
        'export PYTHONUTF8=1 PYTHONSAFEPATH=1 PYTHONPATH="$folder/code${PYTHONPATH:+:$PYTHONPATH}"',
        _required('-x "$python"', "$node has no $python; install it there, or name one that is in cluster.python"),
        _required('-O "$folder"', "$node has no $folder of yours; choose a folder that all nodes share with runs=PATH"),
        *setup.told(spec.cluster.setup),
        # The pickle lies here under a name that needs no job id, so that it is complete before sbatch is called.
        "id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} id=${id:-$SLURM_JOB_ID}",
        "pickle=$folder/${SLURM_ARRAY_TASK_ID:-0}.pkl submitted=$folder/${id}_submitted.pkl",
        'ln -f "$pickle" "$submitted" 2>/dev/null || cp -f "$pickle" "$submitted" 2>/dev/null ||',
        '    command -p cp -f "$pickle" "$submitted" || exit 3 # whatever cluster.setup has made of PATH',
    ]


def _required(test: str, otherwise: str) -> str:
    return f'test {test} || {{ echo "sslrun: {otherwise}"; exit 3; }}'
