"""The settings that turn a network's probabilities into a mask: the part of a model beside its weights."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from lesionseg.common.errors import InputError

# No torch or OpenCV above: a command shows its help without them.
if TYPE_CHECKING:
    from lesionseg.inference.postprocess import Cleaning

VIEWS = {"none": 1, "flips": 4, "flips_rotations": 8}  # test-time augmentation -> images averaged
REFINEMENTS = ("none", "crf")
LARGEST_OPENING = 64  # pixels, as in the schema of evaluate.opening


@dataclass(frozen=True)
class Settings:
    """Named as in the `evaluate` group of params.yaml, which explains each. The defaults change nothing.

    Raises InputError with a line for every value of the wrong type or out of range.
    """

    threshold: float = 0.5  # in (0, 1), applied to 8-bit probabilities
    test_time_augmentation: str = "none"  # one of VIEWS
    refinement: str = "none"  # one of REFINEMENTS
    opening: int = 0  # pixels at the network's size
    keep_largest: bool = False
    fill_holes: bool = False

    def __post_init__(self) -> None:
        problems = []
        if type(self.threshold) not in (int, float) or not 0 < self.threshold < 1:
            problems.append(f"threshold: found {self.threshold!r}, expected a number above 0 and below 1")
        for name, choices in (("test_time_augmentation", VIEWS), ("refinement", REFINEMENTS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                problems.append(f"{name}: found {value!r}, expected {' or '.join(choices)}")
        if type(self.opening) is not int or not 0 <= self.opening <= LARGEST_OPENING:
            problems.append(f"opening: found {self.opening!r}, expected 0 to {LARGEST_OPENING} pixels")
        for name in ("keep_largest", "fill_holes"):
            if type(getattr(self, name)) is not bool:
                problems.append(f"{name}: found {getattr(self, name)!r}, expected true or false")
        if problems:
            raise InputError(problems)

    @property
    def level(self) -> int:
        """The lowest 8-bit probability that counts as lesion, 1 to 255."""
        return level(self.threshold)

    @property
    def cleaning(self) -> "Cleaning":
        """What is done to the thresholded mask."""
        from lesionseg.inference.postprocess import Cleaning

        return Cleaning(self.opening, self.keep_largest, self.fill_holes)

    def as_dict(self) -> dict[str, float | str | int | bool]:
        """By name, as a model file holds them."""
        return asdict(self)

    @classmethod
    def of(cls, said: object) -> "Settings":
        """Read what `as_dict` gave. Raises InputError for anything else: a model file may be a stranger's."""
        names = [field.name for field in fields(cls)]
        if not isinstance(said, Mapping):
            raise InputError(f"settings: found {str(said)[:200]!r}, expected {', '.join(names)}")
        if said.keys() != set(names):
            raise InputError(f"settings: found {', '.join(map(str, said))[:200]}, expected {', '.join(names)}")
        return cls(**said)


def level(threshold: float) -> int:
    """The smallest 8-bit probability that counts as lesion, 1 to 255: q / 255 >= threshold, which is above 0."""
    return max(1, math.ceil(round(threshold * 255, 9)))  # 0.2 * 255 is 51.00000000000001
