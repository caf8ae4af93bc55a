"""One protocol after the other on one backbone, each told as soon as it is known."""

from collections.abc import Callable, Mapping
from typing import Any

from launcher.runtime import store
from methods.evals.attention import attention
from methods.evals.during import knn
from methods.evals.groups import groups
from methods.evals.layers import layers
from methods.evals.linear import linear
from methods.evals.logistic import logistic
from methods.evals.room import refuse_too_large
from methods.evals.spec import KNN, called, changed
from methods.evals.spec import PROTOCOLS as SETTINGS
from methods.evals.subject import WORKS, Subject

Tell = Callable[[str, dict[str, Any]], None]


def nearest(subject: Subject, settings: KNN) -> dict[str, float]:
    """The weighted k-NN of the run's own evaluations, with the features that the other protocols use."""
    return knn(
        subject.job,
        subject.backbone,
        known=subject.known,
        settings=settings,
        banks=subject.banks(),
        so_far=subject.so_far,
    )


PROTOCOLS: dict[str, Callable[[Subject, Any], dict[str, Any]]] = {
    "knn": nearest,
    "linear": linear,
    "logistic": logistic,
    "layers": layers,
    "groups": groups,
    "attention": attention,
}


def judge(subject: Subject, asked: Mapping[str, Mapping[str, Any]], tell: Tell) -> None:
    """Run the protocols of `asked` ({name: settings}), and `tell` on rank 0 an event, "eval", when one is done:
    `protocol`, with what is not the default of its `settings` in its name and beside it, `digest` of the weights,
    `scores`; and, "scored", what one has found that is not done.

    What an earlier start has told is not done again. Collective; raises Stopped, with what is not done yet kept, and
    InputError where the images are too many for one of the protocols.
    """
    job = subject.job
    told = [e for e in job.run.history().all("eval") if e.get("digest") == subject.weights]
    told = job.world.broadcast({event["protocol"] for event in told})
    names = {protocol: called(protocol, changed(protocol, settings)) for protocol, settings in asked.items()}
    for name, settings in asked.items():  # before anything else is spent on them
        if name == "knn" or settings.get("probe") == "knn":
            refuse_too_large(job, name, subject.backbone.feature_dim)  # the last stage is the widest
    for name, settings in asked.items():
        if names[name] in told:
            continue
        changes = changed(name, settings)
        given = {"protocol": names[name], **({"settings": changes} if changes else {}), "digest": subject.weights}
        subject.so_far = lambda scores, given=given: tell("scored", {**given, "scores": scores})
        with job.clock(name):
            scores = PROTOCOLS[name](subject, SETTINGS[name](**settings))
        if job.world.is_main:
            tell("eval", {**given, "scores": scores})
    if job.world.is_main:
        for number in range(len(WORKS)):
            store.remove(job.run.path / store.FOLDER / f"step_{number:08d}")
