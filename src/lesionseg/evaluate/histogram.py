"""Histograms of 8-bit probabilities, separate for lesion and background: all that curves over thresholds need.

A histogram is int64 (2, 256): row 0 the pixels that are background in truth, row 1 those that are lesion; column
q counts the pixels whose probability is q / 255. Histograms add up over images, so a data set of any size takes 4 KB,
without loss: probabilities are stored with 8 bits.
"""

import numpy as np

from lesionseg.scoring.counts import Counts

LEVELS = 256


def histogram(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count the pixels of one image: uint8 probabilities (H, W) and a mask (H, W) of 0 and 1 -> int64 (2, 256)."""
    if probabilities.shape != truth.shape:
        raise ValueError(f"probabilities {probabilities.shape} and true mask {truth.shape} differ in shape")
    cells = probabilities.astype(np.uint16)
    cells[truth != 0] += LEVELS
    return np.bincount(cells.ravel(), minlength=2 * LEVELS).reshape(2, LEVELS)


def counts_by_level(histograms: np.ndarray) -> Counts:
    """Pixel counts for every threshold at once: int64 (..., 2, 256) -> Counts of arrays (..., 256).

    In entry q, pixels whose 8-bit probability is at least q count as lesion.
    """
    from_above = np.cumsum(histograms[..., ::-1], axis=-1)[..., ::-1]
    fp, tp = from_above[..., 0, :], from_above[..., 1, :]
    background, lesion = from_above[..., 0, :1], from_above[..., 1, :1]
    return Counts(tp=tp, fp=fp, fn=lesion - tp, tn=background - fp)
