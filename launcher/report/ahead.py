"""When a run that is under way will be done, as `status` and `show` say it: from the step where it is, under the
weather that its own ledger and those of the newest runs beside it tell. Only runs of a cluster have one.

It is to cost nothing that a person would notice: few lives, few ledgers, and nothing imported for it, numpy least of
all, where no run is under way.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from launcher import durations
from launcher.durations import rough
from launcher.errors import SslrunError
from launcher.run.folder import RunDir

if TYPE_CHECKING:
    from launcher.report.index import RunRow
    from launcher.report.observed import Observed

DRAWS = 200
GOOD_SECONDS = 60.0
MOST = 20  # runs under way; and runs beside them whose ledgers are read
UNDER_WAY = ("running", "preempted")
DAMAGED = SslrunError, OSError, ValueError, KeyError, TypeError, AttributeError

Foreseen = Mapping[str, float | None]  # p10, p50, p90: seconds from now; None: not within reason


def add(rows: "Sequence[RunRow]", said: dict[tuple, tuple[float, Foreseen]]) -> None:
    """Put `foreseen` into the facts of the first MOST of the rows that are under way on a cluster.

    said: what was found before, in the same start and state of a run; for GOOD_SECONDS it only comes nearer.
    """
    going, now = [], time.monotonic()
    for facts in [row.facts for row in rows if _under_way(row.facts)][:MOST]:
        when, before = said.get(_key(facts), (-math.inf, {}))
        if now - when > GOOD_SECONDS:
            going.append(facts)
        else:
            facts["foreseen"] = {level: seconds and max(0.0, seconds - now + when) for level, seconds in before.items()}
    if not going:
        return
    newest = sorted((row.facts for row in rows), key=lambda facts: facts["started"] or 0.0, reverse=True)
    beside: dict[str, Observed] = {}  # by the cluster's name
    for path in dict.fromkeys(facts["path"] for facts in (*newest[:MOST], *going)):
        _add_ledger(beside, RunDir(path))
    for facts in going:
        with suppress(*DAMAGED):
            run = RunDir(facts["path"])
            facts["foreseen"] = found = _forecast(run, facts, beside[run.spec().cluster.name])
            said[_key(facts)] = now, found


def of_run(run: RunDir, facts: Mapping[str, Any]) -> Foreseen | None:
    """facts: as a row of `status` has them. None where nothing can be said."""
    if not _under_way(facts):
        return None
    from launcher.report import observed

    with suppress(*DAMAGED):
        others = observed.alike(run.runs, run.spec().cluster.name, most=MOST)
        paths = {each.path: each for each in (run, *others)}
        return _forecast(run, facts, observed.of_runs(paths.values()))
    return None


def said(foreseen: Foreseen | None) -> str:
    """In words: done in 3.2 days (2.6 to 4.5 days, in 8 of 10 cases)."""
    if not foreseen or foreseen["p50"] is None:
        return ""
    low, middle, high = (foreseen[level] for level in ("p10", "p50", "p90"))
    return f"in {rough(middle)} ({rough(low)} to {rough(high) if high else 'no end'}, in 8 of 10 cases)"


def cell(foreseen: Foreseen | None) -> str:
    """For a table: 3.2d (2.6d-4.5d)."""
    if not foreseen or foreseen["p50"] is None:
        return ""
    low, middle, high = (durations.short(foreseen[level]) for level in ("p10", "p50", "p90"))
    return f"{middle} ({low}-{high})"


def _key(facts: Mapping[str, Any]) -> tuple:
    return facts["path"], facts["started"], facts["state"]


def _under_way(facts: Mapping[str, Any]) -> bool:
    known = facts["state"] in UNDER_WAY and facts["job"] and not facts["suspended"]
    return bool(known and facts["seconds_left"] and facts["steps"] > facts["step"])


def _add_ledger(beside: "dict[str, Observed]", run: RunDir) -> None:
    from launcher.report import observed

    with suppress(*DAMAGED):
        beside.setdefault(run.spec().cluster.name, observed.Observed()).add_run(run)


def _forecast(run: RunDir, facts: Mapping[str, Any], seen: "Observed") -> Foreseen:
    from launcher.plan import foresight
    from launcher.plan.weather import Journey
    from launcher.report import climate, observed

    spec, plan, mine = run.spec(), run.plan(), observed.of_runs([run])
    layouts = {each["world_size"]: each["checkpoint_every"] for each in plan.get("layouts", ())}
    step = facts["seconds_left"] / (facts["steps"] - facts["step"])
    save = observed.middle(mine.saves, plan["save_seconds"])
    left, begun = float("inf"), spec.continue_from.step if spec.continue_from else 0
    with suppress(ValueError):
        left = max(1.0, durations.seconds(facts.get("job_left") or "") - plan["signal_delay_s"])
    journey = Journey(
        steps=facts["steps"],
        step=step,
        every=spec.method.checkpoint_every or layouts.get(facts["world_size"], plan["checkpoint_every"]),
        stall=climate.STALL_SHARE * save,
        save=save,
        nodes=facts["granted_nodes"] or spec.nodes,
        done=facts["step"],
        saved=min(facts["step"], facts["checkpoint_step"] or begun),
        waits=facts["state"] != "running",
        left=left,
    )
    weather = climate.measured(seen, climate.expected(spec, save, step, plan["signal_delay_s"]))
    (found,) = foresight.simulate([journey], weather, draws=DRAWS)
    seconds = {name: found.seconds(level) for name, level in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))}
    return {name: round(value, 1) if value < float("inf") else None for name, value in seconds.items()}
