"""Whether training collapses: figures of outputs and features, over all ranks, and what they say.

For metrics and evaluations, every so often. `entropy_of_use` is collective.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from methods.parts.collectives import sum_over_ranks
from methods.parts.losses import entropy

USED, SPREAD, ALIKE, RANK = 0.1, 0.99, 0.01, 2.0  # ours; far from what a training that learns has
LIKE, HIT = 0.98, 0.1  # likewise; see docs/collapse.md


@dataclass(frozen=True)
class Watched:
    """Which of a trainer's scalars tell of a collapse: the names of `entropy_of_use`, of the mean entropy of an output,
    of `likeness`, and of the share of classes that images of a step fall to, among them.

    classes: over which outputs are spread; None where there are none, and `alike` alone can tell. images: of a step, on
    all ranks, where there is such a share: no more classes can be hit.
    """

    classes: int | None = None
    use: str | None = None
    single: str | None = None
    alike: str | None = None
    hit: str | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        if self.classes is None and (self.use or self.single or self.hit):
            raise ValueError("classes=None: use, single and hit are shares of classes; say how many there are")

    def says(self, scalars: Mapping[str, float]) -> str | None:
        """`collapse` of the scalars of a step; those that are not there say nothing."""
        figures = {name: scalars.get(getattr(self, name)) for name in ("use", "single", "alike", "hit")}
        return collapse(self.classes, **figures, images=self.images)


@torch.no_grad()
def entropy_of_use(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy of how often each of K classes is used, in nats: of the mean of `probabilities` [..., K] over all rows
    and ranks. ln K where all are used alike, 0 where every image falls to one. Returns a scalar.

    >>> round(entropy_of_use(torch.eye(4)).item() / math.log(4), 4)
    1.0
    """
    rows = probabilities.float().flatten(0, -2)
    total = sum_over_ranks(rows.sum(0))
    return entropy(total / total.sum())


@torch.no_grad()
def use_of_classes(labels: torch.Tensor, classes: int, name: str) -> dict[str, torch.Tensor]:
    """How the images of a step fall to `classes` classes, over all ranks: NAME_entropy of the classes' sizes, in nats,
    at most ln of images or classes, and NAMEs_hit, the share of classes that got any.

    labels: int64 [B], of this rank's images; those below 0 are of none. Collective. Both are scalars.
    """
    # Not bincount, which makes the GPU wait for the size of its answer.
    members = torch.zeros(classes, device=labels.device)
    sum_over_ranks(members.index_add_(0, labels.clamp(min=0), (labels >= 0).to(members.dtype)))
    return {
        f"{name}_entropy": entropy(members / members.sum().clamp(min=1)),
        f"{name}s_hit": (members > 0).float().mean(),
    }


@torch.no_grad()
def likeness(features: torch.Tensor) -> torch.Tensor:
    """How alike images are: the mean squared cosine between the features [B, d] of two different ones, floating point,
    of this rank alone. 1 where all are alike up to sign and length; over many images one over it is an effective rank
    (the participation ratio). Cheap enough for every step, and nothing waits for it: no eigenvalues, no collective.
    Squared, since batch normalisation makes the mean cosine 0 whatever happens. Features that are all 0 are alike.
    Returns a float32 scalar, 0 for fewer than two images.

    >>> [round(likeness(x).item(), 4) for x in (torch.eye(4), torch.ones(9, 4), torch.tensor([[1.0], [-2.0]]))]
    [0.0, 1.0, 1.0]
    """
    with torch.autocast(features.device.type, enabled=False):  # bf16 cannot tell 0.999 from 1
        features = features.float()
        rows = normalize(torch.where(features.any(1, keepdim=True), features, 1.0), dim=1)
        squares = (rows @ rows.T).square()
    return (squares.sum() - squares.trace()) / max(1, len(rows) * (len(rows) - 1))


def rank_of_moments(moments: torch.Tensor) -> torch.Tensor:
    """Effective rank of features F whose F^T F, or F F^T, is `moments`, float64 [d, d]: exp of the entropy of the
    singular values, as shares of their sum (Roy and Vetterli, "The effective rank", 2007), between 1 and d. Not
    centred: features that are one constant with a little noise have rank 1, not the noise's. Returns a float64 scalar,
    NaN where all features are 0 or one is not finite.

    >>> [round(rank_of_moments(x.T @ x).item(), 4) for x in (torch.eye(4).double(), torch.ones(9, 4).double())]
    [4.0, 1.0]
    """
    if not torch.isfinite(moments).all():
        return moments.new_full((), math.nan)
    # Below this share of the largest, the square's rounding is all there is.
    squares = torch.linalg.eigvalsh(moments)
    squares = torch.where(squares > squares[-1] * len(squares) * torch.finfo(squares.dtype).eps, squares, 0)
    values = squares.sqrt()
    return entropy(values / values.sum()).exp()


def empty_share(counts: torch.Tensor) -> float:
    """Share of groups without members. counts: [k], members over all ranks (`launcher.kmeans.cluster_sizes`).

    >>> empty_share(torch.tensor([3, 0, 5, 0]))
    0.5
    """
    return float((counts == 0).double().mean())


def collapse(
    classes: int | None = None,
    *,
    use: float | None = None,
    single: float | None = None,
    rank: float | None = None,
    alike: float | None = None,
    hit: float | None = None,
    images: int | None = None,
) -> str | None:
    """What the figures that are given say of a collapse, in a sentence; None where they say nothing of one.

    use: `entropy_of_use`; single: the mean entropy of an output, both in nats over `classes` classes; rank: the
    effective rank of features; alike: `likeness` of what a loss compares; hit: share of the classes that a step's
    `images` fall to. Without `classes` rank and alike alone can tell. A few classes shared by all images are no
    collapse by `use`: 20 of 3000 have an entropy of 0.37 ln K.

    >>> collapse(1000, use=0.2)
    'nearly all images fall to one of 1000 classes (entropy of use 0.20 of ln K = 6.91)'
    >>> collapse(1000, use=5.0, single=4.99)  # their difference is what an output tells of the image
    'outputs are alike for all images (entropy of use 5.00, of one 4.99, ln K = 6.91)'
    >>> collapse(3000, use=3.0, hit=0.007, images=4096)
    'images fall to few classes, 21 of 3000 in a step of 4096 images'
    >>> collapse(1000, use=6.5, single=1.5, rank=90, alike=0.4, hit=0.3)
    """
    most = math.log(classes or 1)
    if use is not None and use < USED * most:
        return f"nearly all images fall to one of {classes} classes (entropy of use {use:.2f} of ln K = {most:.2f})"
    if single is not None and single > SPREAD * most:
        return f"outputs are uniform over {classes} classes (entropy {single:.2f} of ln K = {most:.2f})"
    if use is not None and single is not None and use - single < ALIKE * most:
        return f"outputs are alike for all images (entropy of use {use:.2f}, of one {single:.2f}, ln K = {most:.2f})"
    if hit is not None and hit < HIT * min(1, (images or classes) / classes):
        return f"images fall to few classes, {hit * classes:.0f} of {classes} in a step of {images} images"
    if alike is not None and alike > LIKE:
        return f"features differ in length and sign alone (mean squared cosine between images {alike:.4f})"
    if rank is not None and rank < RANK:
        return f"features differ in their length alone (effective rank {rank:.2f})"
    return None
