"""`lesionseg predict`: a mask for every photograph, a table of the lesions, and a record of the run."""

import argparse
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.common.files import write_csv, write_json
from lesionseg.common.hardware import choose_device, describe_device
from lesionseg.common.parallel import ordered_map, worker_count
from lesionseg.common.text import printable
from lesionseg.images.decoding import ImageError, read_rgb
from lesionseg.inference.prediction import package_versions
from lesionseg.inference.settings import Settings
from lesionseg.predict import truth
from lesionseg.predict.lesions import COLUMNS, measured
from lesionseg.predict.model import Changes, Model, Shrunk, load
from lesionseg.predict.outlines import Outlined, write_coco, write_geojson
from lesionseg.predict.pictures import write_numbers, write_overlay, write_png
from lesionseg.predict.targets import (
    COCO,
    RECORD,
    TABLE,
    Targets,
    find_photographs,
    half_written,
    outdated,
    targets,
    written_before,
)
from lesionseg.predict.targets import check as check_targets
from lesionseg.scoring.counts import Counts

cv2.setNumThreads(1)  # each core works on a photograph of its own; cv2's threads would get in the way


class Finished(NamedTuple):
    """The result of one photograph whose files are written."""

    row: dict  # of lesions.csv, without the file names
    counts: Counts | None = None  # against the true mask, where there is one
    problem: str | None = None


@dataclass
class Outcome:
    """The results so far."""

    finished: dict[Path, Finished] = field(default_factory=dict)
    unread: dict[Path, str] = field(default_factory=dict)  # why

    @property
    def problems(self) -> dict[Path, str]:
        """Of the photographs that cannot be read, or whose true mask cannot."""
        return self.unread | {path: each.problem for path, each in self.finished.items() if each.problem}

    @property
    def counts(self) -> list[Counts]:
        """Of the photographs that were compared with a true mask."""
        return [each.counts for each in self.finished.values() if each.counts]


def run(options: argparse.Namespace) -> None:
    """Predict every photograph that can be read; then raise InputError with a line for each that cannot.

    Options, names and files are checked before anything is written.
    """
    check(options)
    names = find_photographs(options.photographs, options.output)
    masks: truth.Masks = {}
    if options.truth:
        names = truth.without_masks(names, options.truth)
        masks = truth.find_truth(options.truth, names)
    wanted = targets(names, options.output, kinds(options))
    of_the_set = [TABLE, RECORD, *([COCO] if options.outlines else [])]
    check_targets(options.output, wanted, of_the_set, (path for files in masks.values() for path in files))
    model = load(options.model, choose_device(options.device, called="--device"), **given_settings(options))
    if not model.evaluated:
        print(
            f"predict: {model.path} holds no settings, as it was not evaluated; defaults are used where none are given"
        )
    for path in (*outdated(names, options.output, kinds(options)), *half_written(options.output)):
        path.unlink()
    written = [path for path in written_before(options.output) if path.exists()]
    written += [path for files in wanted.values() for path in files.values()]
    written += [options.output / name for name in of_the_set]
    listed = list(dict.fromkeys(str(path.relative_to(options.output)) for path in written))
    outcome, about = Outcome(), record(model)

    def save_record() -> None:
        files = {printable(str(path)): "done" for path in outcome.finished}
        files |= {printable(str(path)): printable(reason) for path, reason in outcome.problems.items()}
        scores = {"truth": scores_record(options.truth, len(names), outcome)} if options.truth else {}
        write_json(options.output / RECORD, about | scores | {"files": files, "written": listed})

    save_record()  # if this run is killed, the next one still recognises its files as ours
    try:
        predict_all(model, wanted, masks, worker_count(options.workers), outcome)
    finally:  # record what is done, also after Ctrl-C
        columns = [*COLUMNS, *(truth.SCORES if options.truth else ())]
        write_csv(options.output / TABLE, columns, rows(options.output, wanted, outcome, columns))
        if options.outlines:
            write_coco(options.output / COCO, outlined_photographs(wanted, outcome))
        save_record()
        print(f"predict: {len(outcome.finished)} of {len(names)} photographs, in {printable(str(options.output))}")
    if options.truth:
        say_scores(scores_record(options.truth, len(names), outcome))
    if outcome.problems:
        raise InputError(f"{path}: {reason}" for path, reason in outcome.problems.items())


def check(options: argparse.Namespace) -> None:
    """Raise InputError for every option that is out of range."""
    problems = []
    try:
        Settings(**given_settings(options))
    except InputError as error:
        problems += [
            f"--{name.replace('_', '-')}:{said}"
            for name, _, said in (problem.partition(":") for problem in error.problems)
        ]
    if options.workers is not None and options.workers < 1:
        problems.append(f"--workers: found {options.workers}, expected at least 1")
    if problems:
        raise InputError(problems)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings named on the command line."""
    named = {name: getattr(options, name) for name in Changes.__annotations__}
    return {name: value for name, value in named.items() if value is not None}


def kinds(options: argparse.Namespace) -> list[str]:
    """What to write for each photograph: keys of targets.ENDINGS."""
    asked = {
        "segmentation": True,
        "overlay": options.overlay,
        "probabilities": options.probabilities == "png",
        "numbers": options.probabilities == "npy",
        "outlines": options.outlines,
    }
    return [kind for kind, wanted in asked.items() if wanted]


def predict_all(model: Model, wanted: Targets, masks: truth.Masks, workers: int, outcome: Outcome) -> None:
    """Predict and write the files of every photograph that can be read, and fill `outcome`.

    While the network computes, `workers` threads decode the next photographs, and as many enlarge, measure and write
    the last ones. Memory holds a batch and one photograph at native size per thread.
    """

    def finish(item: tuple[Path, np.ndarray, Shrunk]) -> None:
        path, probabilities, photograph = item
        # not in the loop below: after Ctrl-C the threads finish what they have begun, and that counts too
        done[path] = finished(model, path, probabilities, photograph, wanted[path], masks.get(path, ()))

    done: dict[Path, Finished] = {}
    predicted = probabilities_of(model, list(wanted), workers, outcome.unread)
    try:
        with closing(predicted), closing(ordered_map(finish, predicted, workers)) as results:
            for _ in tqdm(results, "predict", len(wanted), unit="image", disable=None):
                pass
    finally:
        outcome.finished.update((path, done[path]) for path in wanted if path in done)


def probabilities_of(
    model: Model, files: Sequence[Path], workers: int, unread: dict[Path, str]
) -> Generator[tuple[Path, np.ndarray, Shrunk], None, None]:
    """Yield each file that can be read, with its probabilities; `unread` gets the reason for every other."""

    def decoded(path: Path) -> Shrunk | str:
        try:
            return read_rgb(path, model.image_size)
        except ImageError as error:
            return str(error)
        except OSError as error:
            return f"{error.strerror}; cannot be read"

    ahead: deque[Path] = deque()

    def photographs() -> Iterator[Shrunk]:
        for path, found in zip(files, ordered_map(decoded, files, workers), strict=True):
            if isinstance(found, str):
                unread[path] = found
            else:
                ahead.append(path)
                yield found

    for probabilities, photograph in model.probabilities(photographs()):
        yield ahead.popleft(), probabilities, photograph


def finished(
    model: Model,
    path: Path,
    probabilities: np.ndarray,
    photograph: Shrunk,
    files: Mapping[str, Path],
    true_masks: Sequence[Path],
) -> Finished:
    """Write the files that were asked for of one photograph, and measure it."""
    segmentation = model.finish(probabilities, photograph)
    mask = segmentation.mask
    row, counts, problem = measured(segmentation), None, None
    outlines = {"predicted": mask}
    if true_masks:
        try:
            outlines["truth"] = truth.read_truth(true_masks, mask.shape)
            counts, scores = truth.scored(mask, outlines["truth"])
            row |= scores
        except ImageError as error:
            problem = f"not scored: {error}"
    write_png(files["segmentation"], mask * np.uint8(255))
    if "probabilities" in files:
        write_png(files["probabilities"], segmentation.probabilities)
    if "numbers" in files:
        write_numbers(files["numbers"], segmentation.probabilities)
    if "outlines" in files:
        write_geojson(files["outlines"], mask)
    if "overlay" in files:
        write_overlay(files["overlay"], read_rgb(path)[0], outlines)
    return Finished(row, counts, problem)


def record(model: Model) -> dict:
    """What run.json says about the model and how it was run."""
    return {
        "model": str(model.path),
        "model_sha256": model.sha256,
        "image_size": model.image_size,
        "versions": package_versions(),
        "device": describe_device(model.device),
        "settings": model.settings.as_dict(),
    }


def rows(output: Path, wanted: Targets, outcome: Outcome, columns: Sequence[str]) -> Iterator[dict]:
    """The rows of lesions.csv; fields without a value are empty."""
    for path, each in outcome.finished.items():
        mask = wanted[path]["segmentation"].relative_to(output)
        names = {"image": printable(str(path)), "mask": printable(str(mask))}
        yield dict.fromkeys(columns, "") | names | each.row


def outlined_photographs(wanted: Targets, outcome: Outcome) -> Iterator[Outlined]:
    """The photographs that are done, for coco.json."""
    for path, each in outcome.finished.items():
        yield Outlined(str(path), each.row["width"], each.row["height"], wanted[path]["outlines"])


def scores_record(folder: Path, photographs: int, outcome: Outcome) -> dict:
    """The scores, for run.json."""
    compared = len(outcome.counts)
    return {
        "folder": str(folder),
        "scored": compared,
        "not_scored": photographs - compared,
        **truth.summary(outcome.counts),
    }


def say_scores(scores: dict) -> None:
    if scores["not_scored"]:
        print(f"predict: photographs that could not be scored, without a usable true mask: {scores['not_scored']}")
    for kind, over in (("pooled", "all pixels"), ("per_image_mean", "mean over photographs")):
        if kind in scores:
            values = ", ".join(f"{name} {value:.4f}" for name, value in scores[kind].items())
            print(f"predict: {values} ({over}, {scores['scored']} photographs, native size)")
