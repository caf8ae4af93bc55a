"""One protocol after the other on one backbone, each told as soon as it is known."""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from launcher.errors import Diverged, InputError
from launcher.runtime import store
from methods.engine.features import NotFinite
from methods.evals.room import refuse_too_large
from methods.evals.settings import Settings
from methods.evals.spec import called, changed, kind_of
from methods.evals.subject import Subject

Tell = Callable[[str, dict[str, Any]], None]


def judge(
    subject: Subject, asked: Mapping[str, Mapping[str, Any]], tell: Tell, told: Collection[str] | None = None
) -> None:
    """Run the protocols of `asked` ({name: settings}), and `tell` on rank 0 an event, "eval", when one is done:
    `protocol`, with what is not the default of its `settings` in its name and beside it, `digest` of the weights,
    `scores`; and, "scored", what one has found that is not done.

    What an earlier start has told, by default of these weights, is not done again. Collective; raises Stopped, with
    what is not done yet kept, and InputError where the images are too many for one of the protocols. A training goes
    on without the score of one that cannot be made, and says so.
    """
    job = subject.job
    if told is None:
        events = [e for e in job.run.history().all("eval") if e.get("digest") == subject.weights]
        told = job.world.broadcast([event["protocol"] for event in events])
    names = {protocol: called(protocol, changed(protocol, settings)) for protocol, settings in asked.items()}
    chosen = {name: kind_of(name)(**settings) for name, settings in asked.items()}
    for name, settings in chosen.items():  # before anything else is spent on them
        if settings.gathers():
            refuse_too_large(job, name, subject.backbone.feature_dim)  # the last stage is the widest
    for name, settings in chosen.items():
        if names[name] in told:
            continue
        changes = changed(name, asked[name])
        given = {"protocol": names[name], **({"settings": changes} if changes else {}), "digest": subject.weights}
        subject.so_far = lambda scores, given=given: tell("scored", {**given, "scores": scores})
        with job.clock(name if subject.step is None else "evaluation"):
            scores = _scores(subject, settings)
        if scores is not None and job.world.is_main:
            tell("eval", {**given, "scores": scores})
    if job.world.is_main and subject.step is None:
        store.remove(job.run.path / store.FOLDER)


def _scores(subject: Subject, settings: Settings) -> dict[str, Any] | None:
    """None where a training goes without. Protocols raise what follows on all ranks."""
    beside = type(settings).__module__.rpartition(".")[0]
    try:
        return import_module(f"{beside}.protocol").score(subject, settings)
    except (InputError, Diverged) as error:
        about_data = isinstance(error, InputError) and str(error.field).startswith("data")
        if subject.step is None or about_data or isinstance(error, NotFinite):
            raise
        subject.job.notice(f"{settings.title} is left out: {error}")
        return None
