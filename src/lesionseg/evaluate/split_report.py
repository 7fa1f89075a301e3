"""The figures of one split: measurements of its images in, numbers and table rows out."""

from collections.abc import Callable
from math import hypot

import numpy as np

from lesionseg.evaluate import curves
from lesionseg.evaluate.calibration import BINS, brier_score, reliability
from lesionseg.evaluate.measurement import Measurement
from lesionseg.evaluate.sweep import Sweep
from lesionseg.scoring import scores
from lesionseg.scoring.bootstrap import Resampling, intervals, mean_intervals, too_few, weighted_means
from lesionseg.scoring.counts import Counts

SMALL, LARGE = 0.05, 0.25  # lesion share of the image: below small, from `LARGE` on large, medium between
_AVERAGED = ("dice", "iou", "precision", "recall", "specificity", "accuracy")
_BOUNDARY = (
    "hd95",
    "hd95_relative",
    "mean_surface_distance",
    "mean_surface_distance_relative",
    "normalised_surface_distance",
    "boundary_iou",
)

Figures = dict[str, float | int | str | None]

COMPARED = {  # the figures of a split that a person compares between runs: metrics/evaluation.json
    "pooled": ("dice", "iou", "precision", "recall"),
    "per_image": ("dice", "iou"),
    "official": ("threshold_jaccard", "failure_rate"),
    "boundary": ("hd95",),
    "calibration": ("expected_calibration_error",),
}


def compared(figures: dict) -> dict:
    """The few of a split's figures that are worth a column where runs are compared."""
    groups = {group: {name: figures[group][name] for name in names} for group, names in COMPARED.items()}
    return {"images": figures["images"], "threshold": figures["threshold"], **groups}


class SplitReport:
    """Collects the measurements of a split: a few numbers an image, and one histogram for all of them.

    `threshold` and `threshold_from` are reported as they are; `postprocessed` tells whether anything was done to the
    network's own masks, so that the figures without it are worth reporting.
    """

    def __init__(self, threshold: float = 0.5, threshold_from: str = "fixed", postprocessed: bool = False) -> None:
        self._threshold = {"threshold": threshold, "threshold_from": threshold_from}
        self._postprocessed = postprocessed
        self.sweep = Sweep()
        self._ids: list[str] = []
        self._counts: dict[str, list[Counts]] = {name: [] for name in ("final", "native", "plain", "plain_native")}
        self._rows: list[dict[str, float]] = []

    def add(self, name: str, measured: Measurement) -> None:
        """Add the image called `name`."""
        self._ids.append(name)
        self.sweep.add(measured.histogram)
        self._counts["final"].append(measured.counts)
        self._counts["native"].append(measured.native)
        self._counts["plain"].append(measured.plain)
        self._counts["plain_native"].append(measured.plain_native)
        height, width = measured.shape
        diagonal, pixels, native = hypot(height, width), height * width, measured.native
        boundary = measured.boundary
        hd95, mean = boundary.hd95, boundary.mean_surface_distance
        self._rows.append(
            {
                "width": width,
                "height": height,
                "lesion_fraction": (native.tp + native.fn) / pixels,
                "predicted_fraction": (native.tp + native.fp) / pixels,
                "touches_border": measured.touches_border,
                "hd95": hd95,
                "hd95_relative": hd95 / diagonal,
                "mean_surface_distance": mean,
                "mean_surface_distance_relative": mean / diagonal,
                "normalised_surface_distance": boundary.normalised_surface_distance,
                "boundary_iou": boundary.boundary_iou,
            }
        )

    def headline(self, samples: int, seed: int) -> dict:
        """The figures of metrics/evaluation.json; intervals from `samples` bootstrap resamples seeded with `seed`."""
        pooled = self._counts_of("final").pooled()
        histogram = self.sweep.histogram
        values, defined = self._per_image(), self._interval(samples, seed)
        figures = {"images": len(self._ids), **self._threshold}
        if reason := too_few(self._ids):
            figures["no_interval"] = reason
        figures |= {"pooled": {}, "per_image": {}, "official": {}}
        for name in _AVERAGED:
            figures["pooled"] |= defined(f"pooled.{name}", scores.OVERLAP[name](pooled))
            figures["per_image"] |= defined(f"per_image.{name}", values[name].mean())
        for name in ("threshold_jaccard", "jaccard", "dice", "failure_rate"):
            figures["official"] |= defined(f"official.{name}", values[f"official.{name}"].mean())
        figures["boundary"] = {name: _mean(values[name]) for name in _BOUNDARY}
        figures["boundary"]["missed_lesions"] = int(
            np.sum((values["lesion_fraction"] > 0) & (values["predicted_fraction"] == 0))
        )
        figures["areas"] = {}
        for name, curve in (("average_precision", curves.precision_recall), ("roc_auc", curves.roc)):
            _, area = curve(histogram)
            figures["areas"][name] = _rounded(area.value)
            if area.reason:
                figures["areas"][f"{name}_reason"] = area.reason
        error = reliability(histogram).expected_calibration_error
        figures["calibration"] = {"expected_calibration_error": _rounded(error)}
        figures["confusion"] = pooled._asdict()
        if self._postprocessed:
            figures["without_postprocessing"] = self._without_postprocessing()
        return figures

    def detail(self, samples: int, seed: int) -> dict:
        """The breakdowns, and what is too long for the headline file."""
        values = self._per_image()
        size, touching = values["lesion_fraction"], values["touches_border"].astype(bool)
        boundary = {name: values[name] for name in _BOUNDARY}
        histogram = self.sweep.histogram
        return {
            "by_size": {
                "small": self._group(values, size < SMALL) | {"lesion_fraction_below": SMALL},
                "medium": self._group(values, (size >= SMALL) & (size < LARGE)),
                "large": self._group(values, size >= LARGE) | {"lesion_fraction_from": LARGE},
            },
            "by_border": {
                "inside": self._group(values, ~touching),
                "touching": self._group(values, touching),
            },
            "boundary": {
                **self._means_with_intervals(boundary, samples, seed),
                "hd95_median": _rounded(np.median(values["hd95"])),
            },
            "calibration": {"bins": BINS, "brier_score": _rounded(brier_score(histogram))},
        } | ({"postprocessing_effect": self._effect(samples, seed)} if self._postprocessed else {})

    def table(self) -> list[dict]:
        """One row an image: its scores at the network's resolution, and what was measured at native size."""
        values = self._per_image()
        return [
            {
                "id": name,
                **{score: _short(values[score][index]) for score in ("dice", "iou", "precision", "recall")},
                "jaccard_native": _short(values["official.jaccard"][index]),
                "dice_native": _short(values["official.dice"][index]),
                "hd95": _short(values["hd95"][index], 2),
                "mean_surface_distance": _short(values["mean_surface_distance"][index], 2),
                "lesion_fraction": _short(values["lesion_fraction"][index], 6),
                "predicted_fraction": _short(values["predicted_fraction"][index], 6),
                "touches_border": int(values["touches_border"][index]),
                "width": int(values["width"][index]),
                "height": int(values["height"][index]),
            }
            for index, name in enumerate(self._ids)
        ]

    def confusion(self) -> list[tuple[str, str, int]]:
        """(actual, predicted, count) of the pixels of all images, at the network's resolution."""
        counts = self._counts_of("final").pooled()
        return [
            ("lesion", "lesion", counts.tp),
            ("lesion", "background", counts.fn),
            ("background", "lesion", counts.fp),
            ("background", "background", counts.tn),
        ]

    def _without_postprocessing(self) -> dict:
        """Some of the same figures for the network's own masks: no augmentation at test time, no post-processing."""
        counts, native = self._counts_of("plain"), self._counts_of("plain_native")
        return {
            "pooled": {name: _rounded(scores.OVERLAP[name](counts.pooled())) for name in ("dice", "iou")},
            "per_image": {name: _mean(scores.OVERLAP[name](counts)) for name in ("dice", "iou")},
            "official": {
                "threshold_jaccard": _mean(scores.threshold_jaccard(native)),
                "jaccard": _mean(scores.iou(native)),
            },
        }

    def _effect(self, samples: int, seed: int) -> Figures:
        """What post-processing changed, image by image, with the interval of the mean change."""
        values, plain, plain_native = self._per_image(), self._counts_of("plain"), self._counts_of("plain_native")
        return self._means_with_intervals(
            {
                "per_image_dice": values["dice"] - scores.dice(plain),
                "per_image_iou": values["iou"] - scores.iou(plain),
                "official_threshold_jaccard": values["official.threshold_jaccard"]
                - scores.threshold_jaccard(plain_native),
            },
            samples,
            seed,
        )

    def _counts_of(self, which: str) -> Counts:
        return Counts.of(np.array(self._counts[which], np.int64))

    def _per_image(self) -> dict[str, np.ndarray]:
        """Every figure of every image: float (images,), NaN where undefined."""
        counts, native = self._counts_of("final"), self._counts_of("native")
        return {
            **{name: score(counts) for name, score in scores.OVERLAP.items()},
            "official.threshold_jaccard": scores.threshold_jaccard(native),
            "official.jaccard": scores.iou(native),
            "official.dice": scores.dice(native),
            "official.failure_rate": scores.failed(native),
            **{name: np.array([row[name] for row in self._rows], float) for name in self._rows[0]},
        }

    def _interval(self, samples: int, seed: int) -> Callable[[str, float], Figures]:
        """A function that sets a figure beside its interval, where it is one of the headline figures."""
        values = self._per_image()
        table = np.array(self._counts["final"], float)
        means = {f"per_image.{name}": values[name] for name in ("dice", "iou")}
        means |= {name: values[name] for name in ("official.threshold_jaccard", "official.jaccard")}

        def statistic(weights: np.ndarray) -> np.ndarray:
            pooled = Counts.of(weights @ table)
            averaged = weighted_means(means.values())(weights)
            return np.column_stack([scores.dice(pooled), scores.iou(pooled), averaged])

        low, high = intervals(statistic, self._ids, Resampling(samples, seed))
        column = {name: index for index, name in enumerate(["pooled.dice", "pooled.iou", *means])}

        def figure(name: str, value: float) -> Figures:
            key = name.split(".")[1]
            if name not in column:
                return {key: _rounded(value)}
            index = column[name]
            return {key: _rounded(value), f"{key}_low": _rounded(low[index]), f"{key}_high": _rounded(high[index])}

        return figure

    def _means_with_intervals(self, columns: dict[str, np.ndarray], samples: int, seed: int) -> Figures:
        """Means over the images where a figure is defined, each with its bootstrap interval beside it."""
        ends = mean_intervals(columns, self._ids, Resampling(samples, seed))
        figures: Figures = {}
        for name, values in columns.items():
            low, high = map(_rounded, ends[name])
            figures |= {name: _mean(values), f"{name}_low": low, f"{name}_high": high}
        return figures

    @staticmethod
    def _group(values: dict[str, np.ndarray], members: np.ndarray) -> Figures:
        """Means over the images of one group; null for a group without images."""
        names = {
            **{name: name for name in ("dice", "iou", "precision", "recall")},
            "jaccard_native": "official.jaccard",
            "threshold_jaccard": "official.threshold_jaccard",
            "failure_rate": "official.failure_rate",
            "hd95": "hd95",
            "hd95_relative": "hd95_relative",
        }
        return {"images": int(members.sum())} | {key: _mean(values[name][members]) for key, name in names.items()}


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return _rounded(defined.mean()) if len(defined) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 6)


def _short(value: float, digits: int = 4) -> str:
    """A number for the table: empty where undefined."""
    return "" if np.isnan(value) else f"{value:.{digits}f}"
