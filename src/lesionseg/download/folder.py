"""The user's own images and masks: found (see layout), matched by id, copied byte for byte.

A mask is rewritten only if the user says what its values stand for (see labels), or if several masks make up one. Only
the pairing is checked here: whether a file can be decoded and fits its partner is checked by preprocess, which decides
what to do with pairs that fail.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.common.parallel import ordered_map
from lesionseg.download import labels as mask_labels
from lesionseg.download import pseudonyms
from lesionseg.download.labels import Labels
from lesionseg.download.layout import Layout, Located, counted, find_layout
from lesionseg.download.side_tables import read_side_tables
from lesionseg.download.subset import choose_subset
from lesionseg.formats import groups, metadata, notices
from lesionseg.formats.manifest import Pair
from lesionseg.images.decoding import ImageError, decode
from lesionseg.images.header import oriented_size
from lesionseg.images.masks import binary, share

PROBED = 5  # pairs whose pixels are checked for swapped folders

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Reading:
    """How a folder is read."""

    labels: Labels | None = None  # what the masks' values stand for; None: white is lesion
    mask_suffix: str | None = None  # what follows the image's name in its mask's name; None: found out
    keep_splits: bool = True  # pairs in directories named after a validation or test set stay in it
    private: bool = False  # ids are pseudonyms (see pseudonyms), not file names


def fetch(
    target: Path, *, folder: Path, limit: int | None, seed: int, workers: int, reading: Reading = Reading()
) -> list[Pair]:
    """Copy `limit` of the pairs in `folder` (None: all) to `target`, with `workers` threads.

    Tables beside the images go to groups.csv and metadata.csv (see formats). Raises what `find_layout`,
    `read_side_tables` and `choose_subset` raise before anything is written, and InputError with a line for every
    mask that does not fit the labels.
    """
    labels = reading.labels
    layout = find_layout(folder, reading.mask_suffix)
    _check_not_exchanged(folder, layout.pairs)
    tables = read_side_tables(folder, {path: _names(layout, path.parent) for path in layout.tables})
    chosen = choose_subset(layout.pairs, limit, seed)
    for name in ("images", "masks"):
        (target / name).mkdir()
    ids = _pseudonyms(target, layout, chosen, workers) if reading.private else dict(zip(chosen, chosen, strict=True))
    passed_over = layout.passed_over.copy()
    for path in sorted(folder.iterdir()):
        if path.stem.lower() in notices.STEMS and path.is_file() and _inside(path, folder):
            _copy(path, target / path.name)
            passed_over -= Counter([path.suffix.lower() or "without extension"])
    copies = ordered_map(lambda name: _copy_pair(target, ids[name], layout.pairs[name], labels), chosen, workers)
    copied = list(tqdm(copies, "copy", len(chosen), unit="pair", disable=None))
    if problems := [copy.problem for copy in copied if copy.problem]:
        raise InputError(problems)
    if tables.groups:
        groups.add(target, [(ids[image], group) for image, group in tables.groups if image in ids])
    if tables.columns:
        metadata.add(target, tables.columns, {ids[name]: row for name, row in tables.metadata.items() if name in ids})
    _say(folder, passed_over, tables.notes, copied, labels)
    splits = {ids[name]: layout.pairs[name].split for name in chosen}
    subsets = _given_subsets(folder, splits) if reading.keep_splits else {}
    pairs = (copy.pair for copy in copied if copy.pair)
    return [replace(pair, subset=subsets.get(pair.id, "training")) for pair in pairs]


def _given_subsets(folder: Path, splits: Mapping[str, str | None]) -> dict[str, str]:
    """The subset of each pair that lies in a directory of a validation or test set."""
    subsets = {name: f"given_{split}" for name, split in splits.items() if split in ("val", "test")}
    if len(subsets) == len(splits):  # a folder that is nothing but a test set is a data set like any other
        if subsets:
            print(f"{folder}: its split leaves nothing to train on, so everything is split anew")
        return {}
    outside = sum(split is None for split in splits.values())
    if outside and "train" in splits.values() and not subsets:
        print(
            f"{folder}: {len(splits) - outside} pairs are in directories of a training set, {outside} in none of a "
            "split, and none in those of a validation or test set (val, valid, test, …), so everything is split anew"
        )
    if subsets:
        numbers = Counter(subsets.values())
        found = ", ".join(f"{numbers[kind]} in {kind.removeprefix('given_')}" for kind in sorted(numbers, reverse=True))
        print(
            f"{folder}: its split is kept: {len(splits) - len(subsets)} pairs to train on"
            f"{f' ({outside} of them in no directory of a split)' if outside else ''}, {found} "
            "(not with download.keep_splits=false)"
        )
    return subsets


def _pseudonyms(target: Path, layout: Layout, chosen: Sequence[str], workers: int) -> dict[str, str]:
    """Name -> pseudonym of the chosen pairs, which are recorded in names.csv of `target`."""
    digests = ordered_map(lambda name: _sha256(layout.pairs[name].image), chosen, workers)
    ids = pseudonyms.pseudonyms(dict(zip(chosen, digests, strict=True)))
    pseudonyms.add(target, {ids[name]: name for name in chosen})
    return ids


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Copied:
    """A copied pair, or why its mask could not be read, and the number of pixels of each label."""

    pair: Pair | None
    problem: str | None = None
    masks: int = 1  # files that make up the mask
    lesion: int = 0
    void: int = 0
    other: int = 0
    pixels: int = 0


def _say(folder: Path, passed_over: Counter, notes: list[str], copied: list[_Copied], labels: Labels | None) -> None:
    """Print what the pairs alone do not show: skipped files, tables, unions of masks, labels."""
    if passed_over := +passed_over:
        print(f"{folder}: passed over {counted(passed_over)}")
    for note in notes:
        print(f"{folder}: {note}")
    if several := sum(copy.masks > 1 for copy in copied):
        print(f"{folder}: {several} images have several masks; their union is taken")
    if labels:
        pixels = max(1, sum(copy.pixels for copy in copied))
        lesion, void, other = (sum(getattr(copy, name) for copy in copied) for name in ("lesion", "void", "other"))
        print(
            f"{folder}: {sum(copy.lesion > 0 for copy in copied)} of {len(copied)} masks have lesion labels, "
            f"{share(lesion / pixels)} of all pixels; {share(void / pixels)} are void; {share(other / pixels)} have no "
            "named label and count as background"
        )


def _names(layout: Layout, directory: Path) -> dict[str, str]:
    """What a table in a directory may call an image -> its id: the id itself, or the file's name if it is unique.

    A table describes the images below its directory; if there are none, those below the nearest parent with some.
    """
    below: dict[str, Located] = {}
    while not below:
        below = {name: pair for name, pair in layout.pairs.items() if pair.image.is_relative_to(directory)}
        directory = directory.parent
    stems = Counter(located.image.stem for located in below.values())
    names = {located.image.stem: name for name, located in below.items() if stems[located.image.stem] == 1}
    return names | {name: name for name in layout.pairs}


def _check_not_exchanged(folder: Path, pairs: Mapping[str, Located]) -> None:
    """Raise InputError if the pixels of the images are those of masks; names alone do not always tell."""
    probed = list(islice(pairs.values(), PROBED))
    images = [_is_black_and_white(pair.image) for pair in probed]
    masks = [_is_black_and_white(pair.masks[0]) for pair in probed]
    if not all(looks is True for looks in images):
        return
    if any(looks is False for looks in masks):
        raise InputError(f"{folder}: images and masks are swapped: the images are black and white, the masks are not")
    raise InputError(f"{folder}: the images are black and white like masks; put the photographs there")


def _is_black_and_white(path: Path) -> bool | None:
    """Whether nearly all pixels are black or white, with some of each, or 0 and 1; None if it cannot be decoded."""
    try:
        grey = np.asarray(decode(path, 256).image.convert("L"))  # a JPEG is decoded at a fraction of its size
    except Exception:  # damaged in some way; preprocess says how
        return None
    if grey.max() <= 1:
        return bool(grey.any() and not grey.all())
    black, white = (grey <= 16).mean(), (grey >= 239).mean()
    return bool(black > 0 and white > 0 and black + white >= 0.95)


def _copy_pair(target: Path, name: str, located: Located, labels: Labels | None) -> _Copied:
    """Copy one pair to `target` and describe it."""
    image_copy = f"images/{name}{located.image.suffix.lower()}"
    image_sha256 = _copy(located.image, target / image_copy)
    width, height = oriented_size(target / image_copy) or (None, None)
    if labels is None and len(located.masks) == 1:
        mask_copy = f"masks/{name}_segmentation{located.masks[0].suffix.lower()}"
        mask_sha256 = _copy(located.masks[0], target / mask_copy)
        pair = Pair(name, image_copy, mask_copy, width, height, image_sha256, mask_sha256, "training", "folder")
        return _Copied(pair)
    try:
        lesion, void, other = _read_masks(located, labels)
    except ImageError as error:
        return _Copied(None, str(error))
    mask_copy = f"masks/{name}_segmentation.png"
    Image.fromarray(lesion.astype(np.uint8) * np.uint8(255)).save(target / mask_copy)
    mask_sha256 = hashlib.sha256((target / mask_copy).read_bytes()).hexdigest()
    pair = Pair(name, image_copy, mask_copy, width, height, image_sha256, mask_sha256, "training", "folder")
    return _Copied(pair, None, len(located.masks), int(lesion.sum()), void, other, lesion.size)


def _read_masks(located: Located, labels: Labels | None) -> tuple[np.ndarray, int, int]:
    """The union of the masks, bool (height, width), and how many pixels are void, and unlabelled.

    Raises ImageError with the path.
    """
    union, void, other = np.zeros(0, bool), 0, 0
    for number, path in enumerate(located.masks):
        try:
            if labels is None:
                lesion = np.asarray(binary(decode(path))[0]) > 0
            else:
                read = mask_labels.read(decode(path), labels)
                lesion, void, other = read.lesion, void + read.void, other + read.other
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from None
        if number and union.shape != lesion.shape:
            raise ImageError(
                f"{path}: is {lesion.shape[::-1]} pixels, expected {union.shape[::-1]} as {located.masks[0]}"
            )
        union = union | lesion if number else lesion
    return union, void, other


def _inside(path: Path, folder: Path) -> bool:
    """Whether a file is really in the folder, not a link that leads out of it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _copy(source: Path, target: Path) -> str:
    """Copy the bytes of a file, never a link (DVC write-protects what it tracks); return their SHA-256."""
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()
