"""(spec) -> the plan of an evaluation: of a run's checkpoint, or of a file of weights. Pure."""

from dataclasses import dataclass

from launcher.plan import cost
from launcher.spec.planned import Planned
from launcher.spec.runspec import RunSpec


@dataclass(frozen=True)
class EvaluationPlan(Planned):
    """It has no steps, and saves nothing."""

    signal_delay_s: int
    steps: int = 0
    disk_gb: float = 0.0
    waste: None = None
    warnings: tuple[str, ...] = ()


def make(spec: RunSpec) -> EvaluationPlan:
    cluster = spec.cluster
    return EvaluationPlan(cluster.signal_delay_s or cost.signal_delay(0.0, cluster.timeout_min))
