"""The user's own images and masks: found, matched by id, copied byte for byte.

Two layouts are understood: `images/` and `masks/` below the folder, or all files in the folder itself. An image
is `<id>.<ext>`; its mask is `<id>_segmentation.<ext>` or `<id>_mask.<ext>`, in `masks/` also `<id>.<ext>`. Hidden
files, superpixel files and files of other kinds are passed over, and so are deeper directories. Only the pairing
is checked here: whether a file can be decoded and fits its partner is for preprocessing, which verifies every
pair in full and decides what becomes of those that fail.
"""

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.download.subset import choose
from lesionseg.formats.manifest import Pair
from lesionseg.images.header import open_image, oriented_size

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")  # in any case
MASK_SUFFIXES = ("_segmentation", "_mask")  # in any case
NOTICES = ("attribution", "license", "licence")  # files of these names are kept beside the data
PROBED = 5  # pairs whose pixels are looked at to tell exchanged folders

_BLOCK = 1 << 20


def fetch(target: Path, *, folder: Path, limit: int | None, seed: int, workers: int) -> list[Pair]:
    """Copy `limit` of the pairs in `folder` (None: all) to `target`, with `workers` threads.

    Raises what `find` and `choose` raise, before anything is written.
    """
    found = find(folder)
    chosen = choose(found, limit, seed)
    for name in ("images", "masks"):
        (target / name).mkdir()
    for path in folder.iterdir():
        if path.stem.lower() in NOTICES and path.is_file():
            shutil.copyfile(path, target / path.name)
    with ThreadPoolExecutor(workers) as threads:
        copies = threads.map(lambda name: _copy_pair(target, name, *found[name]), chosen)
        return list(tqdm(copies, "copy", len(chosen), unit="pair", disable=None))


def find(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return (image, mask) of every id in `folder`, by id.

    Raises InputError when the folder is missing or holds no pair, when images and masks are exchanged, or with one
    line for every image without mask, mask without image, and id with two images or two masks.
    """
    if not folder.is_dir():
        found = "found a file" if folder.exists() else "no such directory"
        raise InputError(f"download.folder: {folder}: {found}, expected a directory with images and masks")
    below = [name for name in ("images", "masks") if (folder / name).is_dir()]
    if len(below) == 1:
        other = "masks" if below == ["images"] else "images"
        raise InputError(f"{folder}: found {below[0]}/ without {other}/; put the {other} there")
    if below:
        images, masks, problems = _in_two_directories(folder / "images", folder / "masks")
    else:
        images, masks, problems = _in_one_directory(folder)
    if not images and not masks:
        raise InputError(_empty(folder))
    problems += _unpaired(images, masks)
    problems += _unreadable(path for files in (images, masks) for paths in files.values() for path in paths)
    if problems:
        raise InputError(problems)
    pairs = {name: (images[name][0], masks[name][0]) for name in sorted(images)}
    _check_not_exchanged(folder, pairs)
    return pairs


Files = Mapping[str, list[Path]]  # by id: one path, or more where two files claim an id


def _in_one_directory(folder: Path) -> tuple[Files, Files, list[str]]:
    """(images, masks, problems) of a folder that holds both: what has a mask's suffix is a mask."""
    images, masks = defaultdict(list), defaultdict(list)
    for path in _candidates(folder):
        name = _without_mask_suffix(path.stem)
        (images if name is None else masks)[name or path.stem].append(path)
    return images, masks, []


def _in_two_directories(images_folder: Path, masks_folder: Path) -> tuple[Files, Files, list[str]]:
    """(images, masks, problems) of images/ and masks/, where a mask may have the very name of its image."""
    in_images, in_masks = _candidates(images_folder), _candidates(masks_folder)
    image_stems, mask_stems = ({path.stem for path in paths} for paths in (in_images, in_masks))
    if in_images and all(map(_without_mask_suffix, image_stems)) and not any(map(_without_mask_suffix, mask_stems)):
        raise InputError(
            f"{images_folder}: all {len(in_images)} files are named like masks, and none in {masks_folder} is; "
            "exchange the contents of the two"
        )
    images, masks, problems = defaultdict(list), defaultdict(list), []
    for path in in_images:
        if _without_mask_suffix(path.stem) in image_stems:
            problems.append(f"{path}: named like a mask, found among the images; move it to {masks_folder}")
        else:
            images[path.stem].append(path)
    for path in in_masks:
        name = path.stem if path.stem in images else _without_mask_suffix(path.stem) or path.stem
        masks[name].append(path)
    return images, masks, problems


def _candidates(folder: Path) -> list[Path]:
    """The files of `folder` that could be an image or a mask, sorted."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS
        and not path.name.startswith(".")
        and "_superpixels" not in path.stem.lower()
        and path.is_file()
    )


def _without_mask_suffix(stem: str) -> str | None:
    """The id in a mask's stem, None for a stem that is not a mask's."""
    for suffix in MASK_SUFFIXES:
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            return stem[: -len(suffix)]
    return None


def _unpaired(images: Files, masks: Files) -> list[str]:
    """A line for every id that has not exactly one image and one mask."""
    problems = []
    for kind, files in (("images", images), ("masks", masks)):
        for name, paths in files.items():
            if len(paths) > 1:
                listed = ", ".join(map(str, paths))
                problems.append(f"{listed}: {len(paths)} {kind} for the id {name}, expected one; remove the others")
    for name in sorted(images.keys() - masks.keys()):
        problems.append(f"{images[name][0]}: no mask for this image; expected {name}{MASK_SUFFIXES[0]}.png or the like")
    for name in sorted(masks.keys() - images.keys()):
        problems.append(f"{masks[name][0]}: no image for this mask; expected {name}.jpg or the like")
    return problems


def _unreadable(paths: Iterable[Path]) -> list[str]:
    """A line for every file that cannot be opened, or whose name does not fit into a manifest."""
    problems = []
    for path in paths:
        if not path.name.isprintable():  # undecodable bytes are surrogates here: not printable either
            problems.append(f"{str(path)!a}: unprintable characters in the name; rename the file")
        elif not os.access(path, os.R_OK):
            problems.append(f"{path}: no permission to read it; grant it (chmod +r)")
    return problems


def _empty(folder: Path) -> str:
    """What to say of a folder without a single image or mask."""
    directories = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = f"found only the directories {', '.join(directories)}" if directories else "found neither"
    return (
        f"{folder}: no image and no mask ({', '.join(EXTENSIONS)}); {found}; "
        "put them into images/ and masks/ there, or directly into it"
    )


def _check_not_exchanged(folder: Path, pairs: Mapping[str, tuple[Path, Path]]) -> None:
    """Raise InputError when what should be images are masks by their pixels; names alone do not always tell."""
    probed = list(islice(pairs.values(), PROBED))
    images, masks = ([_is_black_and_white(path) for path in paths] for paths in zip(*probed, strict=True))
    if not all(looks is True for looks in images):
        return
    if any(looks is False for looks in masks):
        raise InputError(f"{folder}: images and masks are exchanged: the images are black and white, the masks are not")
    raise InputError(f"{folder}: the images are black and white like masks; put the photographs there")


def _is_black_and_white(path: Path) -> bool | None:
    """Whether nearly all pixels are black or white, with some of each (or are 0 and 1); None if undecodable."""
    try:
        with open_image(path) as image:
            image.draft("L", (256, 256))  # a JPEG is decoded at a fraction of its size
            grey = np.asarray(image.convert("L"))
    except Exception:  # damaged in one way or another; preprocessing says how
        return None
    if grey.max() <= 1:
        return bool(grey.any() and not grey.all())
    black, white = (grey <= 16).mean(), (grey >= 239).mean()
    return bool(black > 0 and white > 0 and black + white >= 0.95)


def _copy_pair(target: Path, name: str, image: Path, mask: Path) -> Pair:
    """Copy one pair to `target` and describe it."""
    image_copy = f"images/{name}{image.suffix.lower()}"
    mask_copy = f"masks/{name}_segmentation{mask.suffix.lower()}"
    image_sha256 = _copy(image, target / image_copy)
    mask_sha256 = _copy(mask, target / mask_copy)
    width, height = oriented_size(target / image_copy) or (None, None)
    return Pair(name, image_copy, mask_copy, width, height, image_sha256, mask_sha256, "training", "folder")


def _copy(source: Path, target: Path) -> str:
    """Copy the bytes of a file, never a link (DVC write-protects what it tracks); return their SHA-256."""
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()
