"""Which files are images by their names, and which image a mask belongs to: `<id>_segmentation.png` and the like."""

import re

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")  # in any case
MASK_WORDS = (
    "segmentation", "segmentations", "mask", "masks", "lesion", "lesions", "seg", "gt", "groundtruth", "truth", "label",
    "labels", "annotation", "annotations",
)  # fmt: skip

_WORD = rf"(?:{'|'.join(MASK_WORDS)}|ground_truth)"
_ENDING = re.compile(rf"^(.+?)[ _.-]+{_WORD}(?:[ _.-]?(\d+))?$", re.IGNORECASE)
_LONG_ENDING = re.compile(rf"^(.+?)[ _.-]+(?:(?:{_WORD}|binary)[ _.-]?)+{_WORD}(?:[ _.-]?(\d+))?$", re.IGNORECASE)
_BEGINNING = re.compile(r"^(?:mask|segmentation|seg|gt|label)([ _.-]+|(?=\d))(.+)$", re.IGNORECASE)
_EXTENSION = re.compile(rf"({'|'.join(map(re.escape, EXTENSIONS))})$", re.IGNORECASE)


def ids_of_mask(stem: str, ending: re.Pattern | None = None) -> list[str]:
    """The ids that a mask of this name (without extension) may belong to, the likeliest first; none if it is no mask's.

    `ending` is one more pattern to try; its first group is the id.
    """
    found = []
    for pattern in (ending, _ENDING, _LONG_ENDING):
        if pattern and (match := pattern.match(stem)):
            base = match[1]
            found += [base, *(f"{base}_{word}" for word in ("image", "img", "orig")), *without_extension(base)]
    if match := _BEGINNING.match(stem):
        between, rest = match.groups()
        found += [f"{word}{between}{rest}" for word in ("image", "img", "Image", "IMG", "photo")] + [rest]
        found += without_extension(rest)
    return found


def without_extension(name: str) -> list[str]:
    """The name without an image extension, as in masks called `a.jpg_mask`; empty if it has none."""
    plain = _EXTENSION.sub("", name)
    return [plain] if plain not in (name, "") else []


def is_numbered(stem: str) -> bool:
    """Whether a mask's name says that it is one of several for an image, as `a_mask_0` does."""
    return any(match[2] for match in (_ENDING.match(stem), _LONG_ENDING.match(stem)) if match)
