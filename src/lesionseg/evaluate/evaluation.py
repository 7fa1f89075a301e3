"""From images to figures: predict, choose a threshold, measure every image on all cores, report each split."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from torch import device as Device
from torch import nn
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic
from lesionseg.common.parallel import ordered_map
from lesionseg.evaluate.histogram import histogram, level
from lesionseg.evaluate.measurement import measure
from lesionseg.evaluate.split_report import SplitReport
from lesionseg.evaluate.sweep import Sweep
from lesionseg.formats.array_writer import ArrayWriter
from lesionseg.formats.processed import EVALUATED, Sample
from lesionseg.images.decoding import ImageError
from lesionseg.images.masks import read_mask
from lesionseg.inference.postprocess import Cleaning
from lesionseg.inference.prediction import Prediction, predict
from lesionseg.inference.refine import REFINEMENTS

cv2.setNumThreads(1)  # the cores are shared out image by image; cv2's own threads would get in the way


@dataclass(frozen=True)
class Case:
    """One image to evaluate: where it stands in the processed arrays, and its original mask."""

    id: str
    split: str
    row: int
    mask: Path


def cases(samples: Sequence[Sample], original_masks: dict[str, Path]) -> list[Case]:
    """The images of every split but `train`: `val` first, in the order of the samples within a split.

    Raises InputError where there is none, or for every original mask that is missing.
    """
    held_out = [(row, sample) for row, sample in enumerate(samples) if sample.split != "train"]
    if not held_out:
        raise InputError("no image outside the training split to evaluate on; raise preprocess.validation_fraction")
    problems = []
    for _, sample in held_out:
        path = original_masks.get(sample.id)
        if path is None:
            problems.append(f"{sample.id}: processed, but not in the raw data; run `dvc repro` from the start")
        elif not path.is_file():
            problems.append(f"{path}: not found; run `dvc repro download`")
    if problems:
        raise InputError(problems)
    held_out.sort(key=lambda entry: (EVALUATED.index(entry[1].split), entry[0]))
    return [Case(sample.id, sample.split, row, original_masks[sample.id]) for row, sample in held_out]


@dataclass(frozen=True)
class Predictor:
    """How probabilities are made: by the network, averaged over views, refined along the edges of the image."""

    model: nn.Module
    device: Device
    augmentation: str = "none"  # one of prediction.VIEWS
    refinement: str = "none"  # one of refine.REFINEMENTS
    workers: int = 1

    @property
    def changes(self) -> bool:
        """Whether the final probabilities can differ from the network's own."""
        return self.augmentation != "none" or self.refinement != "none"

    def maps(self, images: np.ndarray, rows: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (final, plain) 8-bit probabilities (H, W) for the rows of images uint8 (N, H, W, 3), in order."""
        predicted = predict(self.model, images, rows, self.device, self.augmentation)
        predicted = tqdm(predicted, "predict", len(rows), unit="image", disable=None)
        refine = REFINEMENTS[self.refinement]
        if refine is None:
            return ((prediction.averaged, prediction.plain) for prediction in predicted)

        def one(item: tuple[Prediction, int]) -> tuple[np.ndarray, np.ndarray]:
            prediction, row = item
            return refine(prediction.averaged, images[row]), prediction.plain

        return ordered_map(one, zip(predicted, rows, strict=True), self.workers)

    @contextmanager
    def saved(self, images: np.ndarray, rows: Sequence[int], path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Write the final maps to `path` and give (final, plain), uint8 (M, H, W), mapped into memory read-only.

        The plain maps are gone when the context ends.
        """
        plain = path.with_name(f".plain.{path.name}")
        paths = [path, plain] if self.changes else [path]
        try:
            with ExitStack() as stack:
                temporary = [stack.enter_context(atomic(path)) for path in paths]
                writers = [stack.enter_context(ArrayWriter(path, images.shape[1:3])) for path in temporary]
                for maps in self.maps(images, rows):
                    for writer, probabilities in zip(writers, maps, strict=False):
                        writer.append(probabilities)
            yield np.load(path, mmap_mode="r"), np.load(paths[-1], mmap_mode="r")
        finally:
            plain.unlink(missing_ok=True)

    def sweep(self, images: np.ndarray, masks: np.ndarray, rows: Sequence[int]) -> Sweep:
        """The scores of the `rows` at every threshold, against masks uint8 (N, H, W)."""
        sweep = Sweep()
        for (final, _), row in zip(self.maps(images, rows), rows, strict=True):
            sweep.add(histogram(final, masks[row]))
        return sweep


class Threshold(NamedTuple):
    """A probability from which on a pixel is lesion, and the split it was chosen on ("fixed": on none)."""

    value: float
    source: str


def thresholds(
    rule: str, fixed: float, cases: Sequence[Case], chosen_on: Callable[[str], Sweep]
) -> dict[str, Threshold]:
    """The threshold of each split. No split is scored at a threshold that was chosen on it.

    `rule` is `fixed`, or the split to choose on: `train`, for all the others; `val`, for the official splits,
    while `val` itself keeps the fixed one. `chosen_on` gives the sweep of a split; it is asked for one only if
    that is chosen on. Raises InputError where `val` would be chosen on for nothing.
    """
    splits = list(dict.fromkeys(case.split for case in cases))
    if rule == "fixed":
        return dict.fromkeys(splits, Threshold(fixed, "fixed"))
    if rule == "val" and splits == ["val"]:
        raise InputError(
            "params.yaml: evaluate.threshold_from: found 'val', but val is the only split evaluated, and a threshold "
            "must not be scored where it was chosen; expected fixed, train, or a data set with official splits"
        )
    chosen = Threshold(chosen_on(rule).best(), rule)
    return {split: Threshold(fixed, "fixed") if split == rule else chosen for split in splits}


def evaluate(
    cases: Sequence[Case],
    probabilities: np.ndarray,
    plain: np.ndarray,
    masks: np.ndarray,
    thresholds: Mapping[str, Threshold],
    cleaning: Cleaning,
    predicted: Path,
    keep: Callable[[str, str, np.ndarray], None] | None,
    workers: int,
) -> dict[str, SplitReport]:
    """Measure every case and return a report for each split; write the predicted masks to the file `predicted`.

    `probabilities` and `plain` (the same, or the network's own) are uint8 (M, H, W), entry i belonging to
    `cases[i]`; `masks` uint8 (N, H, W) are those of the processed data set. `thresholds` gives that of each split.
    `keep` is handed split, id and predicted mask at native size of each. Memory holds two images a worker.
    """

    def one(index: int):
        case = cases[index]
        final = probabilities[index]
        return measure(
            final,
            plain[index],
            masks[case.row],
            original(case),
            level(thresholds[case.split].value),
            cleaning,
            None if keep is None else lambda mask: keep(case.split, case.id, mask),
        )

    postprocessed = bool(cleaning) or plain.filename != probabilities.filename
    reports = {split: SplitReport(*cut, postprocessed) for split, cut in thresholds.items()}
    with atomic(predicted) as temporary, ArrayWriter(temporary, probabilities.shape[1:]) as writer:
        measured = ordered_map(one, range(len(cases)), workers)
        for case, (measurement, mask) in zip(
            cases, tqdm(measured, "measure", len(cases), unit="image", disable=None), strict=True
        ):
            writer.append(mask)
            reports[case.split].add(case.id, measurement)
    return reports


def original(case: Case) -> np.ndarray:
    """The true mask at native size, uint8 (height, width) of 0 and 1."""
    try:
        return read_mask(case.mask)
    except ImageError as error:
        raise InputError(f"{case.mask}: {error}; run `dvc repro --force download`") from None
