"""The packed environment of a run (packed.py) on the nodes of its job (unpacked.py), before the ranks start from there.

There is no limit to how long it takes, only to how long a node may be without news of it.
"""

import dataclasses
import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import InputError, NodesRefused, NotStarted, SslrunError, Unreadable, first_few, of_nodes
from launcher.plan import steps
from launcher.run import waiting
from launcher.run.files import object_in
from launcher.run.folder import ENVIRONMENTS, RunDir
from launcher.run.ledger import Ledger
from launcher.slurm import srun
from launcher.spec.runspec import RunSpec, freeze
from launcher.start import packed, preflight, unpacked

STILL_SECONDS = preflight.PREFLIGHT_SECONDS  # that a node may be without news
END_SECONDS = 10.0  # from the signal to the kill


def on_nodes(
    run: RunDir,
    spec: RunSpec,
    code: Path,
    nodes: Sequence[str],
    ledger: Ledger,
    *,
    beside: bool,
    unwanted: Callable[[], bool],
) -> RunSpec:
    """Have the environment on the own disk of each of `nodes`: the spec by which ranks start from there.

    unwanted: asked now and then whether the start is to end. Raises NotStarted then, and where it failed, NodesRefused
    where some cannot have it, Unreadable where most could not read it, and InputError where it is not there, or is not
    what was packed.
    """
    taken = packed.of(run)
    if not taken:
        fix = f"`sslrun resume {run.typed}` packs it"
        raise InputError.of("cluster.local_env", spec.cluster.local_env, "the ledger names no packed environment", fix)
    folder = os.path.expandvars(spec.cluster.local_env)
    if not folder.startswith("/"):
        raise InputError.of("cluster.local_env", spec.cluster.local_env, "no such variable is set in the job")
    began, home = time.monotonic(), unpacked.home(folder)
    target = home / taken["digest"]
    order = {name: taken[name] for name in ("digest", "sha256", "bytes", "prefixes")}
    order |= {"folder": folder, "archive": str(run.runs / ENVIRONMENTS / taken["digest"] / unpacked.ARCHIVE)}
    name, copy = f"unpack{ledger.generation}", target / taken["python"]
    words = steps.unpack(spec, nodes, name, code, home, copy, json.dumps(order), beside=beside)
    show = waiting.shown_by(run.path, ledger.generation)
    unpacking = _Unpacking(words, nodes, show)
    unpacking.see_through(unwanted)
    if unpacking.refused:
        raise _refusal(run, spec, order, unpacking, show)
    seconds = round(time.monotonic() - began, 3)
    ledger.write("unpacked", digest=taken["digest"], path=str(target), fresh=unpacking.fresh, seconds=seconds)
    places = {old: f"{target}/{new}" for old, new in taken["prefixes"].items() if new == "env"}
    environment = {unpacked.VARIABLE: str(target), **_moved(os.environ, places), **spec.cluster.environment}
    cluster = spec.cluster_but(python=shlex.quote(str(copy)), environment=environment)
    return dataclasses.replace(spec, cluster=freeze(cluster))


def _refusal(
    run: RunDir, spec: RunSpec, order: Mapping[str, Any], unpacking: "_Unpacking", show: Callable[[str], None]
) -> SslrunError:
    """Of what the nodes said. Raises Unreadable where the archive cannot be read here, either."""
    archive, again = Path(order["archive"]), f"`sslrun resume {run.typed}` packs it again"
    why = {node: str(said.get("why")) for node, said in unpacking.refused.items()}
    spoiled = {node: why[node] for node, said in unpacking.refused.items() if said.get("spoiled")}
    unread = {node: why[node] for node, said in unpacking.refused.items() if said.get("unread")}
    if spoiled and not unpacking.fresh:  # nobody has read what was packed
        packed.forget(archive, order["sha256"])
        return InputError.of("cluster.local_env", spec.cluster.local_env, first_few(of_nodes(spoiled)), again)
    if unread:
        try:
            waiting.patiently(lambda: waiting.refuse_unanswered(archive), show)
        except OSError as error:
            reason = f"{archive}: {error.strerror or error}"
            return InputError.of("cluster.local_env", spec.cluster.local_env, reason, again)
    if 2 * len(unread) < len(unpacking.nodes):
        fix = f"`sslrun resume {run.typed} cluster.local_env=FOLDER` takes another one, and null in its place none"
        return NodesRefused(why, "" if run.owner else fix)
    return Unreadable(first_few(of_nodes(unread)))


def _moved(environ: Mapping[str, str], places: Mapping[str, str]) -> dict[str, str]:
    """Those variables that name the environment's folder, as PATH does where it is active, with that of the copy."""

    def there(path: str) -> str:
        old = next((old for old in places if path == old or path.startswith(f"{old}/")), None)
        return path if old is None else places[old] + path[len(old) :]

    new = {name: ":".join(map(there, value.split(":"))) for name, value in environ.items()}
    return {name: value for name, value in new.items() if value != environ[name]}


class _Unpacking:
    """The step that does it, a task on each node. `refused`: {node: its word} of those that cannot have it; `fresh`: on
    how many it was not yet."""

    def __init__(self, words: Sequence[str], nodes: Sequence[str], show: Callable[[str], None]):
        self.nodes, self.fresh = nodes, 0
        self.refused: dict[str, dict[str, Any]] = {}
        self._show, self._shown = show, ""
        self._quiet = dict.fromkeys(nodes, 0.0)  # seconds, but for those in which this process stood still
        self._said: dict[str, dict[str, Any]] = {}
        self._srun, self._heard = preflight.Srun(words), 0

    def see_through(self, unwanted: Callable[[], bool]) -> None:
        """Until all nodes have it, or some have refused. Raises NodesRefused, NotStarted."""
        try:
            self._wait(unwanted)
        finally:
            self._srun.close(END_SECONDS)  # a task that is killed leaves what the next one removes
            print(*self._srun.errors, sep="", end="", flush=True)
        self.refused = {node: said for node, said in self._said.items() if said.get("is") == "refused"}
        self.fresh = sum(said.get("fresh") is True for said in self._said.values())
        code = self._srun.process.returncode
        if not self.refused and (code or not all(self._is(node, "there") for node in self._quiet)):
            unwanted()  # Slurm ends the step before it tells this process
            raise NotStarted(f"unpacking the environment failed: {srun.reason(self._srun.errors) or code}")

    def _wait(self, unwanted: Callable[[], bool]) -> None:
        unheeded = 0.0
        while not self._srun.ended(preflight.TICK_SECONDS):
            for node in self._quiet:
                self._quiet[node] += 0.0 if self._is(node, "there", "refused") else preflight.TICK_SECONDS
            self._hear()
            self._refuse_silent()
            unheeded += preflight.TICK_SECONDS
            if unheeded >= preflight.HEED_SECONDS:
                unheeded = 0.0
                self._tell()
                if unwanted():
                    raise NotStarted("the start was to end while its environment was unpacked")
        self._hear()

    def _hear(self) -> None:
        for line in self._srun.lines[self._heard :]:
            self._heard += 1
            found = object_in(line) or {}
            node = str(found.get("node"))
            if node in self._quiet:
                self._said[node], self._quiet[node] = found, 0.0
            else:
                print(line, end="", flush=True)

    def _refuse_silent(self) -> None:
        silent = [node for node, seconds in self._quiet.items() if seconds > STILL_SECONDS]
        # News comes now and then: where a file server is away, others are about to be as silent.
        still = [node for node, seconds in self._quiet.items() if seconds > STILL_SECONDS / 2]
        why = f"has not got on with unpacking the environment for {STILL_SECONDS:.0f} s"
        if silent and 2 * len(still) < len(self._quiet):
            raise NodesRefused(dict.fromkeys(silent, why))
        if silent:
            raise NotStarted(first_few(of_nodes(dict.fromkeys(still, why))))

    def _is(self, node: str, *states: str) -> bool:
        return self._said.get(node, {}).get("is") in states

    def _tell(self) -> None:
        done = sum(self._is(node, "there") for node in self._quiet)
        shown = f"unpacking {done}/{len(self._quiet)}"  # nodes
        if shown != self._shown:
            self._shown = shown
            self._show(shown)
