"""The worst-segmented images of each split as one small picture: what failures look like."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lesionseg.evaluate.evaluation import Case
from lesionseg.evaluate.split_scores import SplitScores
from lesionseg.formats.processed import Processed
from lesionseg.inference.outline import outlined

COUNT = 4  # images per split
PANEL, GAP = 224, 4  # pixels


@dataclass(frozen=True)
class Worst:
    """An image, its index among the cases, and its score."""

    id: str
    place: int
    dice: float


def worst(cases: Sequence[Case], scored: Mapping[str, SplitScores]) -> dict[str, list[Worst]]:
    """By split, the images with the lowest Dice, the lowest first; ties go by id."""
    place = {case.id: index for index, case in enumerate(cases)}
    found = {}
    for split, scores in scored.items():
        rows = sorted((float(row["dice"]), row["id"]) for row in scores.table())
        found[split] = [Worst(name, place[name], dice) for dice, name in rows[:COUNT]]
    return found


@dataclass(frozen=True)
class Pictures:
    """Where to find the photographs with their true and predicted masks."""

    cases: Sequence[Case]
    data: Processed
    predicted: Path  # .npy, uint8 (M, H, W): the masks of the cases

    def sheet(self, rows: Iterable[Sequence[Worst]]) -> bytes:
        """A PNG with a row of photographs for each of `rows`: the true outline blue, the predicted one orange."""
        rows = list(rows)
        predicted = np.load(self.predicted, mmap_mode="r")
        width, step = max(map(len, rows)), PANEL + GAP
        sheet = np.full((len(rows) * step - GAP, width * step - GAP, 3), 255, np.uint8)
        for y, row in enumerate(rows):
            for x, one in enumerate(row):
                index = self.cases[one.place].row
                masks = {"truth": self.data.masks[index], "predicted": predicted[one.place]}
                drawn = outlined(self.data.images[index], masks, (PANEL, PANEL))
                sheet[y * step : y * step + PANEL, x * step : x * step + PANEL] = drawn
        return cv2.imencode(".png", sheet[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
