"""Bootstrap confidence intervals: how far a score would move with other images of the same kind.

Duplicate groups are drawn with replacement, each with all its images: two photographs of one lesion are not
independent, and drawing them separately makes the intervals too narrow (where every lesion has two, a nominal 95 %
covers 83 %). An image without duplicates is a group of its own.

The interval is the expanded percentile interval (Hesterberg 2015, doi 10.1080/00031305.2015.1089789): the quantiles of
the resampled scores, taken farther out by as much as Student's t exceeds the normal distribution, as plain percentiles
are too narrow for few images. With fewer than `FEWEST` groups even that is unreliable, and there is no interval.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
FEWEST = 10  # groups
_CHUNK = 1 << 22  # numbers drawn at a time: bounds memory for any number of images

# From weights float (S, images), how often each of S resamples contains each image, to K scores each: float (S, K).
Statistic = Callable[[np.ndarray], np.ndarray]


class Resampling(NamedTuple):
    """How to resample: the number of resamples, their seed, and the confidence level of the interval."""

    samples: int
    seed: int
    confidence: float = CONFIDENCE

    def split_between(self, comparisons: int) -> "Resampling":
        """The same for several comparisons at once, whose intervals together hold with at least `confidence`.

        Bonferroni's correction: the error allowed is divided between the intervals.
        """
        return self._replace(confidence=1 - (1 - self.confidence) / comparisons)


class Intervals(NamedTuple):
    """The two ends of K intervals, float (K,) each; NaN where there is none."""

    low: np.ndarray
    high: np.ndarray


def intervals(statistic: Statistic, groups: Sequence[str], resampling: Resampling) -> Intervals:
    """The intervals of K scores, all from the same resamples; `groups` (images,) names the group of each image.

    A resample in which a score is undefined (NaN) is left out of that score's interval; a score that is never defined
    has no interval, and with fewer than `FEWEST` groups none has one: `too_few` says so in words.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if too_few(groups):
        scores = statistic(np.ones((1, len(group)))).shape[1]
        return Intervals(*np.full((2, scores), np.nan))
    random = np.random.default_rng(resampling.seed)
    rows = max(1, _CHUNK // len(group))
    resampled = []
    for start in range(0, resampling.samples, rows):
        size = min(rows, resampling.samples - start)
        drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        resampled.append(statistic(drawn[:, group].astype(float)))
    tail = _tail(len(names), resampling.confidence)
    ends = [_quantiles(values, tail) for values in np.concatenate(resampled).T]
    return Intervals(*np.array(ends).reshape(-1, 2).T)


def mean_intervals(
    columns: Mapping[str, np.ndarray], groups: Sequence[str], resampling: Resampling
) -> dict[str, tuple[float, float]]:
    """The interval of the mean of each column, float (images,), over the images where it is defined (not NaN).

    A column that is defined in fewer than `FEWEST` groups has no interval: NaN. For the mean difference of two
    networks on the same images, pass the differences: that is the paired interval.
    """
    low, high = intervals(weighted_means(columns.values()), groups, resampling)
    ends = {}
    for index, (name, values) in enumerate(columns.items()):
        none = too_few(np.asarray(groups)[~np.isnan(values)])
        ends[name] = (np.nan, np.nan) if none else (float(low[index]), float(high[index]))
    return ends


def weighted_means(columns: Iterable[np.ndarray]) -> Statistic:
    """The statistic of K means: of each column, float (images,), over the images where it is defined."""
    table = np.column_stack(list(columns))
    known = ~np.isnan(table)
    table = np.where(known, table, 0.0)

    def means(weights: np.ndarray) -> np.ndarray:
        total, drawn = weights @ table, weights @ known.astype(float)
        return np.divide(total, drawn, out=np.full_like(total, np.nan), where=drawn > 0)

    return means


def too_few(groups: Sequence[str]) -> str | None:
    """Why these images give no interval; None if they do."""
    different = len(set(map(str, groups)))
    if different >= FEWEST:
        return None
    found = "1 image" if different == 1 else f"{different} images"
    return f"{found} (duplicates counted once), and an interval needs {FEWEST}"


def _tail(groups: int, confidence: float) -> float:
    """The share of the resampled scores beyond each end of the interval."""
    t = stats.t.ppf((1 + confidence) / 2, groups - 1)
    return float(stats.norm.sf(t * np.sqrt(groups / (groups - 1))))


def _quantiles(values: np.ndarray, tail: float) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
