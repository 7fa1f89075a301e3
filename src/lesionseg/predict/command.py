"""`python -m lesionseg.predict PHOTOGRAPH_OR_FOLDER... --output DIR`: a mask for every photograph, and a table."""

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from lesionseg.inference.postprocess import Cleaning
from lesionseg.inference.prediction import VIEWS
from lesionseg.predict.model import BATCH, Model, Segmentation, Settings, load

MODEL = "models/segmentation/weights.safetensors"
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
UNDECIDED = (0.25, 0.75)  # probabilities between these count as undecided
COLUMNS = (
    "image", "mask", "width", "height", "lesion_pixels", "lesion_fraction", "left", "top", "right", "bottom",
    "components", "mean_probability", "undecided_fraction", "touches_edge",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 1 where a photograph or the call was unusable, with the reasons on stderr."""
    options = parse(arguments)
    try:
        failed = run(options)
    except InputError as error:
        failed = error.problems
    except KeyboardInterrupt:
        print("predict: interrupted; every file written so far is whole", file=sys.stderr)
        return 130
    for problem in failed:
        print(f"predict: error: {problem}", file=sys.stderr)
    return 1 if failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lesionseg.predict", description=__doc__)
    parser.add_argument("photographs", nargs="+", type=Path, metavar="PHOTOGRAPH_OR_FOLDER")
    parser.add_argument("--output", type=Path, required=True, help="directory for masks, lesions.csv and run.json")
    parser.add_argument("--model", type=Path, default=Path(MODEL), help=f"default: {MODEL}")
    parser.add_argument("--threshold", type=float, default=0.5, help="evaluate.threshold of the model (0.5)")
    parser.add_argument("--test-time-augmentation", choices=list(VIEWS), default="none", help="as in params.yaml")
    parser.add_argument("--opening", type=int, default=0, help="as in params.yaml")
    parser.add_argument("--keep-largest", action="store_true", help="as in params.yaml")
    parser.add_argument("--fill-holes", action="store_true", help="as in params.yaml")
    parser.add_argument("--probabilities", action="store_true", help="also write 8-bit probabilities as PNG")
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:<index>")
    parser.add_argument("--workers", type=int, help="threads that decode; default: one a core")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> list[str]:
    """Predict everything that can be read; return what could not be, a line each."""
    files = find(options.photographs, options.output)
    names = output_names(files)
    device = choose_device(options.device)
    cleaning = Cleaning(options.opening, options.keep_largest, options.fill_holes)
    settings = Settings(options.threshold, options.test_time_augmentation, cleaning)
    model = load(options.model, settings, device)
    rows, failed = [], {}
    for path, segmentation in tqdm(
        segmentations(model, files, worker_count(options.workers), failed), "predict", len(files), unit="image",
        disable=None,
    ):  # fmt: skip
        target = options.output / f"{names[path]}_segmentation.png"
        save(target, segmentation.mask * np.uint8(255))
        if options.probabilities:
            save(options.output / f"{names[path]}_probabilities.png", segmentation.probabilities)
        rows.append(measured(path, target.relative_to(options.output), segmentation))
    write_csv(options.output / "lesions.csv", COLUMNS, rows)
    write_json(options.output / "run.json", record(options, model, device, rows, failed))
    return [f"{path}: {reason}" for path, reason in failed.items()]


def find(photographs: Sequence[Path], output: Path) -> list[Path]:
    """The files to predict: those named, and every image below a folder that is named.

    An output directory inside such a folder is passed over. Raises InputError for what is not there.
    """
    found, problems = [], []
    for path in photographs:
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
            if path.resolve() in output.resolve().parents:
                below = [file for file in below if output.resolve() not in file.resolve().parents]
            found += below
            if not below:
                problems.append(f"{path}: no image in it ({', '.join(EXTENSIONS)})")
        elif path.exists():
            found.append(path)
        else:
            problems.append(f"{path}: no such file or directory")
    if output.exists() and not output.is_dir():
        problems.append(f"--output: {output} is a file, expected a directory")
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(found))


def output_names(files: Sequence[Path]) -> dict[Path, Path]:
    """What each file's results are called: its stem, and of files of one stem their whole path, extension included.

    Raises InputError where two would still share a name.
    """
    stems: dict[str, list[Path]] = {}
    for path in files:
        stems.setdefault(path.stem, []).append(path)
    names: dict[Path, Path] = {}
    for path in files:
        alone = len(stems[path.stem]) == 1
        parts = [part for part in path.parts if part not in (path.anchor, "..", ".")]
        names[path] = Path(path.stem) if alone else Path(*parts[:-1], path.name.replace(".", "_"))
    if len(set(names.values())) < len(files):
        raise InputError("several photographs would get the same name; name their folders from one place")
    return names


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
    options: argparse.Namespace, model: Model, device: object, rows: Sequence[dict], failed: dict[Path, str]
) -> dict:
    """What run.json holds: the model, how it was run, and what became of every file."""
    settings = model.settings
    return {
        "model": str(options.model),
        "model_sha256": hashlib.sha256(options.model.read_bytes()).hexdigest(),
        "image_size": model.image_size,
        "device": describe_device(device),
        "threshold": settings.threshold,
        "test_time_augmentation": settings.test_time_augmentation,
        "opening": settings.cleaning.opening,
        "keep_largest": settings.cleaning.keep_largest,
        "fill_holes": settings.cleaning.fill_holes,
        "files": {row["image"]: "done" for row in rows}
        | {printable(str(path)): printable(reason) for path, reason in failed.items()},
    }


def save(path: Path, pixels: np.ndarray) -> None:
    with atomic(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=3)
