"""Which files of a user's folder are images, which are masks, which belong together, and which split they are in.

The folder is searched with all directories below it. Whether a file is an image or a mask is decided by its directory
(the nearest one named `images`, `imgs`, `…_Input` or `masks`, `…_GroundTruth`, `IMD002_lesion` and the like), else by
its name: a mask is `<id>_segmentation`, `<id>_mask`, `<id>_lesion`, `mask_<id>` and the like. An image's id is its name
without extension. A mask belongs to the image whose id remains when that prefix or suffix is removed; in a directory
of masks also to the image of exactly the same name.

Directories named after a split (train, val, test, `ISIC2018_Task1_Training_GroundTruth`) above or below images and
masks say which split a pair belongs to. If an id occurs in several directories, their names become part of the ids.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lesionseg.common.errors import InputError
from lesionseg.common.text import id_problem
from lesionseg.download.side_tables import is_side_table
from lesionseg.download.unfetched import unfetched
from lesionseg.images.naming import EXTENSIONS, MASK_WORDS, ids_of_mask, is_numbered, without_extension

IMAGE_WORDS = ("images", "image", "imgs", "img", "photos", "photographs", "pictures", "input", "inputs")
SPLIT_WORDS = {
    "train": "train", "training": "train", "tr": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test", "ts": "test", "trainset": "train", "valset": "val",
    "testset": "test", "holdout": "test",
}  # fmt: skip
SET_WORDS = ("set", "data", "dataset", "split", "subset")  # `train_data` is a split
# Names that annotation tools give to directories of masks in which a pixel's value or colour is its class (VOC's, as
# CVAT and LabelMe write them; Supervisely's), and to directories that show the same in another form.
MASK_DIRECTORIES = ("segmentation class", "segmentation class png", "segmentation class raw", "masks machine")
SHOWN_AGAIN = ("segmentation object", "segmentation object png", "segmentation class visualization", "masks human")
PASSED_DIRECTORIES = ("roi", "superpixels")  # by the last word: PH2's colour regions, ISIC's superpixels
EXAMPLES = 3  # files or suffixes that a message lists

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Place:
    """What the directories above a file say."""

    role: str | None  # image | mask
    split: str | None  # train | val | test
    rest: tuple[str, ...]  # the rest of the names, which tells directories with equal ids apart


@dataclass(frozen=True)
class Located:
    """One image with its mask, or with several files that make up its mask."""

    image: Path
    masks: tuple[Path, ...]
    split: str | None = None  # of the directory it was in: train | val | test


@dataclass
class Layout:
    """What was found in a folder."""

    pairs: dict[str, Located] = field(default_factory=dict)  # by id, sorted
    tables: list[Path] = field(default_factory=list)  # see side_tables
    passed_over: Counter = field(default_factory=Counter)  # kind of file -> number
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    path: Path
    place: Place
    stem: str  # in Unicode's composed form, so that names that look the same are the same


def find_layout(folder: Path, mask_suffix: str | None = None) -> Layout:
    """Return the pairs in `folder`.

    `mask_suffix` is a suffix of masks' names to look for besides the known ones. Raises InputError if the folder is
    missing or holds no pair, and with one line for every image without mask, mask without image, id with two images or
    two masks, link to a directory, and file that cannot be read or was not fetched.
    """
    if not folder.is_dir():
        found = "found a file" if folder.exists() else "no such directory"
        home = "; ~ is not expanded there, write $HOME" if str(folder).startswith("~") else ""
        raise InputError(f"download.folder: {folder}: {found}, expected a directory with images and masks{home}")
    layout = Layout()
    files = sorted(_files(folder, layout), key=lambda file: file.path)
    if mask_suffix:
        mask_suffix = next(iter(without_extension(mask_suffix)), mask_suffix)
    ending = re.compile(rf"^(.+){re.escape(mask_suffix)}()$", re.IGNORECASE) if mask_suffix else None
    images, masks = _roles(files, layout, ending)
    if layout.problems and not (images and masks):
        raise InputError(layout.problems)
    if not images or not masks:
        raise InputError(_nothing(folder, images, masks, layout.passed_over, mask_suffix))
    _pair(images, masks, layout, ending)
    if layout.problems:
        raise InputError(layout.problems)
    return layout


def place(directories: Sequence[str]) -> Place:
    """What directory names say, given from the top down: the nearest role and the nearest split count."""
    role = split = None
    rest = []
    for name in directories:
        words = [word.lower() for word in _WORDS.findall(name)]
        splits = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
        others = [word for word in words if word not in SPLIT_WORDS]
        last = others[-1] if others else None
        by_class = " ".join(others) in MASK_DIRECTORIES
        own = "image" if last in IMAGE_WORDS else "mask" if last in MASK_WORDS or by_class else None
        role = own or role
        # `train`, `images_train`, `train_data` and `…_Training_Input` are splits, `training_of_residents` is not.
        if splits and (own or last in (None, *SET_WORDS) or words[-1] in SPLIT_WORDS):
            split = splits[-1]
            others = [word for word in others if word not in SET_WORDS]
        elif splits:
            others = words
        if by_class:
            others = []
        left = " ".join(word for word in others if word not in IMAGE_WORDS and word not in (*MASK_WORDS, "ground"))
        rest += [left] if left else []
    return Place(role, split, tuple(rest))


def _files(folder: Path, layout: Layout) -> Iterator[_File]:
    """The files below `folder` that could be an image or a mask; the others are counted."""
    pending: list[tuple[Path, tuple[str, ...]]] = [(folder, ())]
    while pending:
        directory, names = pending.pop()
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except PermissionError:
            layout.problems.append(f"{directory}: no permission to list it; grant it (chmod u+rx)")
            continue
        here = place(names)
        for entry in entries:
            path = Path(entry.path)
            is_directory = _is_directory(entry)
            words = [word.lower() for word in _WORDS.findall(path.stem)]
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                layout.passed_over["hidden"] += 1
            elif entry.is_symlink() and is_directory:
                layout.problems.append(
                    f"{path}: is a link to a directory, whose content DVC does not track, so changed data would go "
                    f"unnoticed; put {os.path.realpath(path)} itself there, or set download.folder to it"
                )
            elif is_directory:
                if " ".join(words) in SHOWN_AGAIN:
                    layout.passed_over[f"in {entry.name}/"] += 1
                elif words and words[-1] in PASSED_DIRECTORIES:
                    layout.passed_over[f"in {entry.name}/" if len(words) == 1 else f"in …_{words[-1]}/"] += 1
                else:
                    pending.append((path, (*names, entry.name)))
            elif "superpixels" in words:
                layout.passed_over["superpixels"] += 1
            elif path.suffix.lower() == ".dvc" and not path.with_suffix("").exists():
                layout.problems.append(f"{path}: the data it stands for was not fetched; fetch it: dvc pull {path}")
            elif is_side_table(path):
                layout.tables.append(path)
            elif path.stem.lower() == "groups" and path.suffix.lower() in (".tsv", ".txt", ".xlsx", ".xls", ".ods"):
                layout.problems.append(f"{path}: groups are read from CSV; save it as groups.csv, or rename it")
            elif path.suffix.lower() not in EXTENSIONS:
                layout.passed_over[path.suffix.lower() or "without extension"] += 1
            elif not (problem := _unusable(path)):
                yield _File(path, here, unicodedata.normalize("NFC", path.stem))
            else:
                layout.problems.append(problem)


def _is_directory(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _unusable(path: Path) -> str | None:
    """Why a file cannot be read, or its name cannot go into a manifest; None if nothing is wrong."""
    if problem := id_problem(path.stem):
        return f"{path}: its name {problem}"
    if reason := unfetched(path):
        return f"{path}: {reason}"
    if not path.is_file():
        return f"{path}: is a pipe or a device, expected an image file; remove it"
    if not os.access(path, os.R_OK):
        return f"{path}: no permission to read it; grant it (chmod +r)"
    return None


def _roles(files: Iterable[_File], layout: Layout, ending: re.Pattern | None) -> tuple[list[_File], list[_File]]:
    """(images, masks), by their directories, else by their names."""
    files = list(files)
    in_images = [file for file in files if file.place.role == "image"]
    in_masks = [file for file in files if file.place.role == "mask"]
    like_masks = [bool(ids_of_mask(file.stem, ending)) for file in in_images]
    if in_images and all(like_masks) and in_masks and not any(ids_of_mask(file.stem, ending) for file in in_masks):
        raise InputError(
            f"{in_images[0].path.parent}: all {len(in_images)} files are named like masks, and none in "
            f"{in_masks[0].path.parent} is; swap the contents of the two"
        )
    bases = {base for file in files for base in ids_of_mask(file.stem, ending)}
    stems = {file.stem for file in in_images}
    images, masks = [], []
    for file in files:
        named = ids_of_mask(file.stem, ending)
        match file.place.role:
            case "mask":
                masks.append(file)
            case "image" if any(base in stems for base in named):
                layout.problems.append(f"{file.path}: named like a mask, found among the images; move it to the masks")
            case None if named and file.stem not in bases:
                masks.append(file)
            case _:
                images.append(file)
    return images, masks


def _pair(images: Sequence[_File], masks: Sequence[_File], layout: Layout, ending: re.Pattern | None) -> None:
    """Fill `layout.pairs`, or its problems."""
    by_stem: dict[str, list[_File]] = defaultdict(list)
    for image in images:
        by_stem[image.stem].append(image)
    masks_of: dict[Path, list[_File]] = defaultdict(list)
    orphans: dict[str, list[_File]] = defaultdict(list)
    for mask in masks:
        own = [mask.stem, *without_extension(mask.stem)] if mask.place.role == "mask" else []
        named = ids_of_mask(mask.stem, ending)
        for stem in own + named:
            same = [image for image in by_stem.get(stem, ()) if image.place.rest == mask.place.rest]
            same = [image for image in same if image.place.split == mask.place.split] or same
            if target := (same or by_stem.get(stem)):
                masks_of[target[0].path].append(mask)
                break
        else:
            orphans[(named or own)[0]].append(mask)
    with_masks = {image.path.parent for image in images if masks_of.get(image.path)}
    with_masks |= {mask.path.parent for mask in masks}
    if not masks_of:
        with_masks |= {image.path.parent for image in images}
    prefixed = any(len({image.place for image in found}) > 1 for found in by_stem.values())
    for stem, found in by_stem.items():
        for where in sorted({(image.place.split or "", image.place.rest) for image in found}):
            here = [image for image in found if (image.place.split or "", image.place.rest) == where]
            prefix = "_".join(re.sub(r"\W+", "-", part) for part in (where[0], *where[1]) if part)
            name = f"{prefix}_{stem}" if prefixed and prefix else stem
            _take(name, here, masks_of, with_masks, layout)
    folded = {stem.casefold(): stem for stem in by_stem}
    for stem, found in orphans.items():
        layout.problems += _orphan_lines(stem, found, folded.get(stem.casefold()))
    layout.pairs = dict(sorted(layout.pairs.items()))


def _take(
    name: str, images: Sequence[_File], masks_of: Mapping[Path, list[_File]], with_masks: set[Path], layout: Layout
) -> None:
    """Add the pair of one id in one place, or the problem with it."""
    masks = [mask for image in images for mask in masks_of.get(image.path, ())]
    if len(images) > 1:
        layout.problems.append(_several("images", name, images))
    if len(masks) > 1 and not all(is_numbered(mask.stem) for mask in masks):
        layout.problems.append(_several("masks", name, masks))
    elif not masks and images[0].place.role is None and images[0].path.parent not in with_masks:
        layout.passed_over[f"images without any mask in {images[0].path.parent.name}/"] += len(images)
    elif not masks:
        layout.problems.append(
            f"{images[0].path}: no mask for this image; expected {images[0].stem}_segmentation.png or the like"
        )
    splits = sorted({file.place.split for file in (*images, *masks) if file.place.split})
    if masks and len(splits) > 1:
        layout.problems.append(f"{images[0].path}: in {splits[0]}, but {masks[0].path} in {splits[1]}; put both in one")
    if masks:
        if name in layout.pairs:
            layout.problems.append(_several("images", name, [*images], layout.pairs[name].image))
        layout.pairs[name] = Located(images[0].path, tuple(mask.path for mask in masks), splits[0] if splits else None)


def _several(kind: str, name: str, files: Sequence[_File], *others: Path) -> str:
    listed = ", ".join(map(str, [*others, *(file.path for file in files)]))
    return f"{listed}: {len(files) + len(others)} {kind} for the id {name}, expected one; remove the others"


def _orphan_lines(stem: str, masks: Sequence[_File], like: str | None) -> Iterator[str]:
    if len(masks) > 1 and not all(is_numbered(mask.stem) for mask in masks):
        yield _several("masks", stem, masks)
    for mask in masks:
        other = f"; the image {like} differs only in upper and lower case, rename one of the two" if like else ""
        yield f"{mask.path}: no image for this mask; expected {stem}.jpg or the like{other}"


def _nothing(
    folder: Path, images: Sequence[_File], masks: Sequence[_File], passed_over: Counter, mask_suffix: str | None
) -> str:
    """The message for a folder without images or without masks: what was found, and what was looked for."""
    files = [*images, *masks]
    here = sorted({str(file.path.parent.relative_to(folder)) for file in files})
    if not files:
        directories = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = f"found only the directories {', '.join(directories)}" if directories else "found neither"
        others = f" ({counted(passed_over)} passed over)" if passed_over else ""
        return (
            f"{folder}: no image and no mask ({', '.join(EXTENSIONS)}); {found}{others}; "
            "put them into images/ and masks/ there, or directly into it"
        )
    kind, absent = ("images", "masks") if images else ("masks", "images")
    if images and set(Counter((file.path.parent, file.stem) for file in files).values()) == {2}:
        twice = " and ".join(file.path.name for file in files if file.stem == files[0].stem)[:200]
        return (
            f"{folder}: found two files of each name, such as {twice}, and nothing says which are the masks; move "
            "those to a directory named masks/, or add _mask to their names"
        )
    endings = Counter(match[0] for file in files if (match := re.search(r"[_.-][A-Za-z]+\d?$", file.stem)))
    if here == [kind] and not endings:
        return f"{folder}: found {kind}/ without {absent}/; put the {absent} there"
    common = ", ".join(f"{ending} ({number})" for ending, number in endings.most_common(EXAMPLES)) or "none"
    looked = f"{mask_suffix}, " if mask_suffix else ""
    return (
        f"{folder}: found {len(files)} {kind} and no {absent}: in the directories {', '.join(here[:EXAMPLES])}"
        f"{', …' if len(here) > EXAMPLES else ''}, with the suffixes {common}; looked for masks in directories named "
        f"masks/, …_GroundTruth/ and the like, or named <id>{looked}_segmentation, _mask, _lesion, mask_<id> and the "
        "like; set another suffix with download.mask_suffix"
    )


def counted(passed_over: Counter) -> str:
    """Kinds of files with their numbers, the most frequent first: `3 .csv, 1 hidden`."""
    return ", ".join(
        f"{number} {kind}" for kind, number in sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    )
