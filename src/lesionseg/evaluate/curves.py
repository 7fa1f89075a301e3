"""Precision-recall and ROC curves with their areas, over all pixels, from a histogram of 8-bit probabilities.

The curves pass through every one of the 256 thresholds, so the areas are exact for the stored probabilities.
"""

from typing import NamedTuple

import numpy as np

from lesionseg.evaluate.histogram import LEVELS, counts_by_level
from lesionseg.scoring.counts import Counts

POINTS = 101  # most points of a thinned curve


class Curve(NamedTuple):
    """A curve over falling thresholds: x and y float (points,), and the threshold of each point."""

    x: np.ndarray
    y: np.ndarray
    threshold: np.ndarray


class Area(NamedTuple):
    """An area under a curve, or None with the reason why there is none."""

    value: float | None
    reason: str | None = None


def roc(histogram: np.ndarray) -> tuple[Curve | None, Area]:
    """False against true positive rate, from (0, 0) to (1, 1), and the area under it by trapezoids.

    Undefined without lesion, without background, or where all pixels have one probability, which ranks nothing.
    """
    if reason := _one_class(histogram):
        return None, Area(None, reason)
    if np.count_nonzero(histogram.sum(0)) == 1:
        return None, Area(None, "all pixels have the same probability")
    counts = _falling(histogram)
    x = np.concatenate([[0.0], counts.fp / histogram[0].sum()])
    y = np.concatenate([[0.0], counts.tp / histogram[1].sum()])
    thresholds = np.concatenate([[1.0], _thresholds()])
    return Curve(x, y, thresholds), Area(float(np.trapezoid(y, x)))


def precision_recall(histogram: np.ndarray) -> tuple[Curve | None, Area]:
    """Recall against precision, and the average precision: precision summed over the steps in recall.

    That is scikit-learn's `average_precision_score`. Undefined without lesion: recall has no denominator.
    """
    if not histogram[1].any():
        return None, Area(None, "no lesion pixel")
    counts = _falling(histogram)
    predicted = counts.tp + counts.fp
    some = predicted > 0  # above the highest probability precision has no denominator
    recall = counts.tp[some] / histogram[1].sum()
    precision = counts.tp[some] / predicted[some]
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return Curve(recall, precision, _thresholds()[some]), Area(area)


def thinned(curve: Curve, points: int = POINTS) -> Curve:
    """The curve with at most `points` points: those nearest to equal steps along its length, ends included."""
    if len(curve.x) <= points:
        return curve
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(curve.x), np.diff(curve.y)))])
    wanted = np.linspace(0, travelled[-1], points)
    kept = np.unique(np.abs(travelled[:, None] - wanted).argmin(0))
    kept = np.union1d(kept, [0, len(curve.x) - 1]) if len(kept) < points else kept
    return Curve(*(values[kept] for values in curve))


def _falling(histogram: np.ndarray) -> Counts:
    """Counts at every level, from the highest threshold to the lowest."""
    return Counts(*(values[::-1] for values in counts_by_level(histogram)))


def _thresholds() -> np.ndarray:
    return np.arange(LEVELS)[::-1] / (LEVELS - 1)


def _one_class(histogram: np.ndarray) -> str | None:
    if not histogram[1].any():
        return "no lesion pixel"
    if not histogram[0].any():
        return "no background pixel"
    return None
