"""How far predicted probabilities are from observed frequencies over all pixels, from a histogram."""

from dataclasses import dataclass

import numpy as np

from lesionseg.evaluate.histogram import LEVELS

BINS = 15  # as in Guo et al. 2017 (arXiv 1706.04599)


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram: each array has one entry per non-empty bin, in rising order."""

    predicted: np.ndarray  # mean predicted probability of the bin's pixels
    observed: np.ndarray  # share of the bin's pixels that are lesion
    pixels: np.ndarray  # int64

    @property
    def expected_calibration_error(self) -> float:
        """Mean absolute gap between observed and predicted, weighted by pixels (ECE)."""
        return float(np.average(np.abs(self.observed - self.predicted), weights=self.pixels))

    def rows(self) -> list[tuple[float, float, int]]:
        """(predicted, observed, pixels) of each bin."""
        return list(zip(map(float, self.predicted), map(float, self.observed), map(int, self.pixels), strict=True))


def reliability(histogram: np.ndarray, bins: int = BINS) -> Reliability:
    """Bin the pixels of a histogram, int64 (2, 256), by probability into `bins` of equal width."""
    probability = np.arange(LEVELS) / (LEVELS - 1)
    # bin m holds (m / bins, (m + 1) / bins], the first also 0; in integers, so that the edges are exact
    bin_of = np.maximum(-(-np.arange(LEVELS) * bins // (LEVELS - 1)) - 1, 0)
    pixels = np.bincount(bin_of, histogram.sum(0), bins)
    lesion = np.bincount(bin_of, histogram[1], bins)
    total = np.bincount(bin_of, histogram.sum(0) * probability, bins)
    filled = pixels > 0
    return Reliability(
        predicted=total[filled] / pixels[filled],
        observed=lesion[filled] / pixels[filled],
        pixels=pixels[filled].astype(np.int64),
    )


def brier_score(histogram: np.ndarray) -> float:
    """Mean squared difference between probability and truth (0 or 1), over all pixels."""
    probability = np.arange(LEVELS) / (LEVELS - 1)
    squared = histogram[0] * probability**2 + histogram[1] * (1 - probability) ** 2
    return float(squared.sum() / histogram.sum())
