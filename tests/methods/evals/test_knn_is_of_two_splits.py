"""k-NN asks about images of the test split, and looks for their neighbours among those of the training split alone."""

import numpy as np
import pytest

from launcher.compose.training import resolve
from methods import data
from methods.evals.during import labelled


def names(dataset):
    return {dataset.name_of(index) for index in range(len(dataset))}


@pytest.fixture
def splits():
    """`splits("eval_data=...")`: (what is trained on, what is looked through, what is asked about)."""

    def made(*overrides):
        spec, _ = resolve(["method=rotnet", "recipe=tiny", *overrides])
        dataset = data.build(spec.data, "train")
        return dataset, *labelled(spec, dataset)

    return made


def test_neighbours_are_the_images_trained_on_and_none_is_asked_about(splits):
    trained_on, train, test = splits()
    assert train is trained_on
    assert names(train) and names(test) and not names(train) & names(test)
    assert test.classes == train.classes
    assert set(np.unique(test.labels)) == set(range(len(test.classes)))


def test_data_of_its_own_have_two_splits_too(splits):
    trained_on, train, test = splits("eval_data=photos", "eval_data.images=608")
    assert len(train) == 608 != len(trained_on)
    assert not names(train) & names(test)
