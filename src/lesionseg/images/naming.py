"""Which files are images by their names, and which image a mask belongs to: `<id>_segmentation.png` and the like."""

import re

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")  # in any case
MASK_WORDS = (
    "segmentation", "segmentations", "mask", "masks", "lesion", "lesions", "seg", "gt", "groundtruth", "truth", "label",
    "labels", "annotation", "annotations",
)  # fmt: skip

_ENDING = re.compile(rf"^(.+?)[ _.-]+(?:{'|'.join(MASK_WORDS)}|ground_truth)(?:[ _.-]?(\d+))?$", re.IGNORECASE)
_BEGINNING = re.compile(r"^(?:mask|segmentation|seg|gt|label)([ _.-]+)(.+)$", re.IGNORECASE)


def ids_of_mask(stem: str, ending: re.Pattern | None = None) -> list[str]:
    """The ids that a mask of this name, without extension, may be of, the likeliest first; none if no mask's name.

    `ending` is one more to look for; its first group is the id.
    """
    found = []
    for pattern in (ending, _ENDING):
        if pattern and (match := pattern.match(stem)):
            base = match[1]
            found += [base, *(f"{base}_{word}" for word in ("image", "img", "orig"))]
    if match := _BEGINNING.match(stem):
        between, rest = match.groups()
        found += [f"{word}{between}{rest}" for word in ("image", "img", "Image", "IMG", "photo")] + [rest]
    return found


def is_numbered(stem: str) -> bool:
    """Whether a mask's name says that it is one of several of an image, as `a_mask_0`."""
    match = _ENDING.match(stem)
    return bool(match and match[2])
