"""t-SNE of the mean feature of each class (Caron, PhD thesis 2021, 5.4.2 and Figure 5.2)."""

import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from threadpoolctl import threadpool_limits

from launcher.errors import InputError
from methods.evals.subject import Subject
from methods.evals.tsne.picture import picture
from methods.evals.tsne.spec import Tsne

FEWEST = 5  # classes
NEIGHBOURS = 5  # that should be those of the features, too: scikit-learn's default
ROWS = 8192  # taken in float64 at once
WAIT_S = 0.2  # between two questions whether to stop
STEP = 2.0**-20  # cosine distances are told apart in steps of this size, so that their order is that of any ranks


class Means(NamedTuple):
    """Of each class that has an image: its `label`, int64 [n]; `mean` feature, float32 [n, d]; how many `images`, int64
    [n]; and the image nearest to the mean by the cosine, `typical`, int64 [n], its number in the data set."""

    label: np.ndarray
    mean: np.ndarray
    images: np.ndarray
    typical: np.ndarray


def score(subject: Subject, settings: Tsne) -> dict[str, Any]:
    """`classes` on the map, and its `trustworthiness` (Venna and Kaski 2001), 0 to 1: how far the classes nearest to
    one there are among the nearest to it by their means. In the folder `tsne` of the evaluation are the map,
    classes.png, and classes.npz: `names`, `images` (how many), `means` and `points`.

    The same on any number of ranks, float order apart. Collective; raises Stopped, and InputError where images show
    fewer than FEWEST classes.
    """
    job, names = subject.job, subject.splits[settings.split].classes
    found = means_of(subject, settings.split)
    if len(found.label) < FEWEST:
        reason = f"its {settings.split} split shows {len(found.label)} classes, and a map takes {FEWEST}"
        raise InputError.of("eval_data", (job.spec.eval_data or job.spec.data).name, reason, "give images of more")
    if len(found.label) < len(names):
        job.notice(f"tsne: {len(names) - len(found.label)} of {len(names)} classes have no image, and no place")
    points = _mapped(subject, settings, found.mean)
    scores = None
    if job.world.is_main:
        near = min(NEIGHBOURS, (len(points) - 1) // 2)
        trust = round(float(trustworthiness(found.mean.astype(np.float64), points, n_neighbors=near)), 4)
        scores = {"classes": len(points), "trustworthiness": trust}
        _written(subject, settings, found, points, trust)
    return job.world.broadcast(scores)


def means_of(subject: Subject, split: str) -> Means:
    """On every rank. Collective."""
    features, labels = subject.features(split)
    device, numbers = subject.job.world.device, subject.numbers(split).tolist()
    sums = torch.zeros(subject.classes, features.shape[1] + 1, dtype=torch.float64)
    for rows, truth in zip(features.split(ROWS), labels.split(ROWS), strict=True):
        sums[:, :-1].index_add_(0, truth, rows.double())
    sums[:, -1] += labels.bincount(minlength=subject.classes)
    sums = subject.sum(sums.to(device)).cpu()
    # In float32, in which an order of adding up is seldom seen: t-SNE makes much of the last digit.
    means = (sums[:, :-1] / sums[:, -1:].clamp_min(1)).float()
    there = sums[:, -1] > 0
    far: list[int] = []
    for rows, truth in zip(features.split(ROWS), labels.split(ROWS), strict=True):
        near = torch.nn.functional.cosine_similarity(rows.double(), means[truth].double(), dim=1)
        far += ((1 - near) / STEP).round().long().tolist()
    best: dict[int, tuple[int, int]] = {}
    for label, key in zip(labels.tolist(), zip(far, numbers, strict=True), strict=True):
        best[label] = min(best.get(label, key), key)
    parts = subject.job.world.gather(sorted((label, *key) for label, key in best.items()))
    for label, *key in (row for part in parts for row in part):
        best[label] = min(best.get(label, tuple(key)), tuple(key))
    label = there.nonzero()[:, 0].numpy()
    typical = np.array([best[each][1] for each in label.tolist()], np.int64)
    return Means(label, means[there].numpy(), sums[there, -1].long().numpy(), typical)


def mapped(means: np.ndarray, settings: Tsne, seed: int) -> np.ndarray:
    """float32 [n, d] -> float64 [n, 2]; the same for the same seed, 0 to 2^32 - 1, on one machine."""
    count = len(means)
    components = min(settings.components, count - 1, means.shape[1])
    reduced = PCA(components, svd_solver="full").fit_transform(means.astype(np.float64))
    how = {"perplexity": perplexity(settings, count), "learning_rate": settings.rate, "max_iter": settings.iterations}
    with threadpool_limits(1):  # threads add up in an order of the moment
        return TSNE(2, init="pca", random_state=seed, **how).fit_transform(reduced).astype(np.float64)


def perplexity(settings: Tsne, classes: int) -> float:
    """As wanted, where there are three times as many other classes, else a third of them."""
    return min(settings.perplexity, (classes - 1) / 3)


def _mapped(subject: Subject, settings: Tsne, means: np.ndarray) -> np.ndarray | None:
    """On rank 0, while all ranks ask whether to stop: scikit-learn itself does not. Collective; raises Stopped."""
    job, made, thread = subject.job, {}, None

    def work() -> None:
        try:
            made["points"] = mapped(means, settings, job.seed_for("tsne") % 2**32)
        except BaseException as error:  # for the thread that waits
            made["error"] = error

    if job.world.is_main:
        if perplexity(settings, len(means)) < settings.perplexity:
            job.notice(f"tsne: perplexity {perplexity(settings, len(means)):.3g}, as there are {len(means)} classes")
        thread = threading.Thread(target=work, name="t-SNE", daemon=True)
        thread.start()
    while job.world.broadcast(thread is not None and thread.is_alive()):
        job.safe_point("t-SNE", 0, 1)
        if thread:
            thread.join(WAIT_S)
    job.safe_point("t-SNE", 1, 1)
    if "error" in made:
        raise made["error"]
    return made.get("points")


def _written(subject: Subject, settings: Tsne, found: Means, points: np.ndarray, trust: float) -> None:
    folder, dataset = subject.job.run.path / "tsne", subject.splits[settings.split]
    folder.mkdir(exist_ok=True)
    names = [dataset.classes[label] for label in found.label]
    np.savez(folder / "classes.npz", names=np.array(names), images=found.images, means=found.mean, points=points)
    foot = f"{len(points)} classes, mean features of {found.images.sum()} images, t-SNE; trustworthiness {trust:.3f}"
    picture(points, names, found.typical, dataset, show=settings.show, foot=foot).save(folder / "classes.png")
