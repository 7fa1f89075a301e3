"""Everything that is measured on one image, at the network's resolution and at the original's."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lesionseg.evaluate.boundary import Boundary, compare_boundaries, touches_border
from lesionseg.evaluate.histogram import histogram
from lesionseg.inference import native
from lesionseg.inference.postprocess import Cleaning, imprint
from lesionseg.scoring.counts import Counts, count


@dataclass(frozen=True)
class Measurement:
    """What one image contributes to the figures of its split."""

    counts: Counts  # at the network's resolution
    native: Counts  # at native size, against the original mask
    plain: Counts  # both without test-time augmentation and post-processing
    plain_native: Counts
    histogram: np.ndarray  # int64 (2, 256), of the probabilities at the network's resolution
    boundary: Boundary  # at native size
    shape: tuple[int, int]  # native height and width
    touches_border: bool  # the true lesion reaches the edge of the image


def measure(
    probabilities: np.ndarray,
    plain: np.ndarray,
    truth: np.ndarray,
    original: np.ndarray,
    level: int,
    cleaning: Cleaning,
    keep: Callable[[np.ndarray], None] | None = None,
) -> tuple[Measurement, np.ndarray]:
    """Measure one image; also returns its predicted mask, uint8 (H, W) of 0 and 1.

    `probabilities` and `plain` are uint8 (H, W): the final ones, and those of the network alone. `truth` is the
    true mask at that size, `original` the one at native size, uint8 of 0 and 1. A pixel is lesion where its
    8-bit probability is at least `level`. `keep` is handed the predicted mask at native size.
    """
    predicted = (probabilities >= level).view(np.uint8)
    shaped = probabilities
    if cleaning:
        predicted = cleaning(predicted)
        shaped = imprint(probabilities, predicted, level)
    at_native = native.mask_at(shaped, original.shape, level)
    if keep:
        keep(at_native)
    counts, counts_native = count(predicted, truth), count(at_native, original)
    if cleaning or not np.array_equal(plain, probabilities):
        plain_counts = count(plain >= level, truth)
        plain_native = count(native.mask_at(plain, original.shape, level), original)
    else:
        plain_counts, plain_native = counts, counts_native
    measurement = Measurement(
        counts=counts,
        native=counts_native,
        plain=plain_counts,
        plain_native=plain_native,
        histogram=histogram(probabilities, truth),
        boundary=compare_boundaries(at_native, original),
        shape=original.shape,
        touches_border=touches_border(original),
    )
    return measurement, predicted
