"""The overlap scores, each a function of the pixel counts alone.

Pooled and per-image scores come from the same functions: a pooled score is computed from the summed counts, a
per-image score is the mean of the scores of the images. No score is ever NaN. Where a denominator is 0, the
official ISIC scorer is followed where it defines a value:

- both masks empty: nothing was missed and nothing invented, so every score is 1;
- recall of an image without lesion, specificity of an image that is all lesion: 1 (nothing to miss);
- precision of an empty prediction where there is a lesion: 0 (scikit-learn's default).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from lesionseg.scoring.counts import Counts

FAILURE = 0.65  # ISIC 2018 Task 1: an image with a Jaccard index below this counts as failed and scores 0

Score = Any  # float for the counts of one image, float64 array for arrays of counts


def dice(counts: Counts) -> Score:
    """2 tp / (2 tp + fp + fn), the F1 score of the lesion's pixels (Dice 1945)."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, otherwise=1.0)


def iou(counts: Counts) -> Score:
    """tp / (tp + fp + fn): intersection over union, the Jaccard index. Equals dice / (2 - dice)."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn, otherwise=1.0)


def precision(counts: Counts) -> Score:
    """tp / (tp + fp): the share of the predicted pixels that are lesion."""
    return _ratio(counts.tp, counts.tp + counts.fp, otherwise=np.equal(counts.fn, 0))


def recall(counts: Counts) -> Score:
    """tp / (tp + fn): the share of the lesion's pixels that were found (sensitivity)."""
    return _ratio(counts.tp, counts.tp + counts.fn, otherwise=1.0)


def specificity(counts: Counts) -> Score:
    """tn / (tn + fp): the share of the other pixels that were left alone."""
    return _ratio(counts.tn, counts.tn + counts.fp, otherwise=1.0)


def accuracy(counts: Counts) -> Score:
    """(tp + tn) / all pixels."""
    return _ratio(counts.tp + counts.tn, counts.tp + counts.fp + counts.fn + counts.tn, otherwise=1.0)


def threshold_jaccard(counts: Counts) -> Score:
    """The Jaccard index where it is at least 0.65, else 0: the ISIC 2018 Task 1 score of one image."""
    jaccard = iou(counts)
    return np.where(np.greater_equal(jaccard, FAILURE), jaccard, 0.0)[()]


def failed(counts: Counts) -> Score:
    """1 where the Jaccard index is below 0.65, else 0; its mean is the failure rate."""
    return np.less(iou(counts), FAILURE).astype(float)[()]


OVERLAP: dict[str, Callable[[Counts], Score]] = {
    score.__name__: score for score in (dice, iou, precision, recall, specificity, accuracy)
}


def _ratio(numerator, denominator, otherwise) -> Score:
    """numerator / denominator, and `otherwise` where the denominator is 0; float64, a scalar for scalars."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    filled = np.broadcast_to(np.asarray(otherwise, float), denominator.shape).copy()
    return np.divide(numerator, denominator, out=filled, where=denominator > 0)[()]
