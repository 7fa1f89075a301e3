"""Scores at every threshold, and the choice of the best."""

import numpy as np

from lesionseg.evaluate.histogram import LEVELS, counts_by_level
from lesionseg.formats.evaluation_tables import CURVES
from lesionseg.inference.settings import level
from lesionseg.scoring import scores

THRESHOLDS = tuple(round(step / 100, 2) for step in range(1, 100))  # those tried and plotted
COLUMNS = CURVES["thresholds"][1:]  # without the split


class Sweep:
    """Adds up, image by image, what the scores at every threshold need: 6 KB for any number of images."""

    def __init__(self) -> None:
        self.images = 0
        self.histogram = np.zeros((2, LEVELS), np.int64)
        self._dice, self._iou = np.zeros(LEVELS), np.zeros(LEVELS)  # sums over images

    def add(self, histogram: np.ndarray) -> None:
        """Add one image's histogram of probabilities, int64 (2, 256)."""
        counts = counts_by_level(histogram)
        self.images += 1
        self.histogram += histogram
        self._dice += scores.dice(counts)
        self._iou += scores.iou(counts)

    def rows(self) -> list[tuple[float, ...]]:
        """For each of THRESHOLDS a row of COLUMNS: pooled scores, then Dice and IoU as means over images."""
        levels = [level(threshold) for threshold in THRESHOLDS]
        counts = counts_by_level(self.histogram)
        pooled = [score(counts)[levels] for score in (scores.dice, scores.iou, scores.precision, scores.recall)]
        averaged = [self._dice[levels] / self.images, self._iou[levels] / self.images]
        return list(zip(THRESHOLDS, *(map(float, values) for values in (*pooled, *averaged)), strict=True))

    def best(self) -> float:
        """The threshold with the highest mean Dice over images; of equal ones, the one nearest to 0.5."""
        dice = {threshold: self._dice[level(threshold)] / self.images for threshold in THRESHOLDS}
        return max(THRESHOLDS, key=lambda threshold: (round(dice[threshold], 9), -abs(threshold - 0.5)))
