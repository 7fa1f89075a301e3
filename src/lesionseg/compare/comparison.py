"""What changed from run A to run B on the images both were evaluated on, and whether that is more than noise.

The interval of a difference is paired: images (whole duplicate groups) are resampled, and each resample gives both
runs the same images. What makes an image hard for both runs then cancels out, so that far smaller differences show
than by checking whether two separate intervals overlap.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lesionseg.compare.table import COUNTS, IDENTITY, ImageTable
from lesionseg.scoring import scores
from lesionseg.scoring.bootstrap import Resampling, intervals, too_few
from lesionseg.scoring.counts import Counts

BETTER, WORSE, NOISE, EQUAL, UNKNOWN = "better", "worse", "within noise", "equal", "no interval"
POOLED = ("dice", "iou", "precision", "recall")

Key = tuple[str, str]  # split, id
Score = Callable[[np.ndarray], np.ndarray]  # weights float (S, images) -> the score in each resample, float (S,)


class Difference(NamedTuple):
    """One score of one split on the shared images: A's, B's, and the 95 % interval of B - A (NaN: none)."""

    split: str
    score: str
    a: float
    b: float
    low: float
    high: float
    word: str

    @property
    def change(self) -> float:
        return self.b - self.a


class Comparison(NamedTuple):
    """The differences, the number of shared images of each split, and notes that a reader should know."""

    differences: list[Difference]
    images: dict[str, int]
    notes: list[str]


def compare(
    a: ImageTable, b: ImageTable, resampling: Resampling, trained_on: dict[str, set[str] | None] | None = None
) -> Comparison:
    """Compare two per-image tables.

    Only images that are in the same split of both, with the same photograph and true mask, count. `trained_on` maps a
    table's name to the ids that its run was trained on (train and val), None if unknown; held-out images among them are
    left out and named, since a network scores too well on images it was fitted to.
    """
    shared, notes = _shared(a, b, trained_on or {})
    differences: list[Difference] = []
    images: dict[str, int] = {}
    for split, keys in shared.items():
        images[split] = len(keys)
        if keys:
            differences += _differences(split, a, b, keys, resampling)
            if reason := too_few(_groups(a, b, keys)):
                notes.append(f"{split}: no intervals: {reason}.")
    return Comparison(differences, images, notes)


def _shared(
    a: ImageTable, b: ImageTable, trained_on: dict[str, set[str] | None]
) -> tuple[dict[str, list[Key]], list[str]]:
    """The comparable images of each split that either run was evaluated on, and notes on what was left out."""
    shared: dict[str, list[Key]] = {}
    notes = []
    for split in dict.fromkeys([*a.splits(), *b.splits()]):
        ids, others = a.ids(split), set(b.ids(split))
        both = [(split, name) for name in ids if name in others]
        same = [key for key in both if _same_image(a, b, key)]
        comparable = same
        for table in (a, b):
            known = trained_on.get(table.name)
            if split != "val" and known and (seen := [key for key in comparable if key[1] in known]):
                comparable = [key for key in comparable if key[1] not in known]
                notes.append(f"{split}: {table.name} was trained on {_some(seen)}: left out.")
        shared[split] = comparable
        if len(ids) != len(both) or len(others) != len(both):
            notes.append(
                f"{split}: different sets: {len(ids)} images in {a.name}, {len(others)} in {b.name}, "
                f"{len(both)} in both; only those count here."
            )
        if len(same) != len(both):
            other = [key for key in both if key not in set(same)]
            notes.append(
                f"{split}: {_some(other)} {'has' if len(other) == 1 else 'have'} another photograph or true mask "
                "under the same id: left out."
            )
    where = {name: split for split, name in b.rows}
    moved = [(split, name) for split, name in a.rows if where.get(name, split) != split]
    if moved:
        notes.append(
            f"{_some(moved)} in another split of {b.name} than of {a.name}: left out. A network knows the images it "
            "was trained, or chosen, on."
        )
    for trained, evaluated in ((a, b), (b, a)):
        known = trained_on.get(trained.name)
        if known and (seen := [key for key in evaluated.rows if key[1] in known and key not in trained.rows]):
            notes.append(
                f"{evaluated.name} was evaluated on {_some(seen)} that {trained.name} was trained on: left out."
            )
    return shared, notes


def _same_image(a: ImageTable, b: ImageTable, key: Key) -> bool:
    return all(float(a.rows[key][name]) == float(b.rows[key][name]) for name in IDENTITY)


def _some(keys: Sequence[Key]) -> str:
    names = ", ".join(name for _, name in keys[:3])
    return f"{len(keys)} image{'s' * (len(keys) != 1)} ({names}{', …' if len(keys) > 3 else ''})"


def _groups(a: ImageTable, b: ImageTable, keys: Sequence[Key]) -> list[str]:
    """The duplicate groups by the run that merges more images."""
    return min(a.groups(keys), b.groups(keys), key=lambda groups: len(set(groups)))


def _differences(
    split: str, a: ImageTable, b: ImageTable, keys: list[Key], resampling: Resampling
) -> Iterator[Difference]:
    pairs = list(_scores(a, b, keys))

    def changes(weights: np.ndarray) -> np.ndarray:
        return np.column_stack([of_b(weights) - of_a(weights) for _, of_a, of_b in pairs])

    everything = np.ones((1, len(keys)))
    ends = intervals(changes, _groups(a, b, keys), resampling)
    for (name, of_a, of_b), low, high in zip(pairs, *ends, strict=True):
        before, after = float(of_a(everything)[0]), float(of_b(everything)[0])
        yield Difference(split, name, before, after, low, high, _word(name, before, after, low, high))


def _scores(a: ImageTable, b: ImageTable, keys: list[Key]) -> Iterator[tuple[str, Score, Score]]:
    """Yield a score's name, its function for A and for B. Pooled scores need pixel counts in both tables."""
    if a.has(COUNTS) and b.has(COUNTS):
        for name in POOLED:
            yield f"pooled.{name}", _pooled(name, a.counts(keys)), _pooled(name, b.counts(keys))
    for name in ("dice", "iou"):
        yield f"per_image.{name}", _mean(a.values(name, keys)), _mean(b.values(name, keys))
    of_a, of_b = a.values("jaccard_native", keys), b.values("jaccard_native", keys)
    yield "official.threshold_jaccard", _mean(_above_failure(of_a)), _mean(_above_failure(of_b))
    yield "official.failure_rate", _mean((of_a < scores.FAILURE) * 1.0), _mean((of_b < scores.FAILURE) * 1.0)


def _above_failure(jaccard: np.ndarray) -> np.ndarray:
    return np.where(jaccard >= scores.FAILURE, jaccard, 0.0)


def _pooled(name: str, counts: np.ndarray) -> Score:
    return lambda weights: scores.OVERLAP[name](Counts.of(weights @ counts))


def _mean(values: np.ndarray) -> Score:
    return lambda weights: weights @ values / weights.sum(axis=1)


def lower_is_better(score: str) -> bool:
    """Whether smaller values of the score are better, by the last part of its name."""
    name = score.rpartition(".")[2]
    return any(part in name for part in ("failure", "hd95", "distance", "error", "loss", "brier"))


def _word(name: str, before: float, after: float, low: float, high: float) -> str:
    if np.isnan(low):
        return EQUAL if before == after else UNKNOWN
    if low == high == 0:
        return EQUAL
    if low <= 0 <= high:
        return NOISE
    return WORSE if (low > 0) == lower_is_better(name) else BETTER
