"""From checked pairs to the processed data set: arrays on disk, duplicate groups, a split that does not leak."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.formats.array_writer import ArrayWriter
from lesionseg.formats.manifest import Pair
from lesionseg.formats.processed import Sample, write_samples
from lesionseg.preprocess import duplicates
from lesionseg.preprocess.duplicates import Match
from lesionseg.preprocess.pairs import BadPair, read_pairs
from lesionseg.preprocess.split import choose_validation

OFFICIAL = {"validation": "official_validation", "test": "official_test"}  # subset -> split


@dataclass(frozen=True)
class Dropped:
    """A pair that is left out."""

    pair: Pair
    kind: str  # invalid | duplicate_of_official
    reason: str


@dataclass(frozen=True)
class Duplicate:
    """Two pairs, by id, whose images show the same picture."""

    id: str
    other: str  # the larger id
    kind: str  # identical (bytes) | near
    distance: int  # differing bits of the hash, 0 when identical
    correlation: float  # of the fine structure, 1 when identical


@dataclass(frozen=True)
class Processed:
    samples: list[Sample]  # in array order
    dropped: list[Dropped]
    duplicates: list[Duplicate]  # among all valid pairs, the dropped duplicates of official images included


def process(
    raw: Path,
    pairs: Sequence[Pair],
    folder: Path,
    *,
    size: int,
    validation_fraction: float,
    seed: int,
    drop_invalid: bool,
    duplicate_distance: int | None,
    workers: int | None = None,
) -> Processed:
    """Write `images.npy`, `masks.npy` and `samples.csv` into the existing directory `folder` (see arrays).

    `pairs` are sorted by id; `duplicate_distance` None looks for byte-identical images only. Official sets become
    splits of their own. A training image that shows the same picture as an official one is left out: the official
    sets stay as published, and the training side gives way. Raises InputError with every invalid pair unless
    `drop_invalid`, and when nothing is left to split.
    """
    kept: list[tuple[Pair, int, int, float]] = []  # pair, native width and height, lesion fraction
    dropped: list[Dropped] = []
    scratch = folder / "thumbnails.npy"
    with (
        ArrayWriter(folder / "images.npy", (size, size, 3)) as images,
        ArrayWriter(folder / "masks.npy", (size, size)) as masks,
    ):
        with ArrayWriter(scratch, (duplicates.SIDE, duplicates.SIDE)) as thumbnails:
            read = read_pairs(raw, [(pair.image, pair.mask) for pair in pairs], size, workers)
            for pair, result in zip(tqdm(pairs, "preprocess", unit="pair", disable=None), read, strict=True):
                if isinstance(result, BadPair):
                    dropped += [Dropped(pair, "invalid", problem) for problem in result.problems]
                    continue
                images.append(result.image)
                masks.append(result.mask)
                thumbnails.append(result.thumbnail)
                kept.append((pair, result.width, result.height, result.lesion_fraction))
        if dropped and not drop_invalid:
            raise InputError(f"{raw / problem.reason}" for problem in dropped)
        if not kept:
            raise InputError(
                f"{raw}: none of the {len(pairs)} pairs is usable; see the reasons with preprocess.on_invalid=fail"
            )
        kept_pairs = [pair for pair, *_ in kept]
        found = _duplicates(kept_pairs, np.load(scratch, mmap_mode="r"), duplicate_distance)
        scratch.unlink()

        label = duplicates.groups(len(kept), [(match.first, match.second) for match in found])
        official = _official_of_group(kept_pairs, label)
        rows = []
        for row, (pair, *_) in enumerate(kept):
            if pair.subset in OFFICIAL or label[row] not in official:
                rows.append(row)
            else:
                other = official[label[row]]
                reason = f"{pair.image}: shows the same picture as {other.image} of the official {other.subset} set"
                dropped.append(Dropped(pair, "duplicate_of_official", reason))
        images.keep(rows)
        masks.keep(rows)

    samples = _samples([kept[row] for row in rows], label[rows], validation_fraction, seed)
    write_samples(folder, samples)
    return Processed(samples, sorted(dropped, key=lambda item: item.pair.id), _by_id(kept_pairs, found))


def _duplicates(pairs: Sequence[Pair], thumbnails: np.ndarray, distance: int | None) -> list[Match]:
    """Identical files, and near-duplicates among what differs."""
    same = duplicates.identical([pair.image_sha256 for pair in pairs])
    matches = [Match(first, second, 0, 1.0) for first, second in same]
    if distance is not None:
        # One of each set of identical files stands for all: else a thousand copies are half a million near pairs.
        unique = np.setdiff1d(np.arange(len(pairs)), [second for _, second in same])
        matches += duplicates.near_duplicates(thumbnails, distance, unique)
    return sorted(matches, key=lambda match: (match.first, match.second))


def _official_of_group(pairs: Sequence[Pair], label: np.ndarray) -> dict[int, Pair]:
    """The first official pair of each duplicate group that has one."""
    official: dict[int, Pair] = {}
    for row, pair in enumerate(pairs):
        if pair.subset in OFFICIAL:
            official.setdefault(label[row], pair)
    return official


def _samples(
    kept: Sequence[tuple[Pair, int, int, float]], label: np.ndarray, validation_fraction: float, seed: int
) -> list[Sample]:
    """One sample a kept pair, split and named after its group's smallest id (pairs are sorted by id)."""
    first: dict[int, str] = {}
    for (pair, *_), group in zip(kept, label, strict=True):
        first.setdefault(group, pair.id)
    groups = [first[group] for group in label]
    training = [row for row, (pair, *_) in enumerate(kept) if pair.subset not in OFFICIAL]
    validation = choose_validation(
        [groups[row] for row in training], [kept[row][3] for row in training], validation_fraction, seed
    )
    split = {row: "val" if held_out else "train" for row, held_out in zip(training, validation, strict=True)}
    return [
        Sample(pair.id, split.get(row) or OFFICIAL[pair.subset], width, height, round(fraction, 6), groups[row])
        for row, (pair, width, height, fraction) in enumerate(kept)
    ]


def _by_id(pairs: Sequence[Pair], matches: Sequence[Match]) -> list[Duplicate]:
    """The matches with the ids in place of the indices."""
    found = []
    for match in matches:
        first, second = pairs[match.first], pairs[match.second]
        kind = "identical" if first.image_sha256 == second.image_sha256 else "near"
        found.append(Duplicate(first.id, second.id, kind, match.distance, round(match.correlation, 3)))
    return found
