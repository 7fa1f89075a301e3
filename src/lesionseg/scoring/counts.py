"""Pixel counts of a predicted mask against the true one: everything the overlap scores are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Count = TypeVar("Count")  # int or np.ndarray


class Counts(NamedTuple, Generic[Count]):
    """True positives, false positives, false negatives and true negatives, lesion being positive.

    Each is an integer, or an int64 array with one entry per image.
    """

    tp: Count
    fp: Count
    fn: Count
    tn: Count

    @staticmethod
    def of(table: np.ndarray) -> Counts[np.ndarray]:
        """Counts from int64 (..., 4) in the order of the fields: one row per image."""
        return Counts(*np.moveaxis(np.asarray(table), -1, 0))

    def pooled(self) -> Counts[int]:
        """The sum over images: the counts of all pixels taken as one picture."""
        return Counts(*np.asarray(self).reshape(len(self), -1).sum(1).tolist())


def count(predicted: np.ndarray, truth: np.ndarray) -> Counts[int]:
    """Count one image: two masks of the same shape, bool or numbers where non-zero is lesion."""
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted mask {predicted.shape} and true mask {truth.shape} differ in shape")
    both = int(np.count_nonzero(np.logical_and(predicted, truth)))
    return Counts(*_counts(both, int(np.count_nonzero(predicted)), int(np.count_nonzero(truth)), truth.size))


def count_batch(predicted: Tensor, truth: Tensor) -> Tensor:
    """Count a batch where it lies: bool (B, ..., H, W) twice -> int64 (B, 4), on the device, unsynchronised.

    To stream over a data set, add up `count_batch(...).sum(0)` and read `Counts(*total.tolist())` at the end:
    the result is exact, whatever the batch size.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted masks {tuple(predicted.shape)} and true masks {tuple(truth.shape)} differ")
    predicted, truth = predicted.flatten(1), truth.flatten(1)
    both = (predicted & truth).sum(1)
    counts = _counts(both, predicted.sum(1), truth.sum(1), truth.shape[1])
    table = both.new_empty((len(both), 4))
    for column, values in enumerate(counts):
        table[:, column] = values
    return table


def _counts(both, predicted, true, pixels: int) -> tuple:
    """tp, fp, fn and tn of what lies in both masks, in the predicted one, in the true one and in the image."""
    return both, predicted - both, true - both, pixels - predicted - true + both
