"""(spec, protocols) -> the plan of an evaluation: of a run's checkpoint, or of a file of weights. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher.plan import cost
from launcher.spec import registry
from launcher.spec.planned import Planned
from launcher.spec.runspec import RunSpec

SLOTS = 2  # of an optimizer, beside each weight, at most


@dataclass(frozen=True)
class EvaluationPlan(Planned):
    """Of itself it has no steps, and saves nothing: some of its protocols do."""

    signal_delay_s: int
    nodes: str = "1"  # or a range
    ranks: int = 1  # on the most nodes
    protocols: dict[str, dict[str, int | None]] = field(default_factory=dict)
    steps: int = 0
    disk_gb: float = 0.0  # of what is kept until it is done
    waste: None = None
    warnings: tuple[str, ...] = ()


def make(spec: RunSpec, settings: Mapping[str, Mapping[str, Any]] | None = None) -> EvaluationPlan:
    """settings: of each protocol; those of a file of weights are in the spec. Raises InputError where the images of a
    step do not share out to the ranks, on any number of nodes that it may get."""
    settings = getattr(spec.method, "settings", {}) if settings is None else settings
    images = getattr(spec.eval_data or spec.data, "images", None)
    kind_of, cluster, kept = registry.facts("evals").kind_of, spec.cluster, 0.0
    protocols = {}
    for name, given in settings.items():
        asked = kind_of(name)(**given)
        for nodes in range(spec.least_nodes or spec.nodes, spec.nodes + 1):
            asked.refuse_unshared(nodes * spec.tasks_per_node)
        steps = asked.planned(images, spec.world_size)
        protocols[name] = {
            "images_a_step": steps and steps.batch,
            "images_a_rank": steps.batch // spec.world_size if asked.trains else None,
            "steps": steps and steps.count,
        }
        if asked.trains:
            kept += _kept_gb(spec)
    return EvaluationPlan(
        cluster.signal_delay_s or cost.signal_delay(kept / cluster.disk_gb_s, cluster.timeout_min),
        nodes=spec.asked_nodes,
        ranks=spec.world_size,
        protocols=protocols,
        disk_gb=round(kept, 3),
    )


def _kept_gb(spec: RunSpec) -> float:
    """Of a network that learns: what is kept last is written before what was kept before is removed. What stands on the
    backbone is small beside it, and not counted."""
    parameters = registry.facts("backbones").BACKBONES[spec.method.backbone].parameters
    return 2 * cost.FP32 * (1 + SLOTS) * parameters / cost.GB
