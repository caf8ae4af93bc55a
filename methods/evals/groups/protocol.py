"""Do groups of similar features mean one thing: entropy of the labels within each (SMoG, Figure 5)."""

import math
from typing import Any

import numpy as np
import torch

from launcher.errors import InputError
from launcher.kmeans import cluster_entropy, fit, sharded_nmi
from methods.evals.groups.spec import GroupEntropy
from methods.evals.subject import Subject

BINS = 20  # of the density
LOW = 0.25  # of ln(classes), the largest entropy: below it a group's is called low; the paper gives no number


def score(subject: Subject, settings: GroupEntropy) -> dict[str, Any]:
    """k-means of the training features, and of the entropies -sum_i p_i ln p_i of the labels within its groups, in
    nats: `mean` and `median` over groups, `mean_by_size` over images, the `density` of Figure 5 as shares of the groups
    in equal ranges from 0 to ln(classes), and the share `low` of those below LOW of that; `use`, the entropy of the
    groups' sizes as a share of its largest, ln k; `nmi` with the labels.

    Collective; raises Stopped, and InputError where there are fewer images than groups.
    """
    features, labels = subject.features("train")
    total = int(subject.sum(torch.tensor([len(labels)], device=subject.job.world.device)))
    k = settings.groups or max(2, min(3000, total // 10))
    if k > total:
        fix = f"give 2 to {total}" if total > 1 else "give more images"
        raise InputError.of("groups.groups", k, f"the images are {total}", fix)
    with subject.keeping("groups", vars(settings), needed=8 * k * features.shape[1]) as store:
        found = fit(
            features.to(subject.job.world.device),
            k,
            iterations=settings.iterations,
            seed=subject.job.seed_for("groups") % 2**31,
            safe_point=subject.job.safe_point,
            resume=store.slot("groups"),
        )
    assignments = found.assignments.cpu()
    entropy = cluster_entropy(assignments, labels, k).numpy()
    nmi = sharded_nmi(assignments, labels)
    members = found.counts.cpu().double().numpy()
    there = members > 0
    shares = members[there] / members.sum()
    largest = max(math.log(subject.classes), 1e-9)
    density, _ = np.histogram(entropy[there], bins=BINS, range=(0, largest))
    return {
        "groups": k,
        "mean": round(float(entropy[there].mean()), 4),
        "median": round(float(np.median(entropy[there])), 4),
        "mean_by_size": round(float((entropy[there] * shares).sum()), 4),
        "low": round(float((entropy[there] < LOW * largest).mean()), 4),
        "use": round(float(-(shares * np.log(shares)).sum() / math.log(k)), 4),
        "nmi": round(float(nmi), 4),
        "density": [round(float(n) / int(there.sum()), 4) for n in density],
    }
