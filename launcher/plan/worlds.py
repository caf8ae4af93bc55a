"""On how many nodes a run can be laid out: the counts of `nodes=4-8`, and what its job asks Slurm for. No torch.

A count on which a method can be laid out can load every checkpoint of the run, whatever count wrote it: nothing that
is saved is a rank's own. What all ranks share is one file. What lies on them in shares lies in files whose number
follows from the science (groups of DeeperCluster, parts of a queue or a bank), and a layout that would not give every
rank whole ones is refused. So a job looks at the counts alone, and at no manifest.
"""

from launcher.errors import InputError
from launcher.spec import registry
from launcher.spec.runspec import RunSpec

NAMED = 1024  # the largest count that is looked at for an answer to who asked for none that fits


def counts(spec: RunSpec) -> tuple[int, ...]:
    """The node counts of the spec on which it can be laid out, the largest first; what trains nothing can on any.

    Raises InputError where there is none, with the sizes that work.
    """
    method, least = registry.method(spec.method.name), spec.least_nodes
    if not method.trains:
        return tuple(range(spec.nodes, (least or spec.nodes) - 1, -1))
    if least is None:
        method.layout(spec.method, spec.world_size)
        return (spec.nodes,)
    found = tuple(reversed(_fitting(spec, least, spec.nodes)))
    if not found:
        raise _none(spec)
    return found


def asked(spec: RunSpec) -> tuple[int, int]:
    """(least, most) nodes that the job asks for: of a range from the smallest count that fits to the largest, and the
    spares. Raises InputError where nothing of a range fits."""
    fitting, spares = (spec.nodes,) if spec.least_nodes is None else counts(spec), spec.cluster.spare_nodes
    return fitting[-1] + spares, fitting[0] + spares


def _fitting(spec: RunSpec, least: int, most: int) -> list[int]:
    """Those of the counts from `least` to `most` that fit. A rank without an image of a batch fits nowhere."""
    layout, found = registry.method(spec.method.name).layout, []
    for nodes in range(least, min(most, spec.method.global_batch // spec.tasks_per_node) + 1):
        try:
            layout(spec.method, nodes * spec.tasks_per_node)
        except InputError:
            continue
        found.append(nodes)
    return found


def _none(spec: RunSpec) -> InputError:
    """The error that no count of the range fits."""
    reason, fix = "ranks would have no image", "use fewer"
    try:
        registry.method(spec.method.name).layout(spec.method, spec.world_size)
    except InputError as error:
        reason, fix = error.reason, error.fix
    others = _fitting(spec, 1, NAMED)
    fix = f"use nodes={', '.join(map(str, others))}" if others else fix
    said = f"none of these x {spec.tasks_per_node} tasks a node can be laid out: {reason}"
    return InputError.of("nodes", spec.asked_nodes, said, fix)
