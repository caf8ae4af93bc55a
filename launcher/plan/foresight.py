"""How a run would go under a weather: many lives of it, drawn at once. Pure, and the same for the same seed.

A life is a row of starts. Between two blows nothing happens that would have to be drawn: how far a start gets in so
many seconds, and what of that is saved, has a closed form. So a life costs as many turns of one loop as it has starts,
however many steps these have, and all lives of all journeys take each turn together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from launcher.plan.weather import Journey, Spread, Weather

DRAWS = 1000
ENOUGH = 1_000_000  # starts of lives, in all journeys together, beyond which fewer lives are drawn
FEWEST = 100
# Times what a run would take undisturbed, with its longest wait: a life does not end that lasts longer, or will at the
# pace of its first SURE starts.
PATIENCE, SURE = 50, 300
LEVELS = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9}


@dataclass(frozen=True)
class Forecast:
    """What `draws` lives of a journey came to. Arrays of shape (draws,): `finish` (seconds from now to the end, inf
    where there is none), `held` (node-seconds that a job had, spares included), `lost` (steps that were done twice),
    `saves`, `by_hand` (how often a person was needed); `restarts`: {cause: such an array}."""

    journey: Journey
    spares: int
    finish: np.ndarray
    held: np.ndarray
    lost: np.ndarray
    saves: np.ndarray
    by_hand: np.ndarray
    restarts: dict[str, np.ndarray]
    turns: int  # of the loop

    @property
    def draws(self) -> int:
        return len(self.finish)

    def seconds(self, level: float) -> float:
        """To the end, in this share of the lives; inf where they do not end."""
        return float(np.quantile(self.finish, level, method="inverted_cdf"))

    @property
    def node_hours(self) -> float:
        """The mean; what a choice of the interval changes."""
        return float(self.held.mean()) / 3600

    @property
    def goodput(self) -> float:
        """Useful steps / steps executed, as of run/goodput.py; the mean."""
        useful = self.journey.steps - self.journey.done
        return float((useful / (useful + self.lost)).mean()) if useful else 1.0

    @property
    def trained(self) -> float:
        """Share of the time for which nodes were held in which they did steps that count; the mean."""
        useful = (self.journey.steps - self.journey.done) * self.journey.step * self.journey.nodes
        return float((useful / np.maximum(self.held, 1e-9)).mean())

    def to_json(self) -> dict[str, Any]:
        journey, restarts = self.journey, sum(self.restarts.values(), np.zeros(self.draws))
        return {
            "nodes": journey.nodes,
            "checkpoint_every": journey.every,
            "finish_hours": _spread(self.finish / 3600),
            "never_ends": round(float(np.isinf(self.finish).mean()), 4),
            "goodput": round(self.goodput, 4),
            "trained_share": round(self.trained, 4),
            "lost_steps": _spread(self.lost),
            "gpu_hours": _spread(self.held * journey.gpus_per_node / 3600),
            "node_hours": _spread(self.held / 3600),
            "restarts": _spread(restarts),
            "restarts_by_cause": {cause: round(float(each.mean()), 3) for cause, each in self.restarts.items()},
            "by_hand": round(float((self.by_hand > 0).mean()), 4),
            "written_gb": _spread(self.saves * journey.save_gb),
        }


def _spread(values: np.ndarray) -> dict[str, float | None]:
    levels = np.quantile(values, list(LEVELS.values()), method="inverted_cdf")
    found = {**dict(zip(LEVELS, levels, strict=True)), "mean": values.mean()}
    return {name: round(float(value), 4) if math.isfinite(value) else None for name, value in found.items()}


def draws_for(journeys: Sequence[Journey], weather: Weather) -> int:
    """How many lives of each: DRAWS, but fewer where these have very many starts."""
    each = 0.0
    for journey in journeys:
        each += 1 + journey.undisturbed * (1 / weather.between(journey.nodes) + 1 / weather.limit)
    return max(FEWEST, min(DRAWS, int(ENOUGH / each)))


def simulate(
    journeys: Sequence[Journey],
    weather: Weather,
    *,
    draws: int | None = None,
    seed: int = 0,
    say: Callable[[str, int, int], None] | None = None,
) -> list[Forecast]:
    """A Forecast of each journey. Chance is the same for all of them, so that they differ by what they do.

    say: called with (what is done, lives that are over, of how many) as it goes on.
    """
    lives = _Lives(journeys, weather, draws or draws_for(journeys, weather), seed)
    while lives.going:
        lives.turn()
        if say:
            say("simulating", lives.count - lives.going, lives.count)
    return lives.forecasts()


class _Lives:
    """All lives of all journeys: life number j x draws + d is the d-th of journey j. Times are seconds, and so is work:
    of training without saves."""

    def __init__(self, journeys: Sequence[Journey], weather: Weather, draws: int, seed: int):
        self._journeys, self._weather, self._draws = journeys, weather, draws
        self._random = np.random.default_rng(seed)
        self.count = len(journeys) * draws

        def of(name: str, kind: type = float) -> np.ndarray:
            return np.repeat(np.array([getattr(each, name) for each in journeys], kind), draws)

        self._step, self._stall, self._save, self._nodes = of("step"), of("stall"), of("save"), of("nodes")
        self._whole, self._interval = of("steps") * self._step, of("every") * self._step
        self._closing, self._waits = of("closing"), of("waits", bool)
        self._at, self._safe = of("done") * self._step, of("saved") * self._step
        self._begun = self._safe.copy()
        self._left = np.where(self._waits, weather.limit, of("left"))
        self._hazards = len(weather.hazards)
        self._table = [
            (each.saved, each.in_place, each.must_progress, math.inf if each.forgiven is None else each.forgiven)
            for each in weather.hazards
        ] + [(1.0, False, True, math.inf)]  # the last: the job's time limit, of which it is told
        self._rates = self._rates_of_hazards()
        longest = max(max(each.values) for each in (weather.queue, weather.start, weather.same_job))
        self._patience = PATIENCE * (of("undisturbed") + longest)

        self._wall, self._held, self._lost, self._saves = np.zeros((4, self.count))
        self._idle, self._hands = np.zeros((2, self.count), int)
        self._spares, self._here = np.full(self.count, weather.spares), np.zeros(self.count, bool)
        self._blows = np.zeros((len(self._table), self.count), int)
        self._alive, self._turns = np.arange(self.count), 0
        self._wall += np.where(self._waits, self._drawn(weather.queue, self._alive), 0.0)

    @property
    def going(self) -> int:
        return len(self._alive)

    def _rates_of_hazards(self) -> np.ndarray:
        """(hazards, lives), a second."""
        rows = []
        for each in self._weather.hazards:
            known = np.full(self._draws, each.per_node_hour)
            if each.counted:
                events, hours = each.counted
                known = self._random.gamma(events, 1 / hours, self._draws) if events else np.zeros(self._draws)
            rows.append(np.tile(known / 3600, len(self._journeys)) * self._nodes)
        return np.array(rows).reshape(self._hazards, self.count)

    def _drawn(self, spread: Spread, lives: np.ndarray) -> np.ndarray:
        values = np.array(spread.values)
        return values[(self._random.random(self._draws) * len(values)).astype(int)][lives % self._draws]

    def _uniform(self, lives: np.ndarray) -> np.ndarray:
        """Drawn for all draws, also those whose lives are over: so chance stays the same for every journey."""
        return self._random.random(self._draws)[lives % self._draws]

    def turn(self) -> None:
        """One start of each life that is not over: until its end, the first blow, or the limit of its job."""
        weather, i, self._turns = self._weather, self._alive, self._turns + 1
        lasts, which, kept = -np.log1p(-self._uniform(i)), self._uniform(i), self._uniform(i)
        begins, queued, again = (self._drawn(each, i) for each in (weather.start, weather.queue, weather.same_job))
        begins = np.where(self._here[i], self._drawn(weather.start_here or weather.start, i), begins)
        stops = [self._drawn(each.stops, i) for each in weather.hazards]
        if self._turns == 1:
            begins = np.where(self._waits[i], begins, 0.0)
        at, safe, whole, step = self._at[i], self._safe[i], self._whole[i], self._step[i]
        interval, stall, save = self._interval[i], self._stall[i], self._save[i]

        rates = self._rates[:, i]
        total = rates.sum(axis=0)
        blow = np.divide(lasts, total, out=np.full(len(i), np.inf), where=total > 0)
        due = _saves_due(at, whole, interval)
        trains = whole - at + stall * due
        over = begins + trains + save + self._closing[i]
        left = self._left[i]
        done, limited = (over <= blow) & (over <= left), (left < over) & (left <= blow)
        lasted = np.minimum(np.minimum(blow, over), left)

        kind = (np.cumsum(rates, axis=0) < which * total).sum(axis=0) if self._hazards else np.zeros(len(i), int)
        kind = np.where(limited, self._hazards, np.minimum(kind, max(0, self._hazards - 1)))
        saved, in_place, must, forgiven = (np.array(column)[kind] for column in zip(*self._table, strict=True))
        stopping = np.choose(kind, [*stops, np.zeros(len(i))])
        # Who is told to stop hears it, but stops at the first safe point, which comes once the start is through.
        heeds = ~done & (kept < saved)
        lasted = np.where(heeds, np.maximum(lasted, begins), lasted)

        trained = np.maximum(0.0, lasted - begins)
        came, stands, begun = _reached(trained, at, safe, whole, interval, stall, save)
        stands = np.where(trained >= trains + save, whole, stands)
        holds = heeds & (came > stands)
        stands = np.where(holds | done, np.where(done, whole, came), stands)
        ending = lasted + np.where(done, 0.0, stopping + np.where(holds, save, 0.0))
        progress = stands > safe + 1e-9

        # Where it goes on: in the same job while that lasts, with a spare in the place of a lost node; else the queue.
        lost_node = ~limited & np.array([h.cause == "node_failure" for h in weather.hazards] + [False])[kind]
        spared = lost_node & (self._spares[i] > 0)
        here = np.where(lost_node, spared, in_place) & ~done
        idle = np.where(progress | ~must, 0, self._idle[i] + 1)
        pause = np.where(progress, 0.0, np.array(weather.pauses)[np.clip(idle - 1, 0, len(weather.pauses) - 1)])
        again = again + pause
        here &= left - ending - again > weather.start.median + save
        failed = ~done & ((idle >= weather.most_idle) | (self._blows[kind, i] >= forgiven))
        here &= ~failed

        self._wall[i] += ending + np.where(done, 0.0, np.where(here, again, queued))
        self._held[i] += (ending + np.where(here, again, 0.0)) * (self._nodes[i] + weather.spares)
        self._lost[i] += np.where(done, 0.0, np.maximum(0.0, came - stands) / step)
        self._saves[i] += begun + holds + done
        self._hands[i] += failed
        self._blows[kind[~done], i[~done]] += 1
        self._here[i] = here
        self._idle[i] = np.where(failed, 0, idle)
        self._spares[i] = np.where(here, self._spares[i] - spared, weather.spares)
        self._left[i] = np.where(here, left - ending - again, weather.limit)
        self._at[i] = self._safe[i] = stands
        share = (stands - self._begun[i]) / np.maximum(whole - self._begun[i], 1e-9) if self._turns >= SURE else 1.0
        hopeless = ~done & (self._wall[i] > self._patience[i] * share)
        self._wall[i[hopeless]] = np.inf
        self._alive = i[~(done | hopeless)]

    def forecasts(self) -> list[Forecast]:
        found = []
        causes = [*(each.cause for each in self._weather.hazards), "time_limit"]
        for number, journey in enumerate(self._journeys):
            mine = slice(number * self._draws, (number + 1) * self._draws)
            restarts = {cause: row[mine] for cause, row in zip(causes, self._blows, strict=True) if row[mine].any()}
            found.append(
                Forecast(
                    journey, self._weather.spares, self._wall[mine], self._held[mine], self._lost[mine],
                    self._saves[mine], self._hands[mine], restarts, self._turns,
                )
            )  # fmt: skip
        return found


def _saves_due(at: np.ndarray, whole: np.ndarray, interval: np.ndarray) -> np.ndarray:
    """How many saves begin from `at` on, before the last one at `whole`: at multiples of the interval."""
    return np.maximum(0, np.ceil(whole / interval - 1e-9) - 1 - np.floor(at / interval + 1e-9))


def _reached(
    trained: np.ndarray,
    at: np.ndarray,
    safe: np.ndarray,
    whole: np.ndarray,
    interval: np.ndarray,
    stall: np.ndarray,
    save: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the work that was done, what of it stands on the disk, how many saves were begun) after so many seconds of
    training from `at` on, where `safe` stood: each save delays it by `stall`, and counts `save` after it began."""
    first, period = np.floor(at / interval + 1e-9) * interval, interval + stall
    since, due = trained + at - first, _saves_due(at, whole, interval)
    periods = np.floor(since / period)
    came = np.minimum(whole, first + periods * interval + np.minimum(since - periods * period, interval))
    begun = np.clip(np.floor((since + stall) / period), 0, due)
    committed = np.clip(np.floor((since + stall - save) / period), 0, due)
    return came, np.where(committed > 0, first + committed * interval, safe), begun


def cheapest(forecasts: Sequence[Forecast]) -> Forecast:
    """The one that holds nodes for the shortest time, in the mean."""
    return min(forecasts, key=lambda each: each.node_hours)


def with_intervals(journey: Journey, intervals: Sequence[int]) -> list[Journey]:
    """The same journey with a save every so many steps, each once, in order; none is longer than the run."""
    return [replace(journey, every=every) for every in sorted({min(max(1, each), journey.steps) for each in intervals})]
