"""What the ranks of `sslrun eval weights=FILE` do: load the file into the backbone, judge it."""

from pathlib import Path
from typing import Any

from torch import nn

from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods import backbones
from methods.backbones.export import is_export
from methods.backbones.layouts import Found
from methods.evals.alone import job_of
from methods.evals.judge import judge
from methods.evals.subject import Subject
from methods.weights.file import load
from methods.weights.spec import WeightsConfig


def network_of(config: WeightsConfig) -> tuple[nn.Module, Found]:
    """(the backbone with the weights of the file, what was found there). It computes as the code that
    published such weights, or, where `sslrun export` wrote them, as ours. Raises InputError as `load` does."""
    backbone = backbones.build(config.backbone)
    found = load(backbone, config)
    if not is_export(Path(config.weights)):
        backbones.as_published(backbone, config.backbone)
    return backbone, found


def evaluate(run: RunDir, world: World, ledger: Ledger, stop: StopFlag, heart: Heart) -> dict[str, Any]:
    """Judge the weights as the run's spec says, and write the scores into its ledger. Collective.

    Raises Stopped at safe points, with the work kept; InputError for a file that has changed, or holds other weights.
    """
    config = run.spec().method
    with job_of(run, world, ledger, stop, heart, config.settings) as job:
        backbone, found = network_of(config)
        if world.is_main:
            told = {"layout": found.layout, "under": found.under.rstrip("."), "thrown_away": found.thrown_away}
            where = f", under {told['under']}" if found.under else ""
            gone = ", ".join(found.thrown_away) or "nothing"
            print(f"{config.weights}: {config.backbone}, {found.layout}{where}; thrown away: {gone}", flush=True)
            ledger.write("weights", path=config.weights, **told)
        subject = Subject(job, backbone.to(world.device).eval(), config.content)

        def tell(event: str, found: dict[str, Any]) -> None:
            ledger.write(event, **found, step=0)
            if event == "eval":
                print(f"{found['protocol']} {found['scores']}", flush=True)

        judge(subject, config.settings, tell)
    return {"step": 0, "seconds": job.clock.seconds()}
