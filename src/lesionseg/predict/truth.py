"""True masks of the photographs, found by id, and the scores of predictions against them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lesionseg.common.errors import InputError
from lesionseg.images.decoding import ImageError
from lesionseg.images.masks import read_mask
from lesionseg.images.naming import EXTENSIONS, ids_of_mask, is_numbered
from lesionseg.scoring.counts import Counts, count
from lesionseg.scoring.scores import OVERLAP

SCORES = ("dice", "iou", "precision", "recall")  # columns of lesions.csv, in this order
Masks = Mapping[Path, Sequence[Path]]  # photograph -> the files whose union is its true mask


def find_truth(folder: Path, photographs: Iterable[Path]) -> Masks:
    """The true masks below `folder`, for the photographs that have one.

    A mask has the name of its photograph, or that with a prefix or suffix that `ids_of_mask` knows. Raises InputError
    where there is no folder, no mask at all, or a photograph has several masks that are not numbered parts.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such directory"
        raise InputError(f"--truth: {folder}: {found}, expected a directory of masks")
    photographs = list(photographs)
    themselves = {path.resolve() for path in photographs}
    by_id: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in EXTENSIONS and path.is_file() and path.resolve() not in themselves:
            for name in dict.fromkeys((path.stem, *ids_of_mask(path.stem))):
                by_id[name].append(path)
    masks = {path: by_id[path.stem] for path in photographs if path.stem in by_id}
    problems = [
        f"--truth: {', '.join(map(str, found))}: {len(found)} masks for {path}, expected one; remove the others"
        for path, found in masks.items()
        if len(found) > 1 and not all(is_numbered(mask.stem) for mask in found)
    ]
    if not masks:
        problems.append(f"--truth: {folder}: no mask of a photograph; expected {photographs[0].stem}_segmentation.png")
    if problems:
        raise InputError(problems)
    return masks


def without_masks(photographs: Mapping[Path, Path], folder: Path) -> dict[Path, Path]:
    """The photographs without those that lie in the folder of true masks and are, by their names, masks of others."""
    stems = {path.stem for path in photographs}
    return {
        path: name
        for path, name in photographs.items()
        if folder.resolve() not in path.resolve().parents or stems.isdisjoint(ids_of_mask(path.stem))
    }


def read_truth(files: Sequence[Path], shape: tuple[int, int]) -> np.ndarray:
    """The true mask, uint8 (height, width) of 0 and 1: the union of its files. Raises ImageError naming the file."""
    union = np.zeros(shape, np.uint8)
    for path in files:
        try:
            mask = read_mask(path)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from None
        if mask.shape != shape:
            raise ImageError(
                f"{path}: is {mask.shape[1]}×{mask.shape[0]} pixels, expected {shape[1]}×{shape[0]} as the photograph"
            )
        union |= mask
    return union


def scored(predicted: np.ndarray, truth: np.ndarray) -> tuple[Counts, dict[str, str]]:
    """The pixel counts of one photograph at native size, and its columns of lesions.csv."""
    counts = count(predicted, truth)
    return counts, {name: f"{float(OVERLAP[name](counts)):.4f}" for name in SCORES}


def summary(counts: Sequence[Counts]) -> dict[str, dict[str, float]]:
    """The scores at native size, pooled over all pixels and as means over photographs; empty if there are none."""
    if not counts:
        return {}
    table = Counts.of(np.array(counts, np.int64))
    return {
        "pooled": {name: round(float(OVERLAP[name](table.pooled())), 4) for name in SCORES},
        "per_image_mean": {name: round(float(np.mean(OVERLAP[name](table))), 4) for name in SCORES},
    }
