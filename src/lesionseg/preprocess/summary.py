"""The processed data set in numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np

from lesionseg.formats.processed import SPLITS, Sample
from lesionseg.preprocess.dataset import Processed

QUANTILES = {"min": 0, "p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1}
DROPPED_COLUMNS = ("id", "image", "mask", "kind", "reason")
DUPLICATE_COLUMNS = ("id", "other", "kind", "distance", "correlation")


def summarize(processed: Processed) -> dict:
    """Counts for each split that has images, lesion fractions of the native masks, native sizes, duplicates, drops.

    `duplicates` counts among the samples kept; `dropped` counts pairs.
    """
    samples = processed.samples
    splits = {name: [sample for sample in samples if sample.split == name] for name in SPLITS}
    dropped = Counter(kind for _, kind in {(item.pair.id, item.kind) for item in processed.dropped})
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
            "identical_pairs": sum(pair.kind == "identical" for pair in processed.duplicates),
            "near_pairs": sum(pair.kind == "near" for pair in processed.duplicates),
        },
        "dropped": {"invalid": dropped["invalid"], "duplicate_of_official": dropped["duplicate_of_official"]},
    }


def dropped_rows(processed: Processed) -> Iterator[dict]:
    """Rows for a table of `DROPPED_COLUMNS`: one for each reason, sorted by id."""
    for item in processed.dropped:
        yield {
            "id": item.pair.id,
            "image": item.pair.image,
            "mask": item.pair.mask,
            "kind": item.kind,
            "reason": item.reason,
        }


def duplicate_rows(processed: Processed) -> Iterator[dict]:
    """Rows for a table of `DUPLICATE_COLUMNS`: one for each pair found, sorted by id."""
    return (asdict(pair) for pair in processed.duplicates)


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
