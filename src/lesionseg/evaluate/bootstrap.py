"""Bootstrap confidence intervals over images (Efron and Tibshirani 1993, percentile method)."""

from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95
_CHUNK = 1 << 22  # numbers drawn at a time: bounds memory, whatever the number of images


def intervals(
    statistic: Callable[[np.ndarray], np.ndarray], images: int, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The central 95 % of a statistic over resampled sets of images: (low, high), each float (K,).

    `statistic` takes weights float (S, images), how often each image was drawn in each of S resamples, and
    returns (S, K): K figures at once, from the same resamples. A resample in which a figure is undefined (NaN)
    is left out of that figure's interval; a figure that is never defined gets NaN.
    """
    random = np.random.default_rng(seed)
    rows = max(1, _CHUNK // images)
    values = []
    for start in range(0, samples, rows):
        drawn = random.multinomial(images, np.full(images, 1 / images), size=min(rows, samples - start))
        values.append(statistic(drawn.astype(float)))
    drawn_values = np.concatenate(values)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.full((2, drawn_values.shape[1]), np.nan)
    for column, figures in enumerate(drawn_values.T):
        defined = figures[~np.isnan(figures)]
        if len(defined):
            low[column], high[column] = np.quantile(defined, [tail, 1 - tail])
    return low, high
