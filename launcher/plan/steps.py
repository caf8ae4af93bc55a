"""What a job has srun start on its nodes, to the letter: a look at each node, what tries how they reach one another,
and the ranks. Pure."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher.plan import containers, script
from launcher.spec.runspec import RunSpec
from launcher.spec.schema import ClusterConfig

REFUSED = 3  # exit code of a task that has said what its node lacks; unpacked.py has the same
_WORDS = f"""\
soon() {{ until test "$@"; do [ "$left" -gt 0 ] || return 1; left=$((left - 1)); sleep 1; done; }}
refuse() {{ echo "$SLURMD_NODENAME $1"; exit {REFUSED}; }}
"""
# Says that it begins, and then what the node lacks, or what it is called. It may mount the folder only now.
LOOK = f"""\
run=$1 python=$2 left=$3 inside=$4 lacks=
shift 4
echo "$SLURMD_NODENAME begins"
{_WORDS}\
soon -r "$run/spec.json" || lacks=$run
for path; do [ -n "$lacks" ] && [ -z "$inside" ] || soon -r "$path" || lacks="${{lacks:+$lacks, }}$path"; done
[ -z "$lacks" ] || refuse "does not see $lacks${{inside:+ $inside: cluster.srun.container-mounts}}"
soon -w "$run/logs" || refuse "cannot write to $run"
command -v "$python" >/dev/null || refuse "has no $python${{inside:+ $inside: cluster.python}}"
echo "$SLURMD_NODENAME is $(uname -n)"
"""
INSIDE = "inside the container"
# The same where cluster.python starts a container, which may have to be fetched: of that the node says nothing before.
LOOK_INTO = f"""\
run=$1 python=$2 left=$3
shift 3
{_WORDS}\
soon -r "$run/spec.json" || refuse "does not see $run"
soon -w "$run/logs" || refuse "cannot write to $run"
command -v "$python" >/dev/null || refuse "has no $python"
said=$("$@" 2>&1)
code=$? said=$(printf '%s\\n' "$said" | tail -n 1)
[ "$code" != {REFUSED} ] || refuse "$said"
[ "$code" = 0 ] || refuse "cannot start a container with cluster.python: $said"
echo "$SLURMD_NODENAME is $(uname -n)"
"""
SEEN = f"""\
import os, sys
lacks = [path for path in sys.argv[1:] if not os.access(path, os.R_OK)]
if lacks:
    print("does not see", ", ".join(lacks), "{INSIDE}: the binds of cluster.python")
    sys.exit({REFUSED})
"""


FIRST_LOST = "first_node_lost"
WAIT_SECONDS = 60  # of a step, for what an earlier one holds
LEFT = 7
GONE = f"""\
n=0
for pid; do
    while kill -0 "$pid" 2>/dev/null; do [ "$n" -lt 5 ] || exit {LEFT}; n=$((n + 1)); sleep 1; done
done
"""


# The Python of a copy that is there looks at it, and asks the shared one nothing; that one helps where it cannot.
UNPACK = f"""\
[ -O "$1" ] && [ ! -L "$1" ] && [ -x "$2" ] && "$2" -I -S "$4" "$5" && exit
[ $? != {REFUSED} ] || exit {REFUSED}
exec "$3" -I -S "$4" "$5"
"""


# The node with the batch script may die, and Slurm, asked to keep such a job, leaves it there with nobody in it.
# Where it outlives its job, on a node that only Slurm has lost, it leaves the next start of that alone.
UNDERSTUDY = """\
while sleep 10; do
    said=$(scontrol show job -o "$1" 2>&1) || case $said in *"Invalid job id"*) exit;; *) continue;; esac
    case $said in *" Restarts=$3 "*) ;; *) exit;; esac
    case $said in *" JobState=RUNNING "*) ;; *" JobState=SUSPENDED "*) continue;; *) exit;; esac
    nodes=${said##* NodeList=}
    names=$(scontrol show hostnames "${nodes%% *}") && [ -n "$names" ] || continue
    echo "$names" | grep -qxF "$2" && continue
    echo "$2" > "$4"
    scontrol requeue "$1"
done
"""


def look(
    spec: RunSpec, run: Path, nodes: Sequence[str], paths: Sequence[str], *, seconds: int, beside: bool = False
) -> list[str]:
    """One task on each of `nodes`, which has so many `seconds` to see the folder `run` of the run, and the `paths`.

    beside: although Slurm counts an earlier step as one that has not ended.
    """
    words, command = [str(run), python(spec.cluster)[0], str(seconds)], containers.command(spec.cluster)
    inside = INSIDE if script.image(spec.cluster) else ""
    into = [LOOK_INTO, "sslrun", *words, *command, "-I", "-S", "-c", SEEN, str(run), *paths]
    return [
        "srun", f"--immediate={WAIT_SECONDS}", *_on(nodes, beside), f"--ntasks={len(nodes)}", "--ntasks-per-node=1",
        "--chdir=/", "--input=none", *script.options_of_steps(spec.cluster),
        "sh", "-c", *(into if command else [LOOK, "sslrun", *words, inside, *paths]),
    ]  # fmt: skip


def meet(spec: RunSpec, nodes: Sequence[str] | None, source: str, *, beside: bool = False) -> list[str]:
    """One task on each of `nodes`, by default all of a job's, in the interpreter of a rank: `source` is Python without
    imports of ours, and hears what this srun is told. beside: as `look` has it."""
    count = len(nodes) if nodes else spec.nodes
    return [
        "srun", "--kill-on-bad-exit=0", f"--immediate={WAIT_SECONDS}",
        *(_on(nodes, beside) if nodes else [f"--nodes={count}"]),
        f"--ntasks={count}", "--ntasks-per-node=1", "--chdir=/", *script.options_of_steps(spec.cluster),
        *python(spec.cluster), "-I", "-S", "-c", source,
    ]  # fmt: skip


def unpack(
    spec: RunSpec,
    nodes: Sequence[str],
    name: str,
    code: Path,
    home: Path,
    copy: Path,
    order: str,
    *,
    beside: bool = False,
) -> list[str]:
    """One task on each of `nodes`, as a step called `name`, that carries out `order` by start/unpacked.py of `code`:
    afterwards the interpreter `copy` is there, in the user's folder `home`. beside: as `look` has it."""
    return [
        "srun", f"--job-name={name}", "--kill-on-bad-exit=0", f"--immediate={WAIT_SECONDS}", *_on(nodes, beside),
        f"--ntasks={len(nodes)}", "--ntasks-per-node=1", "--chdir=/", "--input=none",
        *script.options_of_steps(spec.cluster, of_the_node=True),
        "sh", "-c", UNPACK, "sslrun", str(home), str(copy),
        python(spec.cluster)[0], str(code / "launcher" / "start" / "unpacked.py"), order,
    ]  # fmt: skip


def ranks(
    spec: RunSpec, run: Path, nodes: Sequence[str], name: str, *, beside: bool = False, waits: bool = False
) -> list[str]:
    """The ranks of the run in the folder `run`, spec.tasks_per_node on each of `nodes`, as a step called `name`.

    beside: as `look` has it. waits: beside ranks that are at work, for a line on their stdin.

    When one fails, nothing happens to the others: whoever starts them ends them, and need not wait for KillWait as with
    --kill-on-bad-exit=1, during which Slurm takes no other signal for them (measured on 22.05).
    """
    tasks = spec.tasks_per_node
    return [
        "srun", f"--job-name={name}", "--kill-on-bad-exit=0", f"--immediate={WAIT_SECONDS}",
        *_on(nodes, beside or waits), f"--ntasks={len(nodes) * tasks}", f"--ntasks-per-node={tasks}",
        f"--cpus-per-task={script.cpus_per_task(spec)}", f"--input={'all' if waits else 'none'}",
        # From there: srun makes something else of some paths with a % in them, however it is written.
        f"--chdir={run / 'logs'}", "--output=rank%t.log", "--error=rank%t.log", "--open-mode=append",
        *script.options_of_steps(spec.cluster),
        *python(spec.cluster), "-P", "-m", "launcher.start.worker", str(run),
    ]  # fmt: skip


def doctor(spec: RunSpec) -> list[str]:
    """As the ranks of a run, on all nodes of a job: the words up to their interpreter."""
    tasks = spec.tasks_per_node
    return [
        "srun", "--kill-on-bad-exit=0", "--input=none", "--chdir=/", f"--nodes={spec.nodes}",
        f"--ntasks={spec.world_size}", f"--ntasks-per-node={tasks}", f"--cpus-per-task={script.cpus_per_task(spec)}",
        *script.options_of_steps(spec.cluster), *python(spec.cluster),
    ]  # fmt: skip


def gone(spec: RunSpec, node: str, pids: Sequence[int]) -> list[str]:
    """Ends with 0 where none of these processes is left on `node`, with LEFT where one is, also some seconds later."""
    return ["srun", *_alone(spec, node), "--input=none", "sh", "-c", GONE, "sh", *map(str, pids)]


def on_node(spec: RunSpec, job: str, node: str, command: Sequence[str]) -> list[str]:
    """`command` on `node` of the running `job`, asked for from outside of it."""
    return ["srun", f"--jobid={job}", *_alone(spec, node), "--input=none", *command]


def understudy(spec: RunSpec, run: Path, job: str, first: str, restarts: int, node: str) -> list[str]:
    """On `node`, beside the ranks of the run in the folder `run`: puts `job`, which was started again so often, back
    into the queue once `first` is none of its nodes any more, and leaves word of it in FIRST_LOST."""
    silent = ["--input=none", "--output=none", "--error=none"]  # srun, which would pass it on, dies with the first node
    told = [job, first, str(restarts), str(run / FIRST_LOST)]
    return ["srun", "--job-name=understudy", *_alone(spec, node), *silent, "sh", "-c", UNDERSTUDY, "sslrun", *told]


def python(cluster: ClusterConfig) -> list[str]:
    """The words that start a rank's interpreter."""
    return shlex.split(cluster.python) if cluster.python else [sys.executable]


def _alone(spec: RunSpec, node: str) -> list[str]:
    """One task beside all others, of the node itself: in a container there are neither its processes nor scontrol."""
    own = script.options_of_steps(spec.cluster, of_the_node=True)
    return [*_on([node], beside=True), "--ntasks=1", "--cpus-per-task=1", "--chdir=/", *own]


def _on(nodes: Sequence[str], beside: bool) -> list[str]:
    where = [f"--nodes={len(nodes)}", f"--nodelist={','.join(nodes)}"]
    # The memory of a step that has not ended is its own; with 0 none is asked for, and all may be used.
    return ["--overlap", "--mem=0", *where] if beside else where
