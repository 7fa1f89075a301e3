"""From images to scores: predict, choose a threshold, measure every image, collect the scores of each split."""

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
from lesionseg.evaluate import submission
from lesionseg.evaluate.histogram import histogram
from lesionseg.evaluate.measurement import Maps, Truth, measure
from lesionseg.evaluate.split_scores import Setting, SplitScores
from lesionseg.evaluate.sweep import Sweep
from lesionseg.formats.array_writer import ArrayWriter
from lesionseg.formats.processed import EVALUATED, Processed, Rows, Sample
from lesionseg.images.decoding import ImageError
from lesionseg.images.masks import read_mask
from lesionseg.inference.prediction import Prediction, predict
from lesionseg.inference.refine import REFINERS
from lesionseg.inference.settings import level

cv2.setNumThreads(1)  # the cores are shared out image by image; cv2's own threads would get in the way


@dataclass(frozen=True)
class Case:
    """One image to evaluate: its row in the processed arrays, and its original mask."""

    id: str
    split: str
    row: int
    mask: Path
    group: str  # of duplicates, as in samples.csv


def cases(samples: Sequence[Sample], original_masks: dict[str, Path]) -> list[Case]:
    """The images of every split but `train`: `val` first, and within a split in the order of the samples.

    Raises InputError where there are none, and for every original mask that is missing.
    """
    held_out = [(row, sample) for row, sample in enumerate(samples) if sample.split != "train"]
    if not held_out:
        raise InputError("no image outside the training split to evaluate on; raise preprocess.validation_fraction")
    problems = []
    for _, sample in held_out:
        path = original_masks.get(sample.id)
        if path is None:
            problems.append(f"{sample.id}: not in the raw data, though processed; run `dvc repro` from the start")
        elif not path.is_file():
            problems.append(f"{path}: not found; run `dvc repro download`")
    if problems:
        raise InputError(problems)
    held_out.sort(key=lambda entry: (EVALUATED.index(entry[1].split), entry[0]))
    return [Case(sample.id, sample.split, row, original_masks[sample.id], sample.group) for row, sample in held_out]


@dataclass(frozen=True)
class Predictor:
    """Predicts probabilities: the network's, averaged over views, then refined along the edges in the image."""

    model: nn.Module
    device: Device
    augmentation: str = "none"  # one of settings.VIEWS
    refinement: str = "none"  # one of settings.REFINEMENTS
    workers: int = 1

    @property
    def changes(self) -> bool:
        """Whether the final probabilities can differ from the network's own."""
        return self.augmentation != "none" or self.refinement != "none"

    def maps(self, images: Rows, rows: Sequence[int]) -> Iterator[Maps]:
        """Yield the 8-bit probabilities (H, W) of the `rows` of `images`, uint8 (N, H, W, 3), in order."""
        maps = predict(self.model, images, rows, self.device, self.augmentation)
        predicted = tqdm(maps, "predict", len(rows), unit="image", disable=None)
        refine = REFINERS[self.refinement]
        if refine is None:
            return (Maps(prediction.averaged, prediction.plain) for prediction in predicted)

        def one(item: tuple[Prediction, int]) -> Maps:
            prediction, row = item
            return Maps(refine(prediction.averaged, images[row]), prediction.plain)

        return ordered_map(one, zip(predicted, rows, strict=True), self.workers)

    @contextmanager
    def saved(self, images: Rows, rows: Sequence[int], path: Path) -> Iterator[Maps]:
        """Write the final maps to `path`, and give final and plain maps, uint8 (M, H, W), memory-mapped read-only.

        The plain maps are deleted when the context ends.
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
            yield Maps(np.load(path, mmap_mode="r"), np.load(paths[-1], mmap_mode="r"))
        finally:
            plain.unlink(missing_ok=True)

    def sweep(self, images: Rows, masks: Rows, rows: Sequence[int]) -> Sweep:
        """The scores of the `rows` at every threshold, against masks uint8 (N, H, W)."""
        sweep = Sweep()
        for (final, _), row in zip(self.maps(images, rows), rows, strict=True):
            sweep.add(histogram(final, masks[row]))
        return sweep


class Threshold(NamedTuple):
    """Pixels at or above `value` count as lesion. `source`: the split it was chosen on, or `fixed`."""

    value: float
    source: str


def thresholds(
    rule: str, fixed: float, cases: Sequence[Case], chosen_on: Callable[[str], Sweep]
) -> dict[str, Threshold]:
    """The threshold of each split. No split is scored at a threshold that was chosen on it.

    `rule` is `fixed`, or the split to choose on: `train`, for all others, or `val`, for the held-out splits, while
    `val` itself has the `fixed` threshold. `chosen_on` computes the sweep of a split, and is called only if the rule
    needs one. Raises InputError where the rule is `val` and no other split is evaluated.
    """
    splits = list(dict.fromkeys(case.split for case in cases))
    if rule == "fixed":
        return dict.fromkeys(splits, Threshold(fixed, "fixed"))
    if rule == "val" and splits == ["val"]:
        raise InputError(
            "params.yaml: evaluate.threshold_from: found 'val', but val is the only split evaluated, and a threshold "
            "must not be scored where it was chosen; expected fixed, train, or data with a test split, an official "
            "or an external set"
        )
    chosen = Threshold(chosen_on(rule).best(), rule)
    return {split: Threshold(fixed, "fixed") if split == rule else chosen for split in splits}


def used(chosen: Mapping[str, Threshold]) -> Threshold:
    """The threshold that the model is saved with: the chosen one, if one was chosen."""
    return next((one for one in chosen.values() if one.source != "fixed"), next(iter(chosen.values())))


class Outputs(NamedTuple):
    """Where predicted masks are written: at the network's resolution, and at native size if there is a folder."""

    predicted: Path
    submission: Path | None = None


def evaluate(
    cases: Sequence[Case],
    data: Processed,
    maps: Maps,
    settings: Mapping[str, Setting],
    outputs: Outputs,
    workers: int,
) -> dict[str, SplitScores]:
    """Measure every case, write the predicted masks, and return the scores of each split.

    `maps` are two arrays uint8 (M, H, W), whose entry i belongs to `cases[i]`; `case.row` is a row of `data`.
    `settings` are by split. Memory holds two images per worker.
    """

    def one(index: int):
        case, setting = cases[index], settings[cases[index].split]
        truth = Truth(data.images[case.row], data.masks[case.row], original(case))
        measured = measure(
            Maps(maps.final[index], maps.plain[index]), truth, level(setting.threshold), setting.cleaning
        )
        if outputs.submission:
            submission.write_mask(outputs.submission, case.split, case.id, measured.predicted_native)
        return measured.measurement, measured.predicted

    scored = {split: SplitScores(setting) for split, setting in settings.items()}
    with atomic(outputs.predicted) as temporary, ArrayWriter(temporary, maps.final.shape[1:]) as writer:
        measured = ordered_map(one, range(len(cases)), workers)
        for case, (measurement, mask) in zip(
            cases, tqdm(measured, "measure", len(cases), unit="image", disable=None), strict=True
        ):
            writer.append(mask)
            scored[case.split].add(case.id, case.group, measurement)
    return scored


def original(case: Case) -> np.ndarray:
    """The true mask at native size, uint8 (height, width) of 0 and 1."""
    try:
        return read_mask(case.mask)
    except ImageError as error:
        raise InputError(f"{case.mask}: {error}; run `dvc repro --force download`") from None
