"""What the scores of evaluations are called where a person reads them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

KNN = {
    "trained": "trained",
    "untrained": "same network untrained",
    "untrained_adapted": "untrained, batch statistics of the data",
    "raw_pixels": "raw pixels",
    "rank": "effective rank of its features",
}
LINEAR = {"top1": "top-1 (the best rate on the test split)", "top5": "top-5", "rate": "that rate"}
LOGISTIC = {"top1": "top-1", "top5": "top-5", "train": "top-1 on what it was fitted to"}
GROUPS = {
    "groups": "number",
    "mean": "entropy of labels, mean",
    "median": "median",
    "low": "share of low entropy",
    "use": "share of ln k in use",
}
ATTENTION = {"images": "images with masks", "jaccard": "Jaccard, best head", "jaccard_best": "best head of each image"}
NAME = re.compile(r"([^(:]*)(\(.*\))?(?::(.*))?", re.DOTALL)  # protocol(settings):data
NO_PERCENT = ("rank", "rate", "groups", "mean", "median", "low", "use", "images")


def labelled(evals: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(label, score) of each score of `evals`, {protocol(settings):data: scores}, that a screen has room for. Settings
    and data are there where they are not the usual ones."""
    for protocol, scores in evals.items():
        name, settings, data = NAME.fullmatch(protocol).groups()
        title, labels = _labels(name, scores)
        for key, label in labels.items():
            if key in scores:
                score = f"{scores[key]:g}" if key in NO_PERCENT else f"{scores[key]:.1f} %"
                asked = f"{f' {settings}' if settings else ''}{f' on {data}' if data else ''}"
                yield f"{title}{asked}, {label}", score


def _labels(name: str, scores: Mapping[str, Any]) -> tuple[str, Mapping[str, str]]:
    if name == "knn":
        several = {key: f"{key[1:]} neighbours" for key in scores if key.startswith("k") and key[1:].isdigit()}
        return "k-NN", KNN | several
    if name == "layers":
        return "stage", {stage: stage for stage in scores}
    known = {"linear": LINEAR, "logistic": LOGISTIC, "groups": GROUPS, "attention": ATTENTION}
    titles = {"linear": "linear probe", "logistic": "logistic regression", "groups": "groups", "attention": "attention"}
    return titles.get(name, name), known.get(name, {})
