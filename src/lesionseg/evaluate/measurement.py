"""Everything that is measured on one image, at the network's resolution and at the original's."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lesionseg.evaluate.boundary import touches_border
from lesionseg.evaluate.histogram import histogram
from lesionseg.evaluate.image_metrics import MaskPair, measure_all
from lesionseg.evaluate.photograph import contrast, hair
from lesionseg.inference import native
from lesionseg.inference.postprocess import Cleaning, cleaned
from lesionseg.scoring.counts import Counts, count


class Truth(NamedTuple):
    """An image and its mask at the network's resolution, and the original mask."""

    image: np.ndarray  # uint8 (H, W, 3) RGB
    mask: np.ndarray  # uint8 (H, W) of 0 and 1
    original: np.ndarray  # uint8 (height, width) of 0 and 1


class Maps(NamedTuple):
    """8-bit probabilities, uint8 (..., H, W): the final ones, and those of the network alone (possibly the same)."""

    final: np.ndarray
    plain: np.ndarray


@dataclass(frozen=True)
class Measurement:
    """What one image contributes to the numbers of its split."""

    counts: Counts  # at the network's resolution
    plain: Counts  # the same without test-time augmentation and post-processing
    plain_native: Counts  # those, at native size
    histogram: np.ndarray  # int64 (2, 256), of the probabilities at the network's resolution
    metrics: dict[str, float]  # of image_metrics.METRICS, by name
    properties: dict[str, float]  # of the image and its masks, for the breakdowns


class Measured(NamedTuple):
    """A measurement and the predicted masks, uint8 of 0 and 1: (H, W), and (height, width) at native size."""

    measurement: Measurement
    predicted: np.ndarray
    predicted_native: np.ndarray


def measure(maps: Maps, truth: Truth, level: int, cleaning: Cleaning) -> Measured:
    """Measure one image: pixels with an 8-bit probability of at least `level` count as lesion, before `cleaning`."""
    final, plain = maps
    predicted, shaped = cleaned(final, level, cleaning)
    original = truth.original
    at_native = native.mask_at(shaped, original.shape, level)
    counts, counts_native = count(predicted, truth.mask), count(at_native, original)
    if cleaning or not np.array_equal(plain, final):
        plain_counts = count(plain >= level, truth.mask)
        plain_native = count(native.mask_at(plain, original.shape, level), original)
    else:
        plain_counts, plain_native = counts, counts_native
    measurement = Measurement(
        counts=counts,
        plain=plain_counts,
        plain_native=plain_native,
        histogram=histogram(final, truth.mask),
        metrics=measure_all(MaskPair(counts, counts_native, at_native, original)),
        properties={
            "lesion_fraction": (counts_native.tp + counts_native.fn) / original.size,
            "predicted_fraction": (counts_native.tp + counts_native.fp) / original.size,
            "touches_border": touches_border(original),
            "contrast": contrast(truth.image, truth.mask),
            "hair": hair(truth.image),
            "width": original.shape[1],
            "height": original.shape[0],
        },
    )
    return Measured(measurement, predicted, at_native)
