"""Precision-recall and ROC curves with their areas, over all pixels, from a histogram of 8-bit probabilities.

scikit-learn gets the cells of the histogram as weighted pixels. The curves have a point for every probability that
occurs, so the areas are exact for the stored 8-bit probabilities.
"""

from typing import NamedTuple

import numpy as np
from sklearn import metrics

from lesionseg.evaluate.histogram import LEVELS

POINTS = 101  # at most, in a thinned curve


class Curve(NamedTuple):
    """A curve over falling thresholds: x, y and threshold of its points, float (points,)."""

    x: np.ndarray
    y: np.ndarray
    threshold: np.ndarray


class Area(NamedTuple):
    """The area under a curve, or None and the reason."""

    value: float | None
    reason: str | None = None


def roc(histogram: np.ndarray) -> tuple[Curve | None, Area]:
    """True against false positive rate, from (0, 0) to (1, 1), and the area under it by the trapezoidal rule.

    Undefined without lesion, without background, or where all pixels have the same probability.
    """
    if reason := _one_class(histogram):
        return None, Area(None, reason)
    if np.count_nonzero(histogram.sum(0)) == 1:
        return None, Area(None, "all pixels have the same probability")
    x, y, thresholds = metrics.roc_curve(**_weighted(histogram), drop_intermediate=False)
    return Curve(x, y, np.minimum(thresholds, 1.0)), Area(float(metrics.auc(x, y)))  # the first threshold is infinite


def precision_recall(histogram: np.ndarray) -> tuple[Curve | None, Area]:
    """Precision against recall, and the average precision: precision summed over the steps in recall.

    Undefined without lesion, as recall has no denominator.
    """
    if not histogram[1].any():
        return None, Area(None, "no lesion pixel")
    precision, recall, thresholds = metrics.precision_recall_curve(**_weighted(histogram))
    area = float(metrics.average_precision_score(**_weighted(histogram)))
    # the last point, recall 0 at precision 1, has no threshold
    return Curve(recall[-2::-1], precision[-2::-1], thresholds[::-1]), Area(area)


def thinned(curve: Curve, points: int = POINTS) -> Curve:
    """The curve with at most `points` points, its ends included: those nearest to equal steps along its length."""
    if len(curve.x) <= points:
        return curve
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(curve.x), np.diff(curve.y)))])
    wanted = np.linspace(0, travelled[-1], points)
    chosen = np.unique(np.abs(travelled[:, None] - wanted).argmin(0))
    chosen = np.union1d(chosen, [0, len(curve.x) - 1]) if len(chosen) < points else chosen
    return Curve(*(values[chosen] for values in curve))


def _weighted(histogram: np.ndarray) -> dict[str, np.ndarray]:
    """The non-empty cells of a histogram, each as one pixel weighted by its count."""
    actual, q = np.nonzero(histogram)
    return {"y_true": actual, "y_score": q / (LEVELS - 1), "sample_weight": histogram[actual, q]}


def _one_class(histogram: np.ndarray) -> str | None:
    if not histogram[1].any():
        return "no lesion pixel"
    if not histogram[0].any():
        return "no background pixel"
    return None
