"""Evaluations: protocols on one checkpoint of a run, as a job of its own.

    <run>/evals/knn-1/     knn+linear-1 where there are two
        eval.json          the protocols and their settings, and the checkpoint (step null: the last of the run, once
                           that is done; without `after`, which only older versions wrote, the newest once it starts)
        spec.json  ...     as of a run: what the run is made of, and where the evaluation runs
        pinned/run/...     the checkpoint, where the run trains on; see run/pins.py

The folder is a run's in all else, so that it is started, watched, stopped, resumed and read as one; that it holds an
eval.json tells its ranks to evaluate instead of training. Its numbers join the run, as `eval` events in its ledger.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.compose import protocols
from launcher.compose.sources import NEWEST, at_step
from launcher.errors import InputError
from launcher.plan import evaluation as planning
from launcher.run import manifest, pins, snapshot
from launcher.run.files import lock, opened, write_json
from launcher.run.folder import RunDir
from launcher.run.shapes import ASKED
from launcher.run.snapshot import Snapshot
from launcher.run.state import ACTIVE
from launcher.spec import registry
from launcher.spec.runspec import InitFrom, RunSpec

if TYPE_CHECKING:
    from launcher.slurm.commands import SlurmJob

refuse_unfit = registry.facts("evals").refuse_unfit

FILE = "eval.json"
TURN = 10.0  # seconds that one waits for another who makes the folder of an evaluation
SCIENCE, PLACE = ("eval_data", "method"), ("cluster", "nodes", "least_nodes", "tasks_per_node")  # of its spec


@dataclass(frozen=True)
class Wanted:
    """What to evaluate. `settings`: of each protocol, all filled in. `step` and `digest`: of the checkpoint; None: the
    run's last, and `after` says that it may not be there yet. `spec`: the run's, with the cluster and the labels of the
    evaluation. `launched`: it was asked for when the run was."""

    settings: protocols.Settings
    step: int | None
    digest: str | None
    after: bool
    spec: RunSpec
    launched: bool = False

    @property
    def protocol(self) -> str:
        return "+".join(self.settings)

    def to_json(self) -> dict[str, Any]:
        names = "protocol", "settings", "step", "digest", "after"
        return {name: getattr(self, name) for name in names}


def refuse_unasked(spec: RunSpec, overrides: Sequence[str], config_dir: Path | None = None) -> None:
    """Raises InputError where `want` would, of a run that is to be made of `spec`."""
    _composed(spec, list(overrides), config_dir)


def want(run: RunDir, overrides: list[str], *, config_dir: Path | None = None) -> Wanted:
    """What `sslrun eval RUN ...` asks for: of a run that is not done, what it will be then. Raises InputError for an
    unknown protocol, a step without a checkpoint, a run without labels, one of somebody else unless another cluster is
    given, and whatever else a person can get wrong."""
    step = dict(text.partition("=")[::2] for text in overrides).get("step")
    rest = [text for text in overrides if text.partition("=")[0] != "step"]
    if not any(text.startswith("cluster=") for text in rest):  # a cluster's `setup`, say, is run as it stands
        run.refuse_foreign("say cluster=NAME: what its own cluster's settings say would be done in your name")
    spec, settings = _composed(run.spec(), rest, config_dir)
    if not registry.method(run.spec().method.name).trains:
        raise InputError.of("RUN", run.id, "it trains nothing that could be judged", "give a run that trains")
    if step is None and not pins.done(run.history()):
        return Wanted(settings, None, None, True, spec)
    value = {"field": "RUN", "value": run.id} if step is None else {"field": "step", "value": step}
    saved = manifest.read(at_step(run, NEWEST if step is None else step, **value))
    return Wanted(settings, saved["step"], saved["digest"], False, spec)


def _composed(spec: RunSpec, overrides: list[str], config_dir: Path | None) -> tuple[RunSpec, protocols.Settings]:
    """(where the evaluation runs, its protocols)."""
    from launcher.compose.training import for_evaluation

    settings, rest = protocols.taken(overrides, getattr(spec.method, "backbone", "") or "")
    spec = for_evaluation(spec, rest, config_dir=config_dir)
    check_truth(spec, settings)
    planning.make(spec, settings)
    return spec, settings


def afterwards(run: RunDir, also: Sequence[str] = ()) -> list[Wanted]:
    """What `eval_after` asked for when the run was launched, and `also`: the same cluster, one node."""
    spec = run.spec()
    where = dataclasses.replace(spec.on(1).without_spares(), eval_after=())
    names = dict.fromkeys((*spec.eval_after, *also))
    settings = (protocols.defaults([name], spec.method.backbone) for name in names)
    return [Wanted(each, None, None, True, where, launched=True) for each in settings]


def check_truth(spec: RunSpec, asked: Sequence[str], give: str = "eval_data") -> None:
    """Raises InputError where one of the protocols `asked` for needs labels, or whatever else, that the images do not
    have. asked: or a mapping from them; give: the field to set instead."""
    data = spec.eval_data or spec.data
    refuse_unfit(asked, data, give)
    reason = data.no_labels() if "label" in protocols.needs(asked) and "label" in data.truth else None
    if reason:
        field = "eval_data" if spec.eval_data else "data"
        fix = f"give labelled images: {give}=image_folder {give}.path=/path/to/them"
        raise InputError.of(field, data.name, f"it has no labels ({reason})", fix)


def every(run: RunDir) -> list[RunDir]:
    """All evaluations of a run that are complete on disk, by their protocols, and of the same ones the oldest first."""
    names = (file.parent for file in (run.path / "evals").glob("*/spec.json"))
    return [RunDir(path) for path in sorted(names, key=lambda path: (path.name.rpartition("-")[0], _number(path.name)))]


def known(run: RunDir, wanted: Wanted, queue: "Mapping[str, SlurmJob] | None" = None) -> RunDir | None:
    """The evaluation that measures or measured the same. One that failed or stopped is taken up again if it would run
    in the same place."""
    return next((found for found in reversed(every(run)) if _same(run, found, wanted, queue)), None)


def prepare(run: RunDir, wanted: Wanted, queue: "Mapping[str, SlurmJob] | None" = None) -> tuple[RunDir, bool]:
    """(the evaluation's folder, whether it was there before): the `known` one, else a new one."""
    run.keep_private(wanted.spec)
    with _in_turn(run):
        found = known(run, wanted, queue)
        return found or _create(run, wanted), bool(found)


@contextlib.contextmanager
def _in_turn(run: RunDir) -> Iterator[None]:
    """Of those who ask at the same time the next one looks when the one before has made what was asked for. Nobody
    waits for long: where there is no lock to be had, the same work may be done twice, and no more than that."""
    held = None
    try:
        with contextlib.suppress(OSError, InputError):  # `_create` says what is wrong
            (run.path / "evals").mkdir(exist_ok=True)
            held = opened(run.path / "evals" / "lock", os.O_RDWR | os.O_CREAT)
            until = time.monotonic() + TURN
            while not lock(held, fcntl.LOCK_EX | fcntl.LOCK_NB, run.runs) and time.monotonic() < until:
                time.sleep(0.05)
        yield
    finally:
        if held is not None:
            os.close(held)


def next_folder(run: RunDir, wanted: Wanted) -> Path:
    """Where the next evaluation by these protocols would lie."""
    folder, name = run.path / "evals", wanted.protocol
    return folder / f"{name}-{1 + max((_number(path.name) for path in folder.glob(f'{name}-*')), default=0)}"


def asked_of(evaluation: RunDir) -> dict[str, Any]:
    """What Wanted.to_json said of it. Raises NotOurs where that is not what the file holds; OSError."""
    return ASKED.read(evaluation.path / FILE)


def scores(evaluation: RunDir) -> dict[str, Any]:
    """The `eval` event of an evaluation that is done: protocol, step, scores; empty before."""
    return evaluation.history().last("eval")


def _same(run: RunDir, found: RunDir, wanted: Wanted, queue: "Mapping[str, SlurmJob] | None") -> bool:
    try:
        asked, spec = asked_of(found), found.spec()
    except (OSError, ValueError, InputError):  # damaged: leave it alone
        return False
    if "settings" not in asked:  # from before there were any
        asked["settings"] = protocols.defaults([asked["protocol"]], spec.method.backbone)
    if protocols.filled(asked["settings"]) != wanted.settings or _said(spec, SCIENCE) != _said(wanted.spec, SCIENCE):
        return False
    state, which = found.state(queue).name, _which(run, wanted.to_json())
    if state == "done":
        return scores(found).get("digest") == which
    if _which(run, asked) != which:
        return False
    return state in ACTIVE or _said(spec, PLACE) == _said(wanted.spec, PLACE)


def _which(run: RunDir, asked: Mapping[str, Any]) -> str | None:
    """The digest of the checkpoint, or what stands for one that is not there yet."""
    if asked["step"] is None and pins.done(run.history()):
        newest = run.checkpoints()[-1:]
        return manifest.read(newest[0])["digest"] if newest else None
    return asked.get("digest") or ("end" if asked.get("after") else NEWEST)


def _said(spec: RunSpec, names: Sequence[str]) -> str:
    """What the spec says in these fields, to be compared."""
    fields = spec.to_json()
    return json.dumps([fields.get(name) for name in names], sort_keys=True)


def _create(run: RunDir, wanted: Wanted) -> RunDir:
    folder, plan = run.path / "evals", planning.make(wanted.spec, wanted.settings)
    try:
        folder.mkdir(exist_ok=True)
        made = None
        while made is None:
            free = next_folder(run, wanted)
            with contextlib.suppress(FileExistsError):  # somebody else asks at the same time
                free.mkdir()
                made = free
        write_json(made / FILE, wanted.to_json())
    except OSError as error:
        fix = "make it writable"
        raise InputError.of("RUN", run.id, f"cannot write in {folder} ({error.strerror})", fix) from None
    evaluation = RunDir(made)
    if wanted.digest and not pins.done(run.history()):  # it saves on, and removes what it saved before
        path = run.path / "checkpoints" / f"step_{wanted.step:08d}"
        pins.keep(made, pins.JUDGED, InitFrom(str(path), wanted.digest))
    evaluation.create(wanted.spec, plan, lambda: _code(run, wanted))
    return evaluation


def _code(run: RunDir, wanted: Wanted) -> Snapshot:
    """What was asked for at launch runs the code of the launch; what is asked for now, that of now."""
    if wanted.launched:
        code = run.code()
        return Snapshot(run.code_folder().resolve(), code["digest"], code["origin"])
    return snapshot.take(wanted.spec.method.name, run.path.parent, wanted.settings)


def _number(name: str) -> int:
    text = name.rpartition("-")[2]
    return int(text) if text.isdigit() else 0
