"""From checked pairs to the processed data set: arrays on disk, duplicate groups, splits that do not leak.

What is trained on and what is only evaluated go into two folders. The first depends on the training pairs alone, so
adding, changing or removing a held-out set never changes what the network is trained on.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.formats.array_writer import ArrayWriter
from lesionseg.formats.manifest import Pair
from lesionseg.formats.processed import TRAINED, Sample, write_samples
from lesionseg.preprocess import duplicates, views
from lesionseg.preprocess.duplicates import Match
from lesionseg.preprocess.pairs import BadPair, read_pairs
from lesionseg.preprocess.plausibility import MaskSet
from lesionseg.preprocess.split import choose_splits

HELD_OUT_SUBSETS = {  # subset of the manifest -> split
    "validation": "official_validation",
    "test": "official_test",
    "external": "external",
    "given_test": "test",
}
DIVIDED, GIVEN_VAL = "training", "given_val"  # subsets whose pairs are trained on, or monitored during training


@dataclass(frozen=True)
class DataSetSettings:
    """How to make the data set. Every field changes the result."""

    size: int  # height and width of images and masks, pixels
    validation_fraction: float  # of the training pairs, in (0, 1)
    test_fraction: float  # of the training pairs, in [0, 1)
    seed: int
    drop_invalid: bool  # leave out unusable pairs instead of refusing the data set
    duplicate_distance: int | None  # hash bits in which near-duplicates may differ; None: identical files only


@dataclass(frozen=True)
class Dropped:
    """A pair that is left out."""

    pair: Pair
    kind: str  # invalid | duplicate_of_training
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
class DataSet:
    """The result: the samples of both folders, sorted by id, and what was found on the way."""

    samples: list[Sample]
    dropped: list[Dropped]
    duplicates: list[Duplicate]  # among all valid pairs, including dropped ones
    warnings: list[str] = field(default_factory=list)  # about possible mistakes in the data as a whole


@dataclass(frozen=True)
class _ValidPair:
    """A valid pair and what was measured on it."""

    pair: Pair
    width: int
    height: int
    lesion_fraction: float


def process(
    raw: Path,
    pairs: Sequence[Pair],
    folders: tuple[Path, Path],
    settings: DataSetSettings,
    workers: int | None = None,
    links: Iterable[tuple[str, str]] = (),
) -> DataSet:
    """Write `images.npy`, `masks.npy` and `samples.csv` into two existing `folders`, `trained` and `held_out` (see
    formats.processed).

    `pairs` are sorted by id. Those of the training subset are split into train, val and test; train and val go to
    `trained`, everything else to `held_out`. An external pair that shows the same picture as a training pair is left
    out; official sets stay as published, and so do validation and test sets that the user's data came with. `links`
    are pairs of ids of one group, such as two photographs of a lesion, which stay on one side like duplicates. Raises
    InputError with every invalid pair unless `drop_invalid`, and if nothing is left to split or the masks as a whole
    cannot be right.
    """
    trained, held_out = folders
    size = settings.size
    thumbnails_file, views_file = trained / "thumbnails.npy", trained / "views.npy"  # for this run only
    with (
        ArrayWriter(trained / "images.npy", (size, size, 3)) as images,
        ArrayWriter(trained / "masks.npy", (size, size)) as masks,
    ):
        valid, dropped = [], []
        mask_sets = {False: MaskSet(), True: MaskSet(may_be_empty=True)}  # whether external
        with (
            ArrayWriter(thumbnails_file, (duplicates.SIDE, duplicates.SIDE)) as thumbnails,
            ArrayWriter(views_file, (views.ROW,)) as described,
        ):
            read = read_pairs(raw, [(pair.image, pair.mask) for pair in pairs], size, workers)
            for pair, result in zip(tqdm(pairs, "preprocess", unit="pair", disable=None), read, strict=True):
                if isinstance(result, BadPair):
                    dropped += [Dropped(pair, "invalid", problem) for problem in result.problems]
                    continue
                images.append(result.image)
                masks.append(result.mask)
                thumbnails.append(result.thumbnail)
                described.append(result.view)
                mask_sets[pair.subset == "external"].add(pair.id, result)
                valid.append(_ValidPair(pair, result.width, result.height, result.lesion_fraction))
        if dropped and not settings.drop_invalid:
            raise InputError(f"{raw / problem.reason}" for problem in dropped)
        if not valid:
            raise InputError(
                f"{raw}: none of the {len(pairs)} pairs is usable; see the reasons with preprocess.on_invalid=fail"
            )
        if wrong := [problem for mask_set in mask_sets.values() for problem in mask_set.problems()]:
            raise InputError(f"{raw}: {problem}" for problem in wrong)
        seen, described_views = (np.load(file, mmap_mode="r") for file in (thumbnails_file, views_file))
        found = _duplicates([one.pair for one in valid], seen, described_views, settings.duplicate_distance)
        thumbnails_file.unlink()
        views_file.unlink()

        joined = [*found, *_as_matches(valid, links)]
        leaking = _leaking(valid, joined)
        dropped += leaking.values()
        sample = _samples(valid, joined, settings)
        rows = {
            folder: [
                row for row in range(len(valid)) if row not in leaking and (sample[row].split in TRAINED) is inside
            ]
            for folder, inside in ((trained, True), (held_out, False))
        }
        for name, array in (("images", images), ("masks", masks)):
            with ArrayWriter(held_out / f"{name}.npy", array.row_shape) as aside:
                for row in rows[held_out]:
                    aside.append(array.row(row))
            array.select_rows(rows[trained])
    for folder in (trained, held_out):
        write_samples(folder, [sample[row] for row in rows[folder]])
    samples = [sample[row] for row in sorted(rows[trained] + rows[held_out])]
    warnings = [warning for mask_set in mask_sets.values() for warning in mask_set.warnings()]
    warnings += _crossing(sample, _groups(valid, joined))
    if leaking:
        warnings.append(
            f"{len(leaking)} external pairs are left out, as they show the picture, lesion or patient of a training "
            "image; data/summary/dropped.csv lists them; if a name in groups.csv stands for different patients in the "
            "two folders, rename one"
        )
    return DataSet(samples, sorted(dropped, key=lambda item: item.pair.id), _by_id(valid, found), warnings)


def _duplicates(
    pairs: Sequence[Pair], thumbnails: np.ndarray, described: np.ndarray, distance: int | None
) -> list[Match]:
    """Identical files, and among the others near-duplicates and other views of one picture."""
    same = duplicates.identical([pair.image_sha256 for pair in pairs])
    matches = [Match(first, second, 0, 1.0) for first, second in same]
    if distance is not None:
        # One file stands for all identical ones: a thousand copies would be half a million near pairs.
        unique = np.setdiff1d(np.arange(len(pairs)), [second for _, second in same])
        near = duplicates.near_duplicates(thumbnails, distance, unique)
        known = {(match.first, match.second) for match in near}
        inside = np.array([pair.subset in (DIVIDED, GIVEN_VAL) for pair in pairs])
        # Training pairs among themselves first, so that held-out ones do not change their groups.
        other = views.find_other_views(described, unique[inside[unique]])
        if not inside.all():
            other += [match for match in views.find_other_views(described, unique) if not inside[list(match[:2])].all()]
        matches += near
        matches += [
            Match(first, second, duplicates.hash_distance(thumbnails, first, second), correlation)
            for first, second, correlation in other
            if (first, second) not in known
        ]
    return sorted(matches, key=lambda match: (match.first, match.second))


def _as_matches(valid: Sequence[_ValidPair], links: Iterable[tuple[str, str]]) -> list[Match]:
    """Links between ids as matches between rows; links to missing pairs are left out."""
    row = {one.pair.id: number for number, one in enumerate(valid)}
    ends = (sorted((row[one], row[other])) for one, other in links if one in row and other in row)
    return [Match(first, second, 0, 1.0) for first, second in ends]


def _crossing(samples: Sequence[Sample], groups: Sequence[str]) -> list[str]:
    """A warning if groups cross a split that came with the data, which is not changed."""
    sides = defaultdict(set)
    for sample, group in zip(samples, groups, strict=True):
        if sample.split in ("train", "val", "test"):
            sides[group].add(sample.split)
    if not (crossing := sorted(group for group, splits in sides.items() if len(splits) > 1)):
        return []
    return [
        f"{len(crossing)} groups of one picture, lesion or patient lie on several sides of the split that came with "
        f"the data ({', '.join(crossing[:5])}{', …' if len(crossing) > 5 else ''}); it stays, its scores "
        "flatter; download.keep_splits=false divides anew, every group on one side"
    ]


def _groups(valid: Sequence[_ValidPair], matches: Sequence[Match]) -> list[str]:
    """The name of each pair's duplicate group, its smallest id. Pairs are sorted by id."""
    label = duplicates.groups(len(valid), [(match.first, match.second) for match in matches])
    return [valid[row].pair.id for row in label]


def _leaking(valid: Sequence[_ValidPair], matches: Sequence[Match]) -> dict[int, Dropped]:
    """The external pairs whose group has a training pair, by row."""
    groups = _groups(valid, matches)
    training: dict[str, Pair] = {}
    for one, group in zip(valid, groups, strict=True):
        if one.pair.subset in (DIVIDED, GIVEN_VAL):
            training.setdefault(group, one.pair)
    return {
        row: Dropped(
            one.pair,
            "duplicate_of_training",
            f"{one.pair.image}: shows the picture, lesion or patient of the training image {training[group].image}",
        )
        for row, (one, group) in enumerate(zip(valid, groups, strict=True))
        if one.pair.subset == "external" and group in training
    }


def _samples(valid: Sequence[_ValidPair], matches: Sequence[Match], settings: DataSetSettings) -> list[Sample]:
    """The sample of each valid pair. Splits and groups of training pairs do not depend on held-out ones."""
    training = [row for row, one in enumerate(valid) if one.pair.subset in (DIVIDED, GIVEN_VAL)]
    place = {row: index for index, row in enumerate(training)}
    within = [
        Match(place[match.first], place[match.second], match.distance, match.correlation)
        for match in matches
        if match.first in place and match.second in place
    ]
    groups = _groups([valid[row] for row in training], within)
    subsets = {one.pair.subset for one in valid}
    to_divide = [index for index, row in enumerate(training) if valid[row].pair.subset == DIVIDED]
    chosen = choose_splits(
        [groups[index] for index in to_divide],
        [valid[training[index]].lesion_fraction for index in to_divide],
        0.0 if GIVEN_VAL in subsets else settings.validation_fraction,
        0.0 if "given_test" in subsets else settings.test_fraction,
        settings.seed,
    )
    splits = dict.fromkeys(range(len(training)), "val") | dict(zip(to_divide, chosen, strict=True))
    everywhere = _groups(valid, matches)
    samples = []
    for row, one in enumerate(valid):
        if row in place:
            split, group = splits[place[row]], groups[place[row]]
        else:
            split, group = HELD_OUT_SUBSETS[one.pair.subset], everywhere[row]
        samples.append(Sample(one.pair.id, split, one.width, one.height, round(one.lesion_fraction, 6), group))
    return samples


def _by_id(valid: Sequence[_ValidPair], matches: Sequence[Match]) -> list[Duplicate]:
    """The matches with ids in place of indices."""
    found = []
    for match in matches:
        first, second = valid[match.first].pair, valid[match.second].pair
        kind = "identical" if first.image_sha256 == second.image_sha256 else "near"
        found.append(Duplicate(first.id, second.id, kind, match.distance, round(match.correlation, 3)))
    return found
