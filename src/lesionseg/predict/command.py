"""A mask for every photograph, a table of the lesions, and a record of the run: `lesionseg predict`."""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic, write_csv, write_json
from lesionseg.common.hardware import choose_device, describe_device
from lesionseg.common.parallel import worker_count
from lesionseg.common.text import printable
from lesionseg.images.decoding import ImageError, read_rgb
from lesionseg.images.naming import EXTENSIONS
from lesionseg.inference.settings import Settings
from lesionseg.predict.model import Changes, Model, Segmentation, load

PACKAGES = ("torch", "numpy", "pillow", "opencv-python-headless")  # whose arithmetic shows in a mask
TABLE, RECORD = "lesions.csv", "run.json"
BATCH = 8  # photographs decoded ahead of the network
UNDECIDED = (0.25, 0.75)  # probabilities between these count as undecided
COLUMNS = (
    "image", "mask", "width", "height", "lesion_pixels", "lesion_fraction", "left", "top", "right", "bottom",
    "components", "mean_probability", "undecided_fraction", "touches_edge",
)  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Predict everything that can be read; then InputError with what could not be, a line each.

    Everything that can be refused is refused before anything is written.
    """
    check(options)
    names = find(options.photographs, options.output)
    kinds = ("segmentation", "probabilities") if options.probabilities else ("segmentation",)
    targets = {path: {kind: options.output / f"{name}_{kind}.png" for kind in kinds} for path, name in names.items()}
    check_targets(options.output, targets)
    model = load(options.model, choose_device(options.device, called="--device"), **changes(options))
    if not model.evaluated:
        print(f"predict: {model.path} holds no settings, it was not evaluated; the defaults of the others are used")
    rows: list[dict] = []
    failed: dict[Path, str] = {}
    # Written first: files of a run that is interrupted are known to be ours when it is repeated.
    write_json(options.output / RECORD, record(options, model, {}, targets))
    predicted = segmentations(model, list(names), worker_count(options.workers), failed)
    for path, segmentation in tqdm(predicted, "predict", len(names), unit="image", disable=None):
        pixels = {"segmentation": segmentation.mask * np.uint8(255), "probabilities": segmentation.probabilities}
        for kind, target in targets[path].items():
            save(target, pixels[kind])
        rows.append(measured(path, targets[path]["segmentation"].relative_to(options.output), segmentation))
    write_csv(options.output / TABLE, COLUMNS, rows)
    outcome = {row["image"]: "done" for row in rows}
    outcome |= {printable(str(path)): printable(reason) for path, reason in failed.items()}
    write_json(options.output / RECORD, record(options, model, outcome, targets))
    if failed:
        raise InputError(f"{path}: {reason}" for path, reason in failed.items())


def check(options: argparse.Namespace) -> None:
    """Raise InputError for every option out of its range."""
    problems = []
    try:
        Settings(**changes(options))
    except InputError as error:
        problems += [
            f"--{name.replace('_', '-')}:{said}"
            for name, _, said in (problem.partition(":") for problem in error.problems)
        ]
    if options.workers is not None and options.workers < 1:
        problems.append(f"--workers: found {options.workers}, expected at least 1")
    if problems:
        raise InputError(problems)


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """The settings named on the command line."""
    named = {name: getattr(options, name) for name in Changes.__annotations__}
    return {name: value for name, value in named.items() if value is not None}


def find(photographs: Sequence[Path], output: Path) -> dict[Path, Path]:
    """The files to predict, those named and every image below a folder that is named, and what their results are
    called: the path below that folder without extension; of files that would share it, with extension and folder.

    An output directory inside such a folder is passed over. Raises InputError for what is not there.
    """
    below: dict[Path, Path] = {}  # file -> the folder its name starts at
    problems = []
    for path in photographs:
        if path.is_dir():
            if path.resolve() == output.resolve():
                problems.append(
                    f"--output: {output} is the folder of the photographs; name another, such as {output}/masks"
                )
                continue
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
            if path.resolve() in output.resolve().parents:
                files = [file for file in files if output.resolve() not in file.resolve().parents]
            below |= {file: path for file in files if file not in below}
            if not files:
                problems.append(f"{path}: no image in it ({', '.join(EXTENSIONS)})")
        elif path.exists():
            below.setdefault(path, path.parent)
        else:
            problems.append(f"{path}: no such file or directory")
    if problems:
        raise InputError(problems)
    short = {path: path.relative_to(folder).with_suffix("") for path, folder in below.items()}
    times = Counter(short.values())
    return {
        path: short[path] if times[short[path]] == 1 else Path(folder.resolve().name, path.relative_to(folder))
        for path, folder in below.items()
    }


def segmentations(
    model: Model, files: Sequence[Path], workers: int, failed: dict[Path, str]
) -> Iterator[tuple[Path, Segmentation]]:
    """(file, segmentation) of each file that can be read; the reasons of the others go into `failed`.

    The next photographs are decoded while the network computes; memory holds two batches.
    """

    def decoded(path: Path) -> tuple[np.ndarray, tuple[int, int]] | ImageError:
        try:
            return read_rgb(path, model.image_size)
        except ImageError as error:
            return error

    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(decoded, path) for path in batches[0]] if batches else []
        for number, batch in enumerate(batches):
            current = [job.result() for job in ahead]
            following = batches[number + 1] if number + 1 < len(batches) else []
            ahead = [pool.submit(decoded, path) for path in following]
            readable = []
            for path, photograph in zip(batch, current, strict=True):
                if isinstance(photograph, ImageError):
                    failed[path] = str(photograph)
                else:
                    readable.append((path, photograph))
            yield from zip(
                [path for path, _ in readable], model.segment(photograph for _, photograph in readable), strict=True
            )


def measured(path: Path, mask_file: Path, segmentation: Segmentation) -> dict:
    """A row of lesions.csv; the bounding box in pixels, right and bottom exclusive, empty without lesion."""
    mask, probabilities = segmentation.mask, segmentation.probabilities / 255
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    pixels = int(mask.sum())
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if pixels else ("", "", "", "")
    undecided = (probabilities > UNDECIDED[0]) & (probabilities < UNDECIDED[1])
    edge = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
    return dict(
        zip(
            COLUMNS,
            (
                printable(str(path)), printable(str(mask_file)), mask.shape[1], mask.shape[0], pixels,
                f"{pixels / mask.size:.6f}", *box, cv2.connectedComponents(mask, connectivity=4)[0] - 1,
                f"{probabilities[mask == 1].mean():.4f}" if pixels else "", f"{undecided.mean():.6f}", int(edge),
            ),
            strict=True,
        )
    )  # fmt: skip


def record(
    options: argparse.Namespace,
    model: Model,
    outcome: dict[str, str],
    targets: dict[Path, dict[str, Path]],
) -> dict:
    """What run.json holds: the model, how it was run, what became of every file, and the files that are ours."""
    return {
        "model": str(model.path),
        "model_sha256": hashlib.sha256(model.path.read_bytes()).hexdigest(),
        "image_size": model.image_size,
        "versions": {name: version(name) for name in PACKAGES},
        "device": describe_device(model.device),
        "settings": model.settings.as_dict(),
        "files": outcome,
        "written": [str(path.relative_to(options.output)) for kinds in targets.values() for path in kinds.values()],
    }


def check_targets(output: Path, targets: dict[Path, dict[str, Path]]) -> None:
    """Raise InputError where something to be written is a photograph, is written twice, or is there and not of this
    command: only what the run.json beside it lists is replaced."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output: {output} is a file, expected a directory")
    ours = _written_before(output)
    photographs = {path.resolve() for path in targets}
    wanted = [path for kinds in targets.values() for path in kinds.values()]
    problems, seen = [], set()
    for path in [*wanted, output / TABLE, output / RECORD]:
        known = path.resolve() in ours
        if path.resolve() in photographs:
            problems.append(f"{path}: is one of the photographs and would be replaced; choose another --output")
        elif path.resolve() in seen:
            problems.append(f"{path}: two photographs would get this name; rename one")
        elif path.exists() and not known:
            problems.append(f"{path}: is there and not of an earlier run of this command; choose another --output")
        seen.add(path.resolve())
    if problems:
        raise InputError(problems)


def _written_before(output: Path) -> set[Path]:
    """The files that an earlier run says it wrote to `output`; none where run.json is missing or something else's."""
    try:
        names = json.loads((output / RECORD).read_text(encoding="utf-8"))["written"]
        return {(output / name).resolve() for name in [*names, TABLE, RECORD]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def save(path: Path, pixels: np.ndarray) -> None:
    with atomic(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=3)
