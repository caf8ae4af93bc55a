"""How a planned run would go, for several intervals between saves and several counts of nodes: the answer of
`sslrun plan --simulate`, as text of 80 columns. page.py makes a page of it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.durations import rough, short
from launcher.errors import InputError
from launcher.plan import plan as planning
from launcher.plan import worlds
from launcher.plan.weather import Journey, Weather, young_daly
from launcher.report import climate, observed
from launcher.spec.contract import Recipe
from launcher.spec.runspec import RunSpec

if TYPE_CHECKING:
    from launcher.plan.foresight import Forecast

FACTORS = 0.25, 0.5, 1, 2, 4  # of the interval of Young and Daly
CONFIG = "config"  # in place of a folder, for --like
WIDTH, LABEL = 80, 19
HEAD = (
    ("nodes", 5), ("every", 7), ("10 %", 6), ("50 %", 6), ("90 %", 6), ("goodput", 7), ("lost", 8), ("{}-hours", 10),
    ("starts", 6), ("written", 8),
)  # fmt: skip


@dataclass(frozen=True)
class Outlook:
    """forecasts: by nodes, then by interval. nodes: those asked for, of a range the most. On these recommended is the
    interval that holds them for the shortest, of those that were tried, young_daly theirs (None: nothing costs steps),
    planned the plan's; between: mean seconds between two blows that cost steps, stall: by which a save delays the
    training. source: where the weather comes from."""

    run: str
    nodes: int
    forecasts: "Sequence[Forecast]"
    recommended: int
    young_daly: int | None
    planned: int
    between: float
    stall: float
    weather: Weather
    source: str
    seed: int

    @property
    def draws(self) -> int:
        return self.forecasts[0].draws

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "assumed": dict(self.weather.said),
            "draws": self.draws,
            "seed": self.seed,
            "recommended_every": self.recommended,
            "young_daly_every": self.young_daly,
            "planned_every": self.planned,
            "hours_between_losses": None if math.isinf(self.between) else round(self.between / 3600, 4),
            "cases": [each.to_json() for each in self.forecasts],
        }


def of(
    spec: RunSpec,
    recipe: Recipe,
    like: str | None,
    *,
    seed: int = 0,
    say: Callable[[str, int, int], None] | None = None,
) -> Outlook:
    """like: a folder whose runs tell the weather, or CONFIG; None: the spec's own, where runs of its cluster are.

    Raises InputError as planning does, and where no run in `like` tells anything.
    """
    from launcher.plan import foresight

    most = worlds.counts(spec)[0]
    plans = {nodes: planning.make(spec.on(nodes), recipe) for nodes in _counts(spec, recipe)}
    asked = plans[most]
    journey = _journey(spec, asked)
    weather = climate.expected(spec, journey.save, journey.step, asked.signal_delay_s)
    weather, source = _as_seen(spec, weather, like)
    journeys, best = [], None
    for nodes, plan in plans.items():
        here = _journey(spec, plan)
        every = _young_daly(here, weather)
        tried = [plan.checkpoint_every]
        if every:
            tried += [round(every * factor) for factor in (FACTORS if nodes == most else (1,))]
        elif nodes == most:
            tried += [round(plan.checkpoint_every * factor) for factor in FACTORS]
        best = every if nodes == most else best
        journeys += foresight.with_intervals(here, tried)
    forecasts = foresight.simulate(journeys, weather, seed=seed, say=say)
    mine = [each for each in forecasts if each.journey.nodes == most]
    return Outlook(
        run=spec.run_id,
        nodes=most,
        forecasts=forecasts,
        recommended=foresight.cheapest(mine).journey.every,
        young_daly=best,
        planned=asked.checkpoint_every,
        between=weather.between(most, lossy=True),
        stall=journey.stall,
        weather=weather,
        source=source,
        seed=seed,
    )


def _counts(spec: RunSpec, recipe: Recipe) -> list[int]:
    """Of nodes: the range's, or half as many and twice as many, where the run can be laid out on them."""
    if spec.least_nodes is not None:
        found = worlds.counts(spec)[::-1]
        return sorted({found[0], found[len(found) // 2], found[-1]})
    if spec.cluster.kind != "slurm":
        return [spec.nodes]
    found = [spec.nodes]
    for nodes in (spec.nodes // 2, 2 * spec.nodes):
        try:
            if nodes:
                planning.make(spec.on(nodes), recipe)
                found.append(nodes)
        except InputError:
            continue
    return sorted(found)


def _journey(spec: RunSpec, plan: planning.Plan) -> Journey:
    """On the nodes of the plan. What it does beside steps, clustering say, is spread over them."""
    begun = spec.continue_from.step if spec.continue_from else 0
    step = 3600 * plan.hours / max(1, plan.steps - begun) - plan.save_seconds / plan.checkpoint_every
    return Journey(
        steps=plan.steps,
        step=max(1e-6, step),
        every=plan.checkpoint_every,
        stall=climate.STALL_SHARE * plan.save_seconds,
        save=plan.save_seconds,
        save_gb=plan.disk_gb,
        nodes=plan.nodes,
        gpus_per_node=spec.tasks_per_node if spec.cluster.gpus_per_node else 0,
        done=begun,
        saved=begun,
    )


def _as_seen(spec: RunSpec, weather: Weather, like: str | None) -> tuple[Weather, str]:
    """(the weather, where it comes from)."""
    named = f"cluster_configs: {spec.cluster.name}"
    if like == CONFIG:
        return weather, named
    runs = Path(like).expanduser() if like else Path(spec.runs)
    # Whoever names a folder says that its runs are alike, whatever their cluster is called.
    seen = observed.of_runs(observed.alike(runs, None if like else spec.cluster.name))
    if like and not seen.node_hours:
        fix = f"name a folder of runs, as of runs=, or --like={CONFIG}"
        raise InputError.of("--like", like, "no run in it has started on a cluster", fix)
    if not seen.node_hours:
        return weather, named
    return climate.measured(seen, weather), f"the ledgers of {seen.runs} runs in {runs}, before {named}"


def _young_daly(journey: Journey, weather: Weather) -> int | None:
    """Steps; None where nothing costs any, or a save delays nothing."""
    between = weather.between(journey.nodes, lossy=True)
    if math.isinf(between) or not journey.stall:
        return None
    return max(1, min(journey.steps, round(young_daly(journey.stall, between) / journey.step)))


# -- as text -----------------------------------------------------------------------------------------------------------


def lines(outlook: Outlook) -> Iterator[str]:
    """None is longer than WIDTH, but for names of folders."""
    yield f"{outlook.run}, as it might go: {outlook.draws} lives, drawn with --seed={outlook.seed}"
    yield f"weather: {outlook.source}"
    for name, said in outlook.weather.said.items():
        yield from _wrapped(f"{name:11} ", said)
    yield ""
    gpus = outlook.forecasts[0].journey.gpus_per_node
    yield " ".join(name.format("GPU" if gpus else "node").rjust(width) for name, width in HEAD)
    for each in outlook.forecasts:
        yield " ".join(cell.rjust(width) for cell, (_, width) in zip(_cells(each), HEAD, strict=True))
    yield ""
    yield from strips(outlook.forecasts)
    yield ""
    for said in remarks(outlook):
        yield from _wrapped("", said)


def _wrapped(head: str, said: str) -> Iterator[str]:
    import textwrap

    yield from textwrap.wrap(said, WIDTH, initial_indent=head, subsequent_indent=" " * len(head)) or [head]


def _cells(each: "Forecast") -> list[str]:
    """10, 50 and 90 % of the lives are over by then; the rest are means."""
    held = each.node_hours * (each.journey.gpus_per_node or 1)
    starts = 1 + sum(float(row.mean()) for row in each.restarts.values())
    written = float(each.saves.mean()) * each.journey.save_gb
    return [
        f"{each.journey.nodes}",
        f"{each.journey.every:,}",
        *(_ends(each.seconds(level)) for level in (0.1, 0.5, 0.9)),
        f"{each.goodput:.2%}",
        _count(each.lost.mean()),
        _count(held) if held >= 10 else f"{held:.2f}",
        f"{starts:,.0f}" if starts >= 10 else f"{starts:.1f}",
        _count(written / 1000) + "TB" if written >= 1e5 else f"{written:,.{0 if written >= 10 else 2}f}GB",
    ]


def _ends(seconds: float) -> str:
    """In at most six characters, below 27 years."""
    return f"{seconds / 86400:,.0f}d" if 1e3 * 86400 <= seconds < math.inf else short(seconds) or "never"


def _count(number: float) -> str:
    """In at most eight characters, below 100 billion."""
    return f"{number / 1e6:,.1f}M" if number >= 1e6 else f"{number:,.0f}"


def strips(forecasts: "Sequence[Forecast]") -> Iterator[str]:
    """A picture of when the lives end: - from 10 to 90 %, = from 25 to 75 %, | at half of them."""
    ends = [each.seconds(level) for each in forecasts for level in (0.1, 0.9)]
    low, high = min(ends), max((end for end in ends if end < math.inf), default=0.0)
    if not low < high < math.inf:
        return
    room = WIDTH - LABEL - 1
    yield f"{'ends after':{LABEL}} {short(low)}{short(high).rjust(room - len(short(low)))}"

    def place(seconds: float) -> int:
        return round((room - 1) * (min(seconds, high) - low) / (high - low))

    for each in forecasts:
        row = [" "] * room
        for mark, first, last in (("-", 0.1, 0.9), ("=", 0.25, 0.75), ("|", 0.5, 0.5)):
            for at in range(place(each.seconds(first)), place(each.seconds(last)) + 1):
                row[at] = mark
        yield f"{f'{each.journey.nodes} x {each.journey.every:,}'.rjust(LABEL)} {''.join(row).rstrip()}"


def remarks(outlook: Outlook) -> Iterator[str]:
    """What the table comes to, in sentences."""
    mine = {each.journey.every: each for each in outlook.forecasts if each.journey.nodes == outlook.nodes}
    best, planned = mine[outlook.recommended], mine[outlook.planned]
    kind = "GPU" if best.journey.gpus_per_node else "node"
    saved = (planned.node_hours - best.node_hours) * (best.journey.gpus_per_node or 1)
    nodes = f"{outlook.nodes} {'node' if outlook.nodes == 1 else 'nodes'}"
    said = f"On {nodes} a save every {outlook.recommended:,} steps costs least of these"
    if outlook.recommended != outlook.planned:
        said += f" ({saved:,.1f} {kind}-hours less than every {outlook.planned:,}, as planned)"
    yield f"{said}."
    if outlook.young_daly:
        yield (
            f"Young and Daly: every {outlook.young_daly:,}, sqrt(2 x {rough(outlook.stall)} that a save delays it x "
            f"{rough(outlook.between)} between two blows that cost steps)."
        )
    else:
        yield "Nothing costs steps, so that saves are only needed in haste, and at the end."
    hands = float((best.by_hand > 0).mean())
    if hands >= 0.005:
        yield f"In {hands:.0%} of the lives a person has to resume it, having used up what is forgiven."
    never = float((best.finish == math.inf).mean())
    if never:
        yield f"{never:.0%} of the lives do not end in a reasonable time: starts take too long for so many blows."


def shown(outlook: Outlook) -> Mapping[str, Any]:
    """For a page: the table's head and rows, and its sentences."""
    gpus = outlook.forecasts[0].journey.gpus_per_node
    return {
        "head": [name.format("GPU" if gpus else "node") for name, _ in HEAD],
        "rows": [_cells(each) for each in outlook.forecasts],
        "remarks": [*remarks(outlook)],
    }
