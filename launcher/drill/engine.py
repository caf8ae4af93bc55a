"""Injects faults, several into one run where they do not disturb each other; compares it with an undisturbed run."""

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from launcher.drill import simulated
from launcher.drill.catalog import ANY, GRACE, INTERVAL, NOTHING, Fault
from launcher.drill.places import SLURM, Here, OnSlurm
from launcher.drill.subject import SIMULATED, DrilledRun, Impossible, Seen
from launcher.errors import SslrunError
from launcher.plan import plan as planning
from launcher.run import causes, manifest, snapshot
from launcher.slurm import commands, limits
from launcher.spec import registry
from launcher.spec.runspec import RunSpec

TOGETHER = 7  # faults in one run, at most
ALIKE = causes.of("crash").forgiven  # of one cause in one run
STEPS_A_FAULT = 20  # to be met in the middle of training, and to save something before the next
ALWAYS = ("method.log_every=1",)  # how a step that was done twice is seen


@dataclass
class Setting:
    """What is drilled. `words`: the overrides of the run, `options`: --config-dir and the like, as `sslrun` takes them.

    preempt_with: the partition whose jobs may take the run's nodes; admin: whether nodes may be marked as down.
    patience: seconds for any one wait. at_once: runs at a time.
    """

    spec: RunSpec
    words: tuple[str, ...]
    options: tuple[str, ...]
    folder: Path
    epochs: int | None
    patience: float
    at_once: int = 1
    preempt_with: str | None = None
    admin: bool = False
    say: Callable[[str], None] = print
    given_up: threading.Event = field(default_factory=threading.Event)

    @property
    def place(self) -> str:
        return self.spec.cluster.kind

    @cached_property
    def environment(self) -> dict[str, str]:
        """Of every `sslrun`: all runs have the code as it is when the drill begins, whatever is edited meanwhile."""
        code = snapshot.take(self.spec.method.name, self.folder).path
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))}

    def lacks(self, fault: Fault) -> str:
        """Why the fault cannot be injected here; empty where it can."""
        if self.place not in fault.causes:
            return "needs Slurm" if SLURM in fault.causes else "injected on this machine alone"
        return next(filter(None, map(self._lacks, fault.needs)), "")

    def _lacks(self, need: str) -> str:
        spec = self.spec
        sizes = registry.method(spec.method.name).sizes(spec.method, spec.world_size)
        return {
            "ranks": "" if spec.world_size > 1 else "needs two ranks",
            "clustering": "" if sizes.rounds else f"{spec.method.name} clusters nothing",
            "preempt_with": "" if self.preempt_with else "needs --preempt-with=PARTITION",
            "grace": "" if need == "grace" and self.grace() else "the partition has no GraceTime",
            "admin": "" if self.admin else "needs --as-admin",
            "spare": ""
            if need == "spare" and len(limits.usable(spec)) > spec.nodes
            else f"needs {spec.nodes + 1} nodes",
        }[need]

    def grace(self) -> int:
        """GraceTime of the run's partition, in seconds; 0 where there is none."""
        name = self.spec.cluster.partition
        if self.place != SLURM:
            return 0
        return next((p.grace_s for p in commands.partitions() if p.name == name or (name is None and p.default)), 0)


@dataclass
class FaultResult:
    """One row of the table. `skipped`: why the fault was not injected."""

    fault: Fault
    expected: str
    seen: Seen = field(default_factory=Seen)
    lost: int | None = None
    exact: bool | None = None
    skipped: str = ""
    met: bool = False  # it was injected, and the run went on
    run: str = ""

    @property
    def as_expected(self) -> bool:
        return bool(self.skipped) or not self.seen.problems


def drill(setting: Setting, faults: Sequence[Fault]) -> list[FaultResult]:
    """Inject `faults` and judge what came of each; the results are in their order.

    Raises RuntimeError where not even the run that nobody disturbs ends well.
    """
    results = {f.name: FaultResult(f, "") for f in faults}
    for result in results.values():
        result.skipped = setting.lacks(result.fault)
        if not result.skipped:
            result.expected = result.fault.expected(setting.place, interval(setting.spec))
    chains = _chains([f for f in faults if not results[f.name].skipped], setting.place)
    if not chains:
        return list(results.values())
    longest = max(map(len, chains))
    # Two lengths, so that few runs are needed that nobody disturbs.
    words = {1: _words(setting, 1), longest: _words(setting, longest)}
    lengths = [longest if len(chain) > 1 or words[1] == words[longest] else 1 for chain in chains]
    setting.folder.mkdir(parents=True, exist_ok=True)
    assert setting.environment  # made here, before there are threads
    with ThreadPoolExecutor(setting.at_once) as pool:
        try:
            twins = {
                length: pool.submit(_undisturbed, setting, words[length], f"undisturbed-{length}")
                for length in dict.fromkeys(lengths)
            }
            disturbed = [
                pool.submit(_disturbed, setting, words[length], number, [results[f.name] for f in chain])
                for number, (length, chain) in enumerate(zip(lengths, chains, strict=True), 1)
            ]
            judges = [runs.result() for runs in disturbed]
            compare = {length: twin.result() for length, twin in twins.items()}
        except BaseException:
            setting.given_up.set()
            raise
    for length, judge in zip(lengths, judges, strict=True):
        judge(compare[length])
    return list(results.values())


def interval(spec: RunSpec) -> int:
    """Steps between two checkpoints."""
    return spec.method.checkpoint_every or _plan(spec).checkpoint_every


def _chains(faults: Sequence[Fault], place: str) -> list[list[Fault]]:
    """Which faults meet which run: those that do not disturb one another share one."""
    chains: list[list[Fault]] = []
    for one in faults:
        chain = next((chain for chain in chains if _fits(one, chain, place)), None)
        if chain is None:
            chains.append(chain := [])
        chain.append(one)
    return sorted(chains, key=len, reverse=True)


def _fits(one: Fault, chain: Sequence[Fault], place: str) -> bool:
    first = chain[0]
    if one.alone or first.alone or len(chain) >= TOGETHER:
        return False
    if (one.overrides, one.simulated) != (first.overrides, first.simulated):
        return False
    all_causes = [cause for f in (*chain, one) for cause in f.causes[place]]
    return all(all_causes.count(cause) <= ALIKE for cause in all_causes)


def _words(setting: Setting, faults: int) -> tuple[str, ...]:
    """Overrides of a run that is to meet so many faults: it has epochs enough, unless somebody said how many."""
    words = (*setting.words, *ALWAYS)
    if setting.epochs:
        return words
    given = setting.spec.method.epochs
    per_epoch = max(1, _plan(setting.spec).steps // given)
    wanted = math.ceil(STEPS_A_FAULT * (faults + 1) / per_epoch)
    return (*words, f"method.epochs={wanted}") if wanted > given else words


def _plan(spec: RunSpec) -> planning.Plan:
    return planning.make(spec, registry.method(spec.method.name).recipe(spec.recipe))


def _subject(setting: Setting, words: Sequence[str], name: str, wanted: Sequence[str] = ()) -> DrilledRun:
    folder = setting.folder / name
    folder.mkdir(parents=True)
    environment = simulated.environment(setting.environment, wanted, folder / SIMULATED)
    kind = OnSlurm if setting.place == SLURM else Here
    return DrilledRun(
        kind(folder / "said.log", environment),
        (*words, *setting.options),
        folder,
        environment,
        patience=setting.patience,
        given_up=setting.given_up,
        preempt_with=setting.preempt_with,
    )


@dataclass
class _Reference:
    digest: str
    losses: dict[int, float]


def _undisturbed(setting: Setting, words: Sequence[str], name: str) -> _Reference:
    run = _subject(setting, words, name)
    try:
        run.start()
        state = run.rest()
        if state != "done":
            raise RuntimeError(f"the run that nobody disturbed is {state}: {run.run.state().message} ({run.run.path})")
        setting.say(f"undisturbed: done, {run.step()} steps")
        return _Reference(_digest(run), dict(run.steps()))
    except Impossible as error:
        raise RuntimeError(f"the run that nobody disturbed: {error} ({run.runs})") from None
    finally:
        run.clean()


def _digest(run: DrilledRun) -> str:
    return manifest.read(run.run.checkpoints()[-1])["digest"]


def _disturbed(
    setting: Setting, words: Sequence[str], number: int, results: Sequence[FaultResult]
) -> Callable[[_Reference], None]:
    """Inject the faults of one run, and see it to its end. Returns what judges it beside the undisturbed one."""
    faults = [result.fault for result in results]
    run = _subject(setting, (*words, *faults[0].overrides), f"{number}-{faults[0].name}", faults[0].simulated)
    state = ""
    try:
        run.start()
        for result in results:
            _inject(setting, run, result)
        state = run.rest()
    except (Impossible, SslrunError, OSError, RuntimeError) as error:
        reached, *others = [result for result in results if not result.met] or results[-1:]
        reached.seen.problems.append(str(error))
        for result in others:
            result.seen.problems.append(f"not reached: {error}")
    finally:
        run.clean()
    for result in results:
        result.run = str(run.run.path) if run.made else str(run.runs)
    return lambda reference: _judge(setting, run, state, results, reference)


def _inject(setting: Setting, run: DrilledRun, result: FaultResult) -> None:
    fault, run.seen = result.fault, result.seen
    if fault.at_start:
        run.until(run.run.generation, "its first start")
    else:
        run.train()
    before = run.run.generation()
    run.seen.generation = before
    setting.say(f"{fault}: {fault.about}")
    fault.inject(run)
    result.seen.causes = [e["cause"] for e in run.events("start", since=before + 1)]
    result.seen.generations = (before, run.run.generation())
    result.met = True
    after = f", after {run.seen.seconds:.1f} s" if run.seen.seconds else ""
    setting.say(f"{fault}: {', '.join(run.seen.causes) or 'goes on'}{after}")


def _judge(
    setting: Setting, run: DrilledRun, state: str, results: Sequence[FaultResult], reference: _Reference
) -> None:
    """Compare what was seen with what was expected."""
    if not run.made:
        return
    steps = run.steps()
    starts = Starts(steps, {e["generation"]: e["step"] for e in run.events("restored")})
    every = run.run.plan()["checkpoint_every"]
    for result in results:
        if not result.met:
            continue
        seen, fault = result.seen, result.fault
        later = range(seen.generations[0] + 1, seen.generations[1] + 1)
        result.lost = sum(starts.lost.get(generation, 0) for generation in later)
        wanted = fault.causes[setting.place]
        fits = [cause in words.split("|") for cause, words in zip(seen.causes, wanted, strict=False)]
        run.seen = seen
        run.check(
            len(seen.causes) == len(wanted) and all(fits),
            f"started again because of {seen.causes or 'nothing'}, not {list(wanted) or 'at all'}",
        )
        moved = _moved(run, later[:-1] if fault.by_hand else later) if setting.place == SLURM else {}
        other = [generation for generation, queued in moved.items() if queued is fault.in_place]
        way = "in the same job, and not through the queue" if fault.in_place is False else "through the queue"
        run.check(not other, f"starts {other} began {way}")
        most = _most(fault.lost, every, seen, len(wanted), setting)
        run.check(most is None or result.lost <= most, f"{result.lost} steps were done twice, and {most} may be")
        late = seen.ended_s is not None and seen.ended_s > fault.ends_s
        run.check(not late, f"the ranks ended after {seen.ended_s or 0:.0f} s, not within {fault.ends_s:.0f}")
        run.check(state in ("", "done"), f"the run did not end well: {state}, {run.run.state().message}")
    if state == "done":
        _judge_exactness(setting, run, results, reference, starts)


def _judge_exactness(
    setting: Setting, run: DrilledRun, results: Sequence[FaultResult], reference: _Reference, starts: "Starts"
) -> None:
    """The same losses and the same final state as the run that nobody disturbed; on GPUs, where sums depend on their
    order, a difference is shown and no fault."""
    wrong = next((i for i, (step, loss) in enumerate(starts.steps) if reference.losses.get(step, loss) != loss), None)
    same = _digest(run) == reference.digest
    for result in results:
        first, last = result.seen.generations
        guilty = wrong is None or first < starts.generation_of(wrong) <= last
        result.exact = same or not guilty
        if same or not guilty or setting.spec.cluster.gpus_per_node:
            continue
        at = f", from step {starts.steps[wrong][0]} on" if wrong is not None else ""
        result.seen.problems.append(f"it ended in another state than the run that nobody disturbed{at}")
    if not same and all(result.exact for result in results):
        results[0].seen.problems.append("the run went another way than its twin before any fault came")


def _moved(run: DrilledRun, generations: Sequence[int]) -> dict[int, bool]:
    """{generation: whether it went through the queue, or is another job than the one before}."""
    starts = {e["generation"]: (e["job"], e["restart_count"]) for e in run.events("start")}
    return {generation: starts[generation] != starts[generation - 1] for generation in generations}


def _most(lost: str, every: int, seen: Seen, restarts: int, setting: Setting) -> int | None:
    """How many steps may have been done twice; None: any number."""
    if lost == ANY:
        return None
    if lost == NOTHING or (lost == GRACE and setting.grace()):
        return 0
    assert lost in (INTERVAL, GRACE)
    # The newest checkpoint is older by the steps of each save that was still under way.
    return (max(1, restarts) + seen.saving) * every


class Starts:
    """Which start of a run did which of the `steps`, as they were logged one after the other.

    restored: generation -> the step that it went on from.
    """

    def __init__(self, steps: Sequence[tuple[int, float]], restored: Mapping[int, int]):
        self.steps = steps
        self.lost = dict.fromkeys(restored, 0)  # generation -> steps that were done before it and again in it
        numbers = [step for step, _ in steps]
        drops = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
        self._begins: list[tuple[int, int]] = []  # (index of its first step, generation)
        for generation, step in sorted(restored.items()):
            if drops and numbers[drops[0]] == step + 1:
                first = drops.pop(0)
                self.lost[generation] = numbers[first - 1] - step
            else:
                until = drops[0] if drops else len(numbers)
                first = next((i + 1 for i in reversed(range(until)) if numbers[i] == step), 0)
            self._begins.append((first, generation))

    def generation_of(self, index: int) -> int:
        """Which one did the step at `index`."""
        return max((generation for first, generation in self._begins if first <= index), default=1)


def as_json(result: FaultResult) -> dict[str, Any]:
    """One row for scripts."""
    seen = result.seen
    return {
        "fault": result.fault.number,
        "name": result.fault.name,
        "about": result.fault.about,
        "expected": result.expected,
        "skipped": result.skipped or None,
        "as_expected": result.as_expected,
        "problems": list(seen.problems),
        "causes": seen.causes,
        "lost_steps": result.lost,
        "ended_s": seen.ended_s and round(seen.ended_s, 1),
        "first_step_s": seen.seconds and round(seen.seconds, 1),
        "exact": result.exact,
        "run": result.run or None,
    }
