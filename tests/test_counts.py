"""Pixel counts against scikit-learn's confusion matrix, in numpy and in torch."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from lesionseg.scoring.counts import Counts, count, count_batch


def masks(number: int, shape=(17, 23), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.random((number, *shape)) < random.random((number, 1, 1))
    return truth ^ (random.random(truth.shape) < 0.2), truth


def sklearn_counts(predicted: np.ndarray, truth: np.ndarray) -> Counts:
    (tn, fp), (fn, tp) = confusion_matrix(truth.ravel(), predicted.ravel(), labels=[False, True])
    return Counts(tp, fp, fn, tn)


def test_counts_of_an_image_are_those_of_scikit_learn():
    for predicted, truth in zip(*masks(5), strict=True):
        assert count(predicted, truth) == sklearn_counts(predicted, truth)
        assert count(predicted.astype(np.uint8) * 255, truth.astype(np.uint8)) == count(predicted, truth)


def test_torch_counts_are_the_numpy_counts():
    predicted, truth = masks(6)
    table = count_batch(torch.from_numpy(predicted)[:, None], torch.from_numpy(truth)[:, None])
    assert table.dtype == torch.int64
    expected = [count(one, other) for one, other in zip(predicted, truth, strict=True)]
    assert table.tolist() == [list(counts) for counts in expected]


@pytest.mark.parametrize("size", [1, 2, 5, 13])
def test_streaming_does_not_depend_on_the_batch_size(size):
    predicted, truth = (torch.from_numpy(mask) for mask in masks(13))
    total = torch.zeros(4, dtype=torch.int64)
    for start in range(0, 13, size):
        total += count_batch(predicted[start : start + size], truth[start : start + size]).sum(0)
    assert Counts(*total.tolist()) == sklearn_counts(predicted.numpy(), truth.numpy())


def test_pooled_counts_are_sums_over_images():
    predicted, truth = masks(4)
    table = np.array([count(one, other) for one, other in zip(predicted, truth, strict=True)])
    assert Counts.of(table).pooled() == sklearn_counts(predicted, truth)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ"):
        count(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="differ"):
        count_batch(torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(2, 1, 4, 4, dtype=torch.bool))
