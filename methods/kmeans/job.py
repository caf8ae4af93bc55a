"""What the ranks of `sslrun kmeans` do, top to bottom: features, their clustering, the result."""

from typing import Any

import numpy as np
import torch

from launcher.errors import InputError
from launcher.kmeans import fit, hierarchical, where_they_fit
from launcher.kmeans.features import first_bad_row
from launcher.run import waiting
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime import store as stores
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag, Stopped
from methods.engine.job import Job
from methods.kmeans import results
from methods.kmeans.progress import Progress
from methods.kmeans.results import ClusteringResult
from methods.kmeans.sources import ASSEMBLED, Source, open_source
from methods.kmeans.spec import KMeansConfig, rounds


def cluster(run: RunDir, world: World, ledger: Ledger, stop: StopFlag, heart: Heart) -> dict[str, Any]:
    """Cluster as the run's spec says and leave the result where it says. Collective.

    Raises Stopped at safe points, with the state kept; InputError for features that cannot be clustered.
    """
    spec = run.spec()
    source = open_source(run, spec, world)
    job = Job(run, spec, world, None, ledger, stop, source.dataset, heart=heart)
    # Curves of earlier starts stay; an iteration that is done once more has the same figures.
    job.reporter.start(purge_step=run.progress().get("step", 0))
    job.reporter.progress(force=True, stage="starting", step=0, steps=spec.method.iterations, notices=job.notices)
    try:
        # A start may have been killed between its result and its last word.
        before = world.broadcast(waiting.patiently(lambda: results.found(run, spec)) if world.is_main else None)
        summary = before or _clustered(job, source)
        _told(job, summary)
    except Stopped:
        job.reporter.progress(force=True, stage="stopped")
        raise
    finally:
        job.reporter.close()
    return {"step": summary["iterations"], "seconds": job.clock.seconds()}


def _clustered(job: Job, source: Source) -> dict[str, Any]:
    config: KMeansConfig = job.spec.method
    writer = results.Writer(job, source)
    job.heart.end_when_stuck()
    numbers = sum(each.m * each.k * each.d for each in rounds(config).clusterings)
    asked = {name: getattr(config, name) for name in ("k", "m", "metric", "init", "empty", "deterministic")}
    key = lambda: {**source.key(), **asked, "seed": job.spec.seed}  # noqa: E731
    with job.keeping(0, key, needed=source.needed(numbers), every_s=config.keep_work_s) as store:
        with job.clock("features"):
            features, positions = source.features(job, store)
        features = where_they_fit(features, job.world.device)
        progress = Progress(job, store)
        with job.clock("clustering"):
            try:
                found = _fit(job, features, progress)
            except ValueError as error:
                raise _explained(job, source, features, positions, error) from None
    with job.clock("writing"):
        summary = writer.write(found, positions)
    return summary


def _told(job: Job, summary: dict[str, Any]) -> None:
    """What follows the result, also where an earlier start was killed before it: figures in the ledger, and room."""
    if job.world.is_main:
        for name in ("step_00000000", ASSEMBLED):
            stores.remove(job.run.path / stores.FOLDER / name)
        scores = {name: summary[name] for name in results.SCORES if summary.get(name) is not None}
        step, digest = summary["iterations"], summary["digest"]
        if not job.run.history().all("eval"):
            job.ledger.write("eval", protocol="kmeans", step=step, digest=digest, scores=scores)
        print(f"kmeans: {scores}", flush=True)
    job.reporter.progress(force=True, stage="done", step=summary["iterations"], steps=summary["iterations"])


def _fit(job: Job, features: torch.Tensor, progress: Progress) -> ClusteringResult:
    """The one call of the engine."""
    config: KMeansConfig = job.spec.method
    how = {name: getattr(config, name) for name in ("iterations", "init", "metric", "empty", "deterministic")}
    told = {"safe_point": progress.safe_point, "progress": progress.iterated}
    given = {**how, **told, "seed": job.spec.seed, "device": job.world.device}
    if config.m is None:
        return ClusteringResult.of_clusters(fit(features, config.k, **given, resume=progress.slot("k-means")))
    return ClusteringResult.of_hierarchy(hierarchical(features, (config.m, config.k), **given, resume=progress.slot))


def _explained(
    job: Job, source: Source, features: torch.Tensor, positions: np.ndarray, error: ValueError
) -> InputError:
    """What the engine refused, on all ranks alike, in the words of who gave the features. Collective."""
    row = first_bad_row(features)
    rows = [each for each in job.world.gather(None if row is None else int(positions[row])) if each is not None]
    if rows:
        where = source.dataset.name_of(min(rows))
        fix = "leave the sample out, or find out why the network gave it"
        return InputError.of("features", job.spec.method.features, f"{where} is NaN or infinite", fix)
    return InputError(str(error))
