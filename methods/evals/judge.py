"""One protocol after the other on one backbone, each told as soon as it is known."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from launcher.runtime import store
from methods.evals.room import refuse_too_large
from methods.evals.spec import called, changed, kind_of
from methods.evals.subject import Subject

Tell = Callable[[str, dict[str, Any]], None]


def judge(subject: Subject, asked: Mapping[str, Mapping[str, Any]], tell: Tell) -> None:
    """Run the protocols of `asked` ({name: settings}), and `tell` on rank 0 an event, "eval", when one is done:
    `protocol`, with what is not the default of its `settings` in its name and beside it, `digest` of the weights,
    `scores`; and, "scored", what one has found that is not done.

    What an earlier start has told is not done again. Collective; raises Stopped, with what is not done yet kept, and
    InputError where the images are too many for one of the protocols.
    """
    job = subject.job
    told = [e for e in job.run.history().all("eval") if e.get("digest") == subject.weights]
    told = job.world.broadcast([event["protocol"] for event in told])
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
        with job.clock(name):
            beside = type(settings).__module__.rpartition(".")[0]
            scores = import_module(f"{beside}.protocol").score(subject, settings)
        if job.world.is_main:
            tell("eval", {**given, "scores": scores})
    if job.world.is_main:
        store.remove(job.run.path / store.FOLDER)
