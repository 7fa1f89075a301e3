"""The scores of one split: from the measurements of its images to means, intervals and table rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from lesionseg.evaluate import curves
from lesionseg.evaluate.breakdowns import CUTS, by_metadata, by_property
from lesionseg.evaluate.calibration import BINS, brier_score, reliability
from lesionseg.evaluate.image_metrics import METRICS
from lesionseg.evaluate.measurement import Measurement
from lesionseg.evaluate.sweep import Sweep
from lesionseg.inference.postprocess import Cleaning
from lesionseg.scoring import scores
from lesionseg.scoring.bootstrap import Resampling, intervals, mean_intervals, too_few
from lesionseg.scoring.counts import Counts

Numbers = dict[str, float | int | str | None]

COMPARED = {  # the part of detail.json that people compare between runs: metrics/evaluation.json
    "pooled": ("dice", "iou", "precision", "recall"),
    "per_image": ("dice", "iou"),
    "official": ("threshold_jaccard", "failure_rate"),
    "boundary": ("hd95", "missed_lesions"),
    "calibration": ("expected_calibration_error",),
}
IN_BREAKDOWNS = ("dice", "iou", "precision", "recall", "threshold_jaccard", "failed", "hd95")
PROPERTY_DECIMALS = {  # for the columns of per_image.csv that are not metrics
    "lesion_fraction": 6,
    "predicted_fraction": 6,
    "touches_border": 0,
    "contrast": 1,
    "hair": 4,
    "width": 0,
    "height": 0,
}


def compared(detail: Mapping) -> dict:
    """The few numbers of a split that are worth comparing between runs."""
    sections = {section: {name: detail[section][name] for name in names} for section, names in COMPARED.items()}
    said = {name: detail[name] for name in ("images", "threshold", "chosen_on") if name in detail}
    return {**said, **sections}


def chosen_by_val(trained: Mapping) -> str | None:
    """What training chose by the scores of `val`, from the metadata of the weights; None if nothing."""
    choices = []
    if trained.get("train.keep") == "best":
        choices.append("the epoch (train.keep: best)")
    if trained.get("train.early_stopping") is not None:
        choices.append("when to stop (train.early_stopping)")
    return " and ".join(choices) or None


@dataclass(frozen=True)
class Setting:
    """The settings that a split is scored with, and what qualifies its scores."""

    threshold: float = 0.5
    threshold_from: str = "fixed"  # the split that the threshold was chosen on
    cleaning: Cleaning = field(default_factory=Cleaning)  # of the thresholded masks
    refined: bool = False  # whether the probabilities differ from the network's own
    chosen_on: str | None = None  # what was chosen by the scores of this very split, which makes them optimistic

    @property
    def postprocessed(self) -> bool:
        """Whether anything was done to the network's own masks."""
        return self.refined or bool(self.cleaning)


class SplitScores:
    """Collects the measurements of a split: a few numbers per image, and one histogram for all images."""

    def __init__(self, setting: Setting = Setting()) -> None:
        self._setting = setting
        self.sweep = Sweep()
        self._ids: list[str] = []
        self._groups: list[str] = []
        self._counts: dict[str, list[Counts]] = {"final": [], "plain": [], "plain_native": []}
        self._metrics: list[np.ndarray] = []
        self._properties: list[np.ndarray] = []

    def add(self, name: str, group: str, measured: Measurement) -> None:
        """Add the image called `name`, which belongs to the duplicate group `group`."""
        self._ids.append(name)
        self._groups.append(group)
        self.sweep.add(measured.histogram)
        self._counts["final"].append(measured.counts)
        self._counts["plain"].append(measured.plain)
        self._counts["plain_native"].append(measured.plain_native)
        self._metrics.append(np.array(list(measured.metrics.values()), float))
        self._properties.append(np.array([measured.properties[name] for name in PROPERTY_DECIMALS], float))

    def detail(self, resampling: Resampling, metadata: Mapping[str, Mapping[str, str]]) -> dict:
        """All results of the split; means and pooled scores have intervals.

        `metadata` maps ids to columns; each column gives a breakdown.
        """
        setting, values = self._setting, self._values()
        said = {"images": len(self._ids), "threshold": setting.threshold, "threshold_from": setting.threshold_from}
        if setting.chosen_on:
            said["chosen_on"] = setting.chosen_on
        if reason := too_few(self._groups):
            said["no_interval"] = reason
        every = np.ones(len(self._ids), bool)
        sections = {
            section: self._means([metric.name for metric in metrics], every, resampling)
            for section, metrics in METRICS.items()
        }
        sections["boundary"] |= self._empty_masks()
        return {
            **said,
            "pooled": self._pooled(resampling),
            **sections,
            **self._over_all_pixels(),
            **(self._postprocessing(resampling) if setting.postprocessed else {}),
            **self._breakdowns(values, metadata, resampling),
        }

    def table(self) -> list[dict]:
        """One row per image: its metrics, its pixel counts at the network's resolution, and its properties."""
        values, counts = self._values(), self._counts_of("final")
        decimals = {metric.name: metric.decimals for metrics in METRICS.values() for metric in metrics}
        return [
            {
                "id": name,
                **{metric: _short(values[metric][index], digits) for metric, digits in decimals.items()},
                "group": self._groups[index],
                **{count: int(number[index]) for count, number in counts._asdict().items()},
                **{key: _short(values[key][index], digits) for key, digits in PROPERTY_DECIMALS.items()},
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

    def _pooled(self, resampling: Resampling) -> Numbers:
        """The overlap scores of the pixels of all images taken together, with intervals over images."""
        table = np.array(self._counts["final"], float)

        def statistic(weights: np.ndarray) -> np.ndarray:
            counts = Counts.of(weights @ table)
            return np.column_stack([score(counts) for score in scores.OVERLAP.values()])

        ends = zip(*intervals(statistic, self._groups, resampling), strict=True)
        pooled = self._counts_of("final").pooled()
        return _join(
            _with_interval(name, score(pooled), *between)
            for (name, score), between in zip(scores.OVERLAP.items(), ends, strict=True)
        )

    def _means(self, names: Iterable[str], members: np.ndarray, resampling: Resampling) -> Numbers:
        """The means of metrics over the images `members`, bool (images,), with their intervals."""
        values = self._values()
        columns = {name: values[name][members] for name in names}
        groups = np.array(self._groups)[members]
        ends = mean_intervals(columns, groups, resampling) if len(groups) else dict.fromkeys(columns, (np.nan, np.nan))
        named = {metric.name: metric.mean for metrics in METRICS.values() for metric in metrics}
        return _join(_with_interval(named[name], _mean(column), *ends[name]) for name, column in columns.items())

    def _empty_masks(self) -> Numbers:
        """Median HD95, and how many lesions were missed or invented: their distances are the diagonal by definition."""
        values = self._values()
        lesion, predicted = values["lesion_fraction"] > 0, values["predicted_fraction"] > 0
        return {
            "hd95_median": _rounded(np.median(values["hd95"])),
            "missed_lesions": int(np.sum(lesion & ~predicted)),
            "invented_lesions": int(np.sum(~lesion & predicted)),
        }

    def _over_all_pixels(self) -> dict[str, Numbers]:
        """The scores that depend on no threshold, from the histogram of all pixels, and the confusion matrix."""
        histogram = self.sweep.histogram
        areas: Numbers = {}
        for name, curve in (("average_precision", curves.precision_recall), ("roc_auc", curves.roc)):
            _, area = curve(histogram)
            areas[name] = _rounded(area.value)
            if area.reason:
                areas[f"{name}_reason"] = area.reason
        error = reliability(histogram).expected_calibration_error
        return {
            "areas": areas,
            "calibration": {
                "expected_calibration_error": _rounded(error),
                "bins": BINS,
                "brier_score": _rounded(brier_score(histogram)),
            },
            "confusion": self._counts_of("final").pooled()._asdict(),
        }

    def _postprocessing(self, resampling: Resampling) -> dict[str, dict]:
        """The scores of the network's own masks, and what test-time augmentation and post-processing changed.

        A change is the mean difference over images; its interval is Bonferroni-corrected for the number of changes.
        """
        values, plain, plain_native = self._values(), self._counts_of("plain"), self._counts_of("plain_native")
        alone = {
            "dice": scores.dice(plain),
            "iou": scores.iou(plain),
            "threshold_jaccard": scores.threshold_jaccard(plain_native),
        }
        changes = {name: values[name] - column for name, column in alone.items()}
        ends = mean_intervals(changes, self._groups, resampling.split_between(len(changes)))
        effect: Numbers = {"comparisons": len(changes)}
        for name, change in changes.items():
            effect |= _with_interval(name, change.mean(), *ends[name]) | {f"{name}_verdict": _verdict(*ends[name])}
        return {
            "without_postprocessing": {
                "pooled": {name: _rounded(scores.OVERLAP[name](plain.pooled())) for name in ("dice", "iou")},
                "per_image": {name: _mean(alone[name]) for name in ("dice", "iou")},
                "official": {
                    "threshold_jaccard": _mean(alone["threshold_jaccard"]),
                    "jaccard_native": _mean(scores.iou(plain_native)),
                },
            },
            "postprocessing_effect": effect,
        }

    def _breakdowns(
        self, values: Mapping[str, np.ndarray], metadata: Mapping[str, Mapping[str, str]], resampling: Resampling
    ) -> dict[str, dict[str, Numbers]]:
        """The number of images in each group, and their mean scores."""
        limits = {cut.name: cut.limits for cut in CUTS}
        found = {}
        for name, groups in (by_property(values) | by_metadata(self._ids, metadata)).items():
            found[name] = {
                group: {"images": int(members.sum())} | self._means(IN_BREAKDOWNS, members, resampling)
                for group, members in groups.items()
            }
            for group, limit in list(limits.get(name, {}).items())[1:]:
                found[name][group]["from"] = limit
        return found

    def _counts_of(self, which: str) -> Counts:
        return Counts.of(np.array(self._counts[which], np.int64))

    def _values(self) -> dict[str, np.ndarray]:
        """Every metric and property of every image: float (images,), NaN where undefined."""
        names = [metric.name for metrics in METRICS.values() for metric in metrics]
        metrics, properties = np.array(self._metrics), np.array(self._properties)
        return dict(zip([*names, *PROPERTY_DECIMALS], [*metrics.T, *properties.T], strict=True))


def _with_interval(name: str, value: float | None, low: float, high: float) -> Numbers:
    return {name: _rounded(value), f"{name}_low": _rounded(low), f"{name}_high": _rounded(high)}


def _join(parts: Iterable[Numbers]) -> Numbers:
    return {name: value for part in parts for name, value in part.items()}


def _verdict(low: float, high: float) -> str:
    """A mean change in words, by its interval."""
    if np.isnan(low):
        return "too few images to tell"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "no difference beyond chance"


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return _rounded(defined.mean()) if len(defined) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 6)


def _short(value: float, digits: int) -> str:
    """A number for the table; empty where undefined."""
    return "" if np.isnan(value) else f"{value:.{digits}f}"
