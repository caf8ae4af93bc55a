"""What the machine has on which sslrun is typed, as far as runs need it: a folder for them, a Python, an srun."""

import contextlib
import fcntl
import importlib.util
import os
import re
import shlex
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from launcher.errors import InputError
from launcher.plan import script
from launcher.slurm import srun
from launcher.slurm.check import BAD, OK, WARN, Check
from launcher.spec.schema import ClusterConfig

# File systems that are usually mounted on every node; of others the name says nothing.
SHARED = re.compile(r"nfs|lustre|gpfs|beegfs|ceph|weka|panfs|gluster|orangefs|pvfs|afs|cifs|smb|juicefs|daos|vast")


def runs_folder(runs: Path) -> Check:
    """Can runs be written here, does locking work, and will nodes see it?"""
    there = next(path for path in (runs, *runs.parents) if path.exists())
    kind, free = file_system(there), shutil.disk_usage(there).free / 1e9
    where = f"{runs}, on {kind}, {free:,.0f} GB free"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if os.access(there, os.W_OK):
            advice = "a run's lock needs flock (Lustre: mount with -o flock); choose another folder with runs=PATH"
            return Check("runs folder", BAD, f"{where}: no lock can be taken ({error.strerror})", advice)
        return Check("runs folder", BAD, f"{where}: you cannot write there", "choose another folder with runs=PATH")
    if not SHARED.search(kind):
        advice = "`sslrun doctor --launch nodes=N` shows whether every node sees it"
        return Check("runs folder", WARN, f"{where}, which is usually not shared between nodes", advice)
    return Check("runs folder", OK, f"{where}; locking works")


def options_of_srun(cluster: ClusterConfig) -> list[Check]:
    try:
        srun.check(cluster)
    except InputError as error:
        return [Check("srun", BAD, f"{error.field}: {error.reason}", error.fix)]
    options = " ".join(script.options_of_steps(cluster))
    return [Check("srun", OK, f"ranks are started with {options}")] if options else []


def python(cluster: ClusterConfig, *, gpus: bool) -> Check:
    if cluster.python:
        word = shlex.split(cluster.python)[0]
        if shutil.which(word) or script.image(cluster):
            return Check("python", OK, f"ranks are started by {cluster.python}")
        found = f"{word}, which starts the ranks, is not on this machine"
        return Check("python", WARN, found, "it must be on every node")
    if importlib.util.find_spec("torch") is None:
        return Check("python", BAD, f"{sys.executable} has no torch", "install it there, or set cluster.python")
    try:
        torch = version("torch")
    except ImportError:
        return Check("python", WARN, f"{sys.executable} has a torch of an unknown version", "reinstall it")
    kind = file_system(Path(sys.executable))
    found = f"{sys.executable} on {kind}, torch {torch}"
    if gpus and "+cpu" in torch:
        return Check("python", WARN, f"{found}, built without CUDA", "install the build with CUDA")
    if not SHARED.search(kind):
        advice = "every node must have it: `sslrun doctor --launch nodes=N` shows whether it does"
        return Check("python", WARN, f"{found}, which is usually not shared between nodes", advice)
    return Check("python", OK, found)


def file_system(path: Path) -> str:
    """The type of the file system that `path` lies on, as mount calls it: nfs4, lustre, ext4; "?" off Linux."""
    best, kind = -1, "?"
    with contextlib.suppress(OSError, ValueError):
        real = str(path.resolve())
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            mounted = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
            if len(mounted) >= best and (real == mounted or real.startswith(mounted.rstrip("/") + "/")):
                best, kind = len(mounted), after.split()[0]
    return kind
