"""What each task of a job executes: `python -P -m launcher.start.worker RUN`. All it is told is the run's path.

Rank, world size and rendezvous come from the environment. The trainer is imported here and nowhere else.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from launcher.errors import InputError, SslrunError, line_of
from launcher.run import waiting
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.patient import PatientRunDir
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.runtime.watchdog import Watchdog
from launcher.start import ahead, streams, unpacked
from launcher.start.handover import Start

FAILED_CODE = 4
AHEAD = (
    "launcher.runtime.dist", "methods.engine.loop", "methods.engine.staging", "methods.evals.during",
    "methods.evals.remarks", "torch.utils.tensorboard",
    "torch._dynamo",  # by torch itself, at an optimiser's first step
)  # fmt: skip


def main() -> int:
    """Run this rank to its end. Returns the exit code; its reason is in the ledger."""
    stop = StopFlag().install()  # first, so that a signal during the imports is not lost
    unpacked.hold()
    watchdog = Watchdog()  # before there are threads, and PyTorch in memory
    try:
        if ahead.asked() and (code := _stand_by(stop)) is not None:
            return code
        return _rank(stop, watchdog)
    finally:
        watchdog.end()


def _stand_by(stop: StopFlag) -> int | None:
    """Until the start comes for which this rank was begun ahead; or the exit code of one that is not needed."""
    run, start = RunDir(Path(sys.argv[1])), Start.read()
    return ahead.wait(run, start.generation, start.rank, partial(_load, run), stop)


def _load(run: RunDir) -> None:
    """What a training imports before its first step, and would import later without this."""
    spec = run.spec()
    for name in AHEAD:
        import_module(name)
    from launcher.spec import registry

    registry.load_trainer(spec.method.name)
    import_module("methods.backbones").network(spec.method.backbone)  # torchvision's and timm's take seconds


def _rank(stop: StopFlag, watchdog: Watchdog) -> int:
    run = RunDir(Path(sys.argv[1]))
    try:
        start = Start.read()
    except InputError as error:
        print(f"sslrun: {error}", flush=True)
        return error.exit_code
    if start.lock is not None:  # data-loader workers may outlive us by seconds; the lock must not
        os.register_at_fork(after_in_child=partial(_let_go, [start.lock]))
    ledger = Ledger(run.path, start.generation, f"rank{start.rank}")
    heart = Heart(run, generation=start.generation, rank=start.rank, size=start.world_size, watchdog=watchdog)
    try:
        show = waiting.shown_by(run.path, start.generation) if start.rank == 0 else None
        run = PatientRunDir(run.path, show)
        spec = run.spec()
        heart.start(60 * spec.cluster.stall_minutes)
        from launcher.runtime import dist

        heart.opening.passed("torch")
        os.environ |= {"RANK": str(start.rank), "LOCAL_RANK": str(start.local_rank)}
        os.environ |= start.network(os.environ.get("SLURMD_NODENAME", ""), os.environ)
        world = dist.init(start.rendezvous, start.secret(run.path))
        heart.joined(dist.wait_as_long_as_it_takes)
        heart.opening.passed("meeting")
        if start.threads:
            import torch

            torch.set_num_threads(start.threads)
        figures = _work(run)(run, world, ledger, stop, heart)
        if world.is_main:
            ledger.write("finished", **figures)
        world.barrier()
        dist.shutdown()
        return 0
    except Stopped:
        ledger.write("stopped_at_safe_point", signal=stop.signal and signal.Signals(stop.signal).name)
        return start.stopped_code
    except SslrunError as error:
        heart.last_words()
        ledger.write("error", message=str(error), exit_code=error.exit_code, cause=error.cause, alive_s=heart.alive_s())
        print(error, flush=True)
        return error.exit_code
    except (Exception, SystemExit) as error:  # a library that ends the process ends a rank whose work is not done
        # The traceback is for the log of this rank; the person who asks gets the line, the rank and the host.
        traceback.print_exc()
        heart.last_words()
        said = f"rank {start.rank} on {os.uname().nodename}: {line_of(error)}"
        ledger.write("error", message=said, exit_code=FAILED_CODE, cause="crash", alive_s=heart.alive_s())
        return FAILED_CODE


def _let_go(held: list[int]) -> None:
    """In a child, once: a child of a child must not close another file that has got the number."""
    with contextlib.suppress(OSError, IndexError):
        os.close(held.pop())


def _work(run: RunDir) -> Callable[..., dict]:
    from launcher.spec import registry

    if run.owner:
        from methods.evals.alone import evaluate

        return evaluate
    name = run.spec().method.name
    return _train if registry.method(name).trains else registry.load_job(name)


def _train(run: RunDir, world, ledger: Ledger, stop: StopFlag, heart: Heart) -> dict:
    from launcher.runtime import environment
    from launcher.spec import registry
    from methods import data
    from methods.data.broken import probe
    from methods.engine import loop
    from methods.engine.job import Job
    from methods.engine.staging import stage
    from methods.evals.during import evaluate, judged
    from methods.evals.remarks import remarks

    heart.opening.passed("imports")
    spec = run.spec()
    before = run.history().last("environment")
    now = environment.describe()
    if world.is_main:
        ledger.write("environment", **now)
    method = registry.method(spec.method.name)

    def build() -> tuple:
        dataset = data.build(spec.data, "train")
        probe(dataset)
        return dataset, judged(spec, dataset)

    # Rank 0 first, where there are folders to walk: it keeps the index that the others then read.
    first = any(each.listed for each in (spec.data, spec.eval_data) if each is not None)
    show = waiting.shown_by(run.path, ledger.generation) if world.is_main else None
    datasets = waiting.patiently(build, show) if world.is_main or not first else None
    world.barrier()
    dataset, evaluation = datasets or waiting.patiently(build)
    method.validate(spec.method, len(dataset))
    layout = method.layout(spec.method, world.size)
    job = Job(run, spec, world, layout, ledger, stop, dataset, evaluation, heart)
    stage(job)
    for said in remarks(spec, dataset, evaluation) if world.is_main else ():
        job.notice(said)
    if before:
        changes = environment.changes(before, now)
        job.notices += [f"the environment changed, results may differ in rounding: {change}" for change in changes]
    heart.opening.passed("data")
    trainer = registry.load_trainer(spec.method.name)(job)
    heart.opening.passed("networks")
    return loop.train(job, trainer, evaluate)


if __name__ == "__main__":
    streams.never_fail("utf-8")
    code = main()
    # A rank that failed must not wait for its peers in destructors of process groups.
    os._exit(code)
