import math

import numpy as np
import pytest
import torch

from launcher.kmeans import nmi


def test_by_hand():
    # Joint shares: (0,0) 1/2, (1,1) 1/4, (1,2) 1/4. B determines A: I = H(A) = log 2; H(B) = 1.5 log 2.
    assert nmi([0, 0, 1, 1], [0, 0, 1, 2]) == pytest.approx(1 / math.sqrt(1.5), rel=1e-12)
    # Three quarters of the mass on the diagonal of a 2 x 2 table: I = log 2 - H(1/4), both entropies log 2.
    a, b = [0] * 4 + [1] * 4, [0, 0, 0, 1, 1, 1, 1, 0]
    binary_entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert nmi(a, b) == pytest.approx(1 - binary_entropy / math.log(2), rel=1e-12)


def test_independent_labellings_score_zero():
    assert nmi([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(0, abs=1e-12)


def test_the_names_of_the_clusters_do_not_matter():
    a = np.random.default_rng(0).integers(0, 50, 1000)
    assert nmi(a, 7 - 3 * a) == pytest.approx(1, rel=1e-12)
    assert nmi(torch.from_numpy(a), a) <= 1


def test_symmetric():
    a, b = np.random.default_rng(0).integers(0, [[50], [9]], (2, 1000))
    assert nmi(a, b) == pytest.approx(nmi(b, a), rel=1e-12)
    assert 0 < nmi(a, b) < 1


def test_a_single_cluster():
    assert nmi([3, 3, 3], [1, 1, 1]) == 1.0
    assert nmi([3, 3, 3], [0, 1, 2]) == 0.0
    assert nmi([0, 1, 2], [3, 3, 3]) == 0.0
