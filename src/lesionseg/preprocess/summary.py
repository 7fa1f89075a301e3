"""The processed data set in numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np

from lesionseg.formats.processed import SPLITS, TRAINED, Sample
from lesionseg.preprocess.dataset import DataSet

QUANTILES = {"min": 0, "p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1}
DROPPED_COLUMNS = ("id", "image", "mask", "kind", "reason")
DUPLICATE_COLUMNS = ("id", "other", "kind", "distance", "correlation")


def summarize(data: DataSet) -> dict:
    """Counts for each split that has images, lesion fractions of the native masks, native sizes, duplicates, drops.

    `duplicates` counts among the samples; `dropped` counts pairs.
    """
    samples = data.samples
    splits = {name: [sample for sample in samples if sample.split == name] for name in SPLITS}
    dropped = Counter(kind for _, kind in {(item.pair.id, item.kind) for item in data.dropped})
    sizes = Counter(sample.group for sample in samples)
    groups = [size for size in sizes.values() if size > 1]
    return {
        "images": len(samples),
        "splits": {name: _split(part) for name, part in splits.items() if part},
        "native_size": {
            "width": _quantiles([sample.width for sample in samples], 0),
            "height": _quantiles([sample.height for sample in samples], 0),
            "megapixels": _quantiles([sample.width * sample.height / 1e6 for sample in samples], 3),
            "portrait_images": sum(sample.height > sample.width for sample in samples),
        },
        "duplicates": {
            "groups": len(groups),
            "images": sum(groups),
            "largest_group": max(groups, default=1),
            "identical_pairs": sum(pair.kind == "identical" for pair in data.duplicates),
            "near_pairs": sum(pair.kind == "near" for pair in data.duplicates),
            "held_out_and_trained": _shared(data),
        },
        "dropped": {"invalid": dropped["invalid"], "duplicate_of_training": dropped["duplicate_of_training"]},
    }


def headline(summary: dict) -> dict:
    """The few numbers of a summary that people compare between runs."""
    return {
        "images": {name: split["images"] for name, split in summary["splits"].items()},
        "duplicate_groups": summary["duplicates"]["groups"],
        "dropped": sum(summary["dropped"].values()),
    }


def dropped_rows(data: DataSet) -> Iterator[dict]:
    """Rows for a table of `DROPPED_COLUMNS`: one for each reason, sorted by id."""
    for item in data.dropped:
        yield {
            "id": item.pair.id,
            "image": item.pair.image,
            "mask": item.pair.mask,
            "kind": item.kind,
            "reason": item.reason,
        }


def duplicate_rows(data: DataSet) -> Iterator[dict]:
    """Rows for a table of `DUPLICATE_COLUMNS`: one for each pair found, sorted by id."""
    return (asdict(pair) for pair in data.duplicates)


def _shared(data: DataSet) -> int:
    """The pairs of a held-out and a training image that show the same picture: official sets stay as published."""
    split = {sample.id: sample.split for sample in data.samples}
    ends = ((split.get(pair.id), split.get(pair.other)) for pair in data.duplicates)
    return sum(1 for one, other in ends if one and other and (one in TRAINED) is not (other in TRAINED))


def _split(samples: Sequence[Sample]) -> dict:
    fractions = [sample.lesion_fraction for sample in samples]
    return {
        "images": len(samples),
        "groups": len({sample.group for sample in samples}),
        "empty_masks": sum(fraction == 0 for fraction in fractions),
        "lesion_fraction": {"mean": round(float(np.mean(fractions)), 4)} | _quantiles(fractions, 4),
    }


def _quantiles(values: Sequence[float], digits: int) -> dict[str, float]:
    found = np.quantile(values, list(QUANTILES.values()))
    return {
        name: round(float(value), digits) if digits else round(float(value))
        for name, value in zip(QUANTILES, found, strict=True)
    }
