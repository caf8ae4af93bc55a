"""Trainings whose arithmetic is float64 throughout, so that what differs between two of them is no rounding.

Sums over ranks are taken in another order than sums on one rank. In float32 the difference soon decides about a feature
that lies between two clusters, and from then on there are two trainings, both right. In float64 the same steps agree to
many digits, decisions among them, and whatever does not is a mistake.
"""

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from attributes import attributes
from torch.overrides import TorchFunctionMode

from launcher.plan import kinds
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.spec import registry, stored
from methods import data
from methods.data.dataset import ImageDataset
from methods.engine import loop
from methods.engine.job import Job

AS_IT_IS = (torch.Tensor.view,)  # bits under another type


class Float64(TorchFunctionMode):
    """Inside, what asks for float32 gets float64."""

    def __enter__(self) -> "Float64":
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_default_dtype(torch.float32)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.float:
            return args[0].double()
        if function in AS_IT_IS:
            return function(*args, **kwargs)
        args = [torch.float64 if value is torch.float32 else value for value in args]
        kwargs = {key: torch.float64 if value is torch.float32 else value for key, value in kwargs.items()}
        return function(*args, **kwargs)


@dataclasses.dataclass
class Trained:
    """What a rank's training came to. losses: the mean over all ranks of each step, of all starts; state:
    {owner/key: value} of what this rank registered; held: {step: {path: value or digest}} of all that its trainer held
    before that step of this start, if it was watched; scalars: how many the network has that trains, and its
    follower."""

    losses: dict[int, float]
    state: dict[str, Any]
    held: dict[int, dict[str, str]]
    scalars: dict[str, int]


def train(
    world: World,
    planned: dict,
    folder: Path | str,
    *,
    stop_after: int = 0,
    perturbed: float = 0.0,
    watched: bool = False,
    trainer: Callable[[Job], Any] | None = None,
) -> Trained:
    """Train a spec, as spec.json has it, in `folder` from its newest checkpoint, or from the start; to the end, or
    until a step or two after `stop_after`, where it saves. The engine's own loop, without evaluations. perturbed: how
    far (relative) each weight of the networks is moved before the first step, at random. watched: note what the
    trainer holds before each step. trainer: None for that of the method."""
    folder = Path(folder)
    spec = dataclasses.replace(stored.read(planned), runs=str(folder), nodes=1, tasks_per_node=world.size)
    run = RunDir(folder / "run")
    if world.is_main and not run.path.exists():
        run.create(spec, kinds.make(spec), lambda: Snapshot(folder / "code", "digest", ""))
    world.barrier()
    generation = world.broadcast(run.generation() + 1)
    ledger = Ledger(run.path, generation, f"rank{world.rank}")
    if world.is_main:
        ledger.write("start", cause="submitted", world_size=world.size)
    stop = StopFlag()
    with Float64():
        layout = registry.method(spec.method.name).layout(spec.method, world.size)
        job = Job(run, spec, world, layout, ledger, stop, _images(spec.data))
        trainer = (trainer or registry.load_trainer(spec.method.name))(job)
        held = _held(job, trainer) if watched else {}
        if perturbed:
            _perturb(trainer.networks, perturbed)
        if stop_after:
            _tell(stop, trainer, stop_after)
        try:
            loop.train(job, trainer, lambda *_: None)
        except Stopped:
            assert stop_after
        scalars = {name: _scalars(getattr(trainer, name)) for name in ("module", "follower")}
        owners = [entry for entries in job.owners.shards().values() for entry in entries.items()]
        state = {f"{name}/{key}": value for name, entry in owners for key, value in entry.owner.state().items()}
    world.barrier()
    rows = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    return Trained({row["step"]: row["loss"] for row in rows if "loss" in row}, state, held, scalars)


def left_out(whole: Trained, resumed: Trained) -> tuple[list[str], list[str]]:
    """(what a rank held otherwise as soon as it was resumed, and still after a step, than in the training that nobody
    stopped; what it held otherwise after any step). The first is what no registered state brought back, the second what
    follows from it; what each step makes anew is in neither."""
    first, *others = sorted(resumed.held)
    unequal = {
        step: {name for name in {*whole.held[step], *held} if whole.held[step].get(name) != held.get(name)}
        for step, held in resumed.held.items()
    }
    return sorted(unequal[first] & unequal[others[0]]), sorted(set().union(*(unequal[step] for step in others)))


def _held(job: Job, trainer: Any) -> dict[int, dict[str, str]]:
    """Filled before each step that `trainer` takes."""
    found, before_step = {}, getattr(trainer, "before_step", lambda _: None)
    shared = (job, *vars(job).values())

    def note(step: int) -> None:
        found[step] = attributes(trainer, without=shared)
        before_step(step)

    trainer.before_step = note
    return found


def _scalars(network: torch.nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in network.parameters()) if network is not None else 0


def _images(config: Any) -> ImageDataset:
    """Made once for all trainings of a rank."""
    key = repr(config)
    if key not in _made:
        _made[key] = data.build(config, "train")
    return _made[key]


_made: dict[str, ImageDataset] = {}


def copied(world: World, folder: Path, name: str) -> Path:
    """A copy of `folder` beside it, for these ranks to go on in."""
    if world.is_main:
        shutil.copytree(folder, folder.with_name(name), symlinks=True)
    world.barrier()
    return folder.with_name(name)


def _perturb(networks: Sequence[torch.nn.Module], by: float) -> None:
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for network in networks:
            for weight in network.parameters():
                weight *= 1 + by * torch.randn(weight.shape, generator=draws)


def _tell(stop: StopFlag, trainer: Any, step: int) -> None:
    """Tell this rank to stop once it has done `step` steps."""
    after_step = getattr(trainer, "after_step", lambda _: None)

    def told(number: int) -> None:
        after_step(number)
        if number + 1 >= step:
            stop.signal = signal.SIGUSR2

    trainer.after_step = told
