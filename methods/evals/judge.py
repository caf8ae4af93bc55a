"""One protocol after the other on one backbone, each told as soon as it is known."""

from collections.abc import Callable, Mapping
from typing import Any

from launcher.runtime import store
from methods.evals.attention import attention
from methods.evals.during import knn, refuse_too_many
from methods.evals.groups import groups
from methods.evals.layers import layers
from methods.evals.linear import linear
from methods.evals.logistic import logistic
from methods.evals.spec import KNN, called, changed
from methods.evals.spec import PROTOCOLS as SETTINGS
from methods.evals.subject import WORKS, Subject


def nearest(subject: Subject, settings: KNN) -> dict[str, float]:
    """The weighted k-NN of the run's own evaluations, with the features that the other protocols use."""
    return knn(subject.job, subject.backbone, known=subject.known, settings=settings, banks=subject.banks())


PROTOCOLS: dict[str, Callable[[Subject, Any], dict[str, Any]]] = {
    "knn": nearest,
    "linear": linear,
    "logistic": logistic,
    "layers": layers,
    "groups": groups,
    "attention": attention,
}


def judge(subject: Subject, asked: Mapping[str, Mapping[str, Any]], tell: Callable[[dict[str, Any]], None]) -> None:
    """Run the protocols of `asked` ({name: settings}), and `tell` on rank 0 when one is done: `protocol`, with what is
    not the default of its `settings` in its name and beside it, `digest` of the weights, `scores`.

    What an earlier start has told is not done again. Collective; raises Stopped, with what is not done yet kept, and
    InputError where the images are too many for one of the protocols.
    """
    job = subject.job
    told = [e for e in job.run.events() if e["event"] == "eval" and e.get("digest") == subject.weights]
    told = job.world.broadcast({event["protocol"] for event in told})
    names = {protocol: called(protocol, changed(protocol, settings)) for protocol, settings in asked.items()}
    for name, settings in asked.items():  # before anything else is spent on them
        if name == "knn" or settings.get("probe") == "knn":
            refuse_too_many(job, name)
    for name, settings in asked.items():
        if names[name] in told:
            continue
        with job.clock(name):
            scores = PROTOCOLS[name](subject, SETTINGS[name](**settings))
        if job.world.is_main:
            changes = changed(name, settings)
            given = {"settings": changes} if changes else {}
            tell({"protocol": names[name], **given, "digest": subject.weights, "scores": scores})
    if job.world.is_main:
        for number in range(len(WORKS)):
            store.remove(job.run.path / store.FOLDER / f"step_{number:08d}")
