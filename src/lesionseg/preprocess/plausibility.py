"""Whether the masks of a whole data set can be what they seem: some mistakes show in no single file.

A lesion lies within its photograph. A mask whose rim is lesion and whose middle is not is inverted, an outline that was
never filled, or a rare lesion: 1 of 1,000 among centre crops of ISIC 2018, none of 2,000 whole photographs. Masks that
are all empty or all full come of an export gone wrong. Outlines leave most of the rectangle around them empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lesionseg.preprocess.pairs import ReadPair

RIM = 16  # the rim is a sixteenth of the image wide on each side
INVERTED = 0.5  # of the rim, a mask that may be inverted has at least this share as lesion
FULL = 0.99  # of the image, a full mask has at least this share as lesion
HOLLOW = 0.25  # of the rectangle around it, an outline that was never filled has less; of 3,000 lesions none has
MANY = (
    0.5  # beyond this share of the masks, a warning says how many are empty, full or hollow; inverted ones are refused
)
NEARLY_ALL = 0.9  # beyond this share of the drawn masks, full ones are refused
SHOWN = 5  # ids in a message


@dataclass
class MaskSet:
    """What was seen of the masks, one after another."""

    may_be_empty: bool = False  # a set to evaluate on may show healthy skin alone, a set to train on cannot
    total: int = 0
    empty: list[str] = field(default_factory=list)  # ids
    full: list[str] = field(default_factory=list)
    inverted: list[str] = field(default_factory=list)
    hollow: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)

    def add(self, name: str, pair: ReadPair) -> None:
        """Look at one mask, under its id."""
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
        """What cannot be right."""
        drawn = self.total - len(self.empty)
        if self.total and not drawn and not self.may_be_empty:
            return [
                f"all {self.total} masks are empty, expected lesion in white; see what they hold and export them again"
            ]
        if len(self.full) > NEARLY_ALL * drawn:
            return [
                f"{len(self.full)} of {drawn} masks are lesion all over ({_some(self.full)}), expected background too; "
                "see what they hold and export them again"
            ]
        if len(self.inverted) > MANY * drawn:
            return [
                f"{len(self.inverted)} of {drawn} masks have lesion along the rim and background within "
                f"({_some(self.inverted)}), as inverted masks do; expected white lesions; set "
                "download.mask_lesion=black where black is lesion"
            ]
        return []

    def warnings(self) -> list[str]:
        """What may be right, in a line each."""
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
                f"{len(self.turned)} images and their masks are not turned alike by their EXIF orientations; the sizes "
                "do not tell whether the masks were drawn on the picture as it is seen, as is assumed here "
                f"({_some(self.turned)}); look at them"
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
