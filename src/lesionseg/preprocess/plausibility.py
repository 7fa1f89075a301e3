"""Whether the masks of a whole data set are plausible: some mistakes do not show in a single file.

A lesion lies within its photograph. A mask with lesion along its rim and none in the middle is inverted, an outline
that was never filled, or a rare lesion: 1 of 1,000 among centre crops of ISIC 2018, none of 2,000 whole photographs.
Masks that are all empty or all full come from a failed export. Outlines leave most of their bounding box empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lesionseg.preprocess.pairs import ReadPair

RIM = 16  # the rim is 1/16 of the image wide on each side
INVERTED = 0.5  # at least this share of the rim is lesion in a mask that may be inverted
FULL = 0.99  # at least this share of the image is lesion in a full mask
HOLLOW = 0.25  # an outline that was never filled covers less of its bounding box; none of 3,000 lesions does
MANY = 0.5  # if more than this share of the masks are empty, full or hollow, there is a warning; inverted: an error
NEARLY_ALL = 0.9  # more than this share of full masks among the drawn ones is an error
SHOWN = 5  # ids in a message


@dataclass
class MaskSet:
    """Collects what is suspicious about the masks."""

    may_be_empty: bool = False  # a set to evaluate on may show only healthy skin, a set to train on may not
    total: int = 0
    empty: list[str] = field(default_factory=list)  # ids
    full: list[str] = field(default_factory=list)
    inverted: list[str] = field(default_factory=list)
    hollow: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)

    def add(self, name: str, pair: ReadPair) -> None:
        """Check one mask; `name` is its id."""
        self.total += 1
        if pair.lesion_fraction == 0:
            self.empty.append(name)
        elif pair.lesion_fraction >= FULL:
            self.full.append(name)
        elif _looks_inverted(pair.mask):
            self.inverted.append(name)
        if 0 < pair.filling < HOLLOW:
            self.hollow.append(name)
        if pair.turned:
            self.turned.append(name)

    def problems(self) -> list[str]:
        """What must be a mistake, in a line each."""
        drawn = self.total - len(self.empty)
        if self.total and not drawn and not self.may_be_empty:
            return [f"all {self.total} masks are empty, expected white lesions; check and export them again"]
        if len(self.full) > NEARLY_ALL * drawn:
            return [
                f"{len(self.full)} of {drawn} masks are lesion all over ({_some(self.full)}), expected background too; "
                "check and export them again"
            ]
        if len(self.inverted) > MANY * drawn:
            return [
                f"{len(self.inverted)} of {drawn} masks have lesion along the rim and background within "
                f"({_some(self.inverted)}), as inverted masks do; expected white lesions; set "
                "download.mask_lesion=black where black is lesion"
            ]
        return []

    def warnings(self) -> list[str]:
        """What may be a mistake, in a line each."""
        said = []
        for kind, names in (("empty", self.empty), ("lesion all over", self.full)):
            if len(names) > MANY * self.total:
                said.append(f"{len(names)} of {self.total} masks are {kind} ({_some(names)})")
        if len(self.hollow) > MANY * self.total:
            said.append(
                f"{len(self.hollow)} of {self.total} masks fill less than a quarter of the rectangle around them "
                f"({_some(self.hollow)}), as outlines that were never filled do; look at them"
            )
        if self.inverted:
            said.append(
                f"{len(self.inverted)} of {self.total} masks have lesion along the rim and background within, as "
                f"inverted ones do ({_some(self.inverted)}); look at them"
            )
        if self.turned:
            said.append(
                f"{len(self.turned)} images and their masks have different EXIF orientations ({_some(self.turned)}); "
                "the masks are taken as drawn on the upright picture, which the sizes cannot confirm; look at them"
            )
        return said


def _looks_inverted(mask: np.ndarray) -> bool:
    height, width = mask.shape
    down, across = max(1, height // RIM), max(1, width // RIM)
    inside = mask[down:-down, across:-across]
    rim = (int(mask.sum()) - int(inside.sum())) / (mask.size - inside.size)
    middle = mask[height // 4 : -(height // 4), width // 4 : -(width // 4)].mean()
    return bool(rim >= INVERTED and rim > middle)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
