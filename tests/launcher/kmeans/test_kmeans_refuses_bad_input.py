import pytest
import torch

from launcher.kmeans import fit, fit_whitening, hierarchical, nmi

FEATURES = torch.arange(20.0).view(10, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(FEATURES, 0), "k=0: .* set k to 1 or more"),
        (lambda: fit(FEATURES, 11), "k=11: more clusters than the 10 features .* set k to at most 10"),
        (lambda: fit(FEATURES, 2, iterations=0), "iterations=0: "),
        (lambda: fit(FEATURES[0], 1), r"features: torch.float32 of shape \(2,\); give a floating-point tensor"),
        (lambda: fit(FEATURES.long(), 1), "features: torch.int64"),
        (lambda: fit(FEATURES.log(), 2), "features: row 0 of rank 0 is NaN or infinite"),
        (lambda: fit(FEATURES, 2, init="kmeans++"), "init='kmeans[+][+]': no such start"),
        (lambda: fit(FEATURES * 1e18, 2), "features: a value of 1.9e[+]19 is too large"),
        (lambda: fit(FEATURES.tolist(), 2), "features: list; give a floating-point tensor"),
        (lambda: fit(FEATURES[:0], 1), "k=1: more clusters than the 0 features"),
        (lambda: fit(FEATURES, 2, metric="l1"), "metric='l1': no such metric; give \"l2\" or"),
        (lambda: fit(FEATURES, 2, empty="drop"), 'empty=\'drop\': .* give "split", "keep" or'),
        (lambda: fit(FEATURES, 2, tolerance=-1), "tolerance=-1: give the share"),
        (lambda: fit(FEATURES, 2, weights=torch.ones(9)), r"weights: shape \(9,\) for 10 features"),
        (lambda: fit(FEATURES, 2, weights=FEATURES[:, 0].log()), "weights: -inf in row 0; give finite"),
        (lambda: fit(FEATURES, 2, weights=torch.zeros(10)), "weights: all are 0"),
        (lambda: hierarchical(FEATURES, (2, 2), init="best"), "init='best': no such start"),
        (lambda: fit(FEATURES, 2, init=FEATURES[:3]), r"shape \(3, 2\) .* give shape \(2, 2\)"),
        (lambda: fit(FEATURES, 2, init=FEATURES[:2] / 0), "init: a centroid is NaN"),
        (lambda: hierarchical(FEATURES, (0, 2)), "m=0: "),
        (lambda: hierarchical(FEATURES, (11, 2)), "m=11: more clusters than the 10 features"),
        (lambda: hierarchical(FEATURES, (2, 0)), "k=0: "),
        (lambda: fit_whitening(FEATURES, 3), "dim=3: features of dimension 2"),
        (lambda: fit_whitening(FEATURES, 0), "dim=0: "),
        (lambda: fit_whitening(FEATURES[:1], 1), "features: 1 on all ranks have no covariance"),
        (lambda: nmi([0, 1], [0]), "a, b: 2 and 1 labels"),
        (lambda: nmi([], []), "a, b: 0 and 0 labels"),
    ],
)
def test_one_line_names_field_value_and_fix(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
