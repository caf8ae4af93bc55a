"""The linear map after which features have no direction that counts for more than another."""

import numpy as np

LEAST = 1e-5  # of the largest eigenvalue: smaller ones are taken to be so large


def whitened(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`features` [n, d] less the mean of `others` [m, d], on the principal axes of these over their lengths. As
    published, the axes are those of the second moments of `others` themselves, not of what is left of them without
    their mean. All float64."""
    values, axes = np.linalg.eigh(others.T @ others / len(others))
    values = np.maximum(values, LEAST * values.max())
    return (features - others.mean(0)) @ axes / np.sqrt(values)
