"""The metrics of one image. Each entry of METRICS appears in detail.json, in per_image.csv and on the page.

To add one, add its entry: its mean and interval then appear in its section of detail.json, its values as a column of
per_image.csv, and both on the page under its label.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import hypot

import numpy as np

from lesionseg.evaluate.boundary import Boundary, compare_boundaries
from lesionseg.scoring import scores
from lesionseg.scoring.counts import Counts


@dataclass
class MaskPair:
    """The predicted and the true mask of one image: what its metrics are computed from."""

    counts: Counts  # pixels at the network's resolution
    native_counts: Counts  # pixels at native size, against the original mask
    predicted: np.ndarray  # uint8 (height, width) of 0 and 1, at native size
    truth: np.ndarray  # the original mask, of the same kind

    @cached_property
    def boundary(self) -> Boundary:
        """The distances between the two outlines at native size."""
        return compare_boundaries(self.predicted, self.truth)

    @property
    def diagonal(self) -> float:
        """Of the original image, in pixels."""
        return hypot(*self.truth.shape)


@dataclass(frozen=True)
class Metric:
    """One number of an image."""

    name: str  # its column in per_image.csv, and its mean in detail.json
    label: str  # on the page
    of: Callable[[MaskPair], float]
    decimals: int = 4  # in per_image.csv
    mean_name: str = ""  # what its mean is called, if not `name`

    @property
    def mean(self) -> str:
        """The name of its mean over images."""
        return self.mean_name or self.name


METRICS: dict[str, tuple[Metric, ...]] = {  # by section of detail.json, which holds their means
    "per_image": (  # at the network's resolution
        Metric("dice", "Dice", lambda image: scores.dice(image.counts)),
        Metric("iou", "IoU", lambda image: scores.iou(image.counts)),
        Metric("precision", "precision", lambda image: scores.precision(image.counts)),
        Metric("recall", "recall", lambda image: scores.recall(image.counts)),
        Metric("specificity", "specificity", lambda image: scores.specificity(image.counts)),
        Metric("accuracy", "accuracy", lambda image: scores.accuracy(image.counts)),
    ),
    "official": (  # at native size, as in ISIC 2018 Task 1
        Metric(
            "threshold_jaccard",
            "threshold Jaccard (ISIC 2018 score)",
            lambda image: scores.threshold_jaccard(image.native_counts),
        ),
        Metric("jaccard_native", "Jaccard at native size", lambda image: scores.iou(image.native_counts)),
        Metric("dice_native", "Dice at native size", lambda image: scores.dice(image.native_counts)),
        Metric(
            "failed",
            "failed: Jaccard below 0.65 (1: yes)",
            lambda image: scores.failed(image.native_counts),
            decimals=0,
            mean_name="failure_rate",
        ),
    ),
    "boundary": (  # at native size
        Metric("hd95", "HD95, px", lambda image: image.boundary.hd95, 2),
        Metric("hd95_relative", "HD95 / diagonal", lambda image: image.boundary.hd95 / image.diagonal),
        Metric(
            "mean_surface_distance",
            "mean surface distance, px",
            lambda image: image.boundary.mean_surface_distance,
            2,
        ),
        Metric(
            "mean_surface_distance_relative",
            "mean surface distance / diagonal",
            lambda image: image.boundary.mean_surface_distance / image.diagonal,
        ),
        Metric(
            "normalised_surface_distance",
            "outline within 1 % of the diagonal",
            lambda image: image.boundary.normalised_surface_distance,
        ),
        Metric("boundary_iou", "boundary IoU", lambda image: image.boundary.boundary_iou),
    ),
}


def labels() -> dict[str, str]:
    """What the page calls the columns of per_image.csv that are metrics."""
    return {metric.name: metric.label for section in METRICS.values() for metric in section}


def measure_all(pair: MaskPair) -> dict[str, float]:
    """Every metric of one image by name."""
    return {metric.name: float(metric.of(pair)) for section in METRICS.values() for metric in section}
