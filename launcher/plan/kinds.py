"""(spec) -> the plan of whatever kind of work it is. Pure."""

from launcher.plan import clustering, evaluation, plan
from launcher.spec import registry
from launcher.spec.planned import Planned
from launcher.spec.runspec import RunSpec


def make(spec: RunSpec) -> Planned:
    """Raises InputError where the work cannot be laid out on this cluster, with the sizes that work."""
    work = registry.method(spec.method.name)
    if work.trains:
        return plan.make(spec, work.recipe(spec.recipe))
    return clustering.make(spec) if work.rounds else evaluation.make(spec)  # what clusters says so by its rounds
