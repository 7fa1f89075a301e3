"""`lesionseg predict` compared with the usual loop: time per photograph, and whether the masks are the same.

    python benchmarks/prediction.py PHOTOGRAPH_OR_FOLDER... [--drawn 6] [--model FOLDER]... [--rounds 3] [--threads 1]

The plain loop opens each photograph with Pillow, converts it to RGB, resizes it, runs the network on it alone in
float32 under no_grad, thresholds, enlarges the mask and saves it as PNG with Pillow's defaults. Both predict the same
photographs with the same weights, taking turns in this process. Imports are not timed; loading the model counts for
`lesionseg predict` but not for the loop. `--drawn` adds synthetic JPEGs of 6 to 12 megapixels.

`CPU` is the time on all cores, which other load on the machine hardly changes; `wall` is how long a user waits on an
idle machine. In brackets: the range of the ratio over the rounds.
"""

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from lesionseg.__main__ import main as lesionseg
from lesionseg.images.naming import EXTENSIONS
from lesionseg.predict.model import Model, load
from lesionseg.predict.options import MODEL
from lesionseg.scoring.counts import count
from lesionseg.scoring.scores import iou

DRAWN = ((2848, 2136), (3264, 2448), (4000, 3000))  # width and height: 6, 8 and 12 megapixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="*", type=Path)
    parser.add_argument("--drawn", type=int, default=6)
    parser.add_argument("--model", type=Path, action="append", help="may be given several times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [*listed(arguments.photographs), *drawn(folder / "drawn", arguments.drawn)]
        pixels = [np.prod(size_of(path)) / 1e6 for path in files]
        print(
            f"{len(files)} photographs, {min(pixels):.1f} to {max(pixels):.1f} megapixels, mean {np.mean(pixels):.1f},"
        )
        print(f"{arguments.threads} threads, torch {torch.__version__}; milliseconds per photograph")
        for model in arguments.model or [Path(MODEL)]:
            compare(files, model, folder, arguments.rounds, arguments.threads)


def compare(files: list[Path], path: Path, folder: Path, rounds: int, threads: int) -> None:
    model = load(path, "cpu")
    command = ["predict", *map(str, files), "--output", str(folder / "ours"), "--model", str(path), "--device", "cpu"]
    command += ["--workers", str(threads), "--test-time-augmentation", "none", "--refinement", "none"]
    command += ["--opening", "0", "--no-keep-largest", "--no-fill-holes"]  # which the plain loop does not have
    (folder / "plain").mkdir(exist_ok=True)
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(timed(lambda: plain_loop(model, files, folder / "plain")))
        ours.append(timed(lambda: quietly(command)))
    print(f"\n{model.network.__class__.__name__} at {model.image_size}")
    for clock, name in enumerate(("CPU", "wall")):
        slow, fast = (np.array(side)[:, clock] / len(files) * 1000 for side in (plain, ours))
        ratios = slow / fast
        print(
            f"  {name:4s} plain loop {np.median(slow):7.1f}   lesionseg predict {np.median(fast):7.1f}   "
            f"ratio {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        )
    ends = [(folder / f"plain/{file.stem}.png", folder / f"ours/{file.stem}_segmentation.png") for file in files]
    same = [overlap(*pair) for pair in ends]
    print(f"  IoU of the masks: mean {np.mean(same):.4f}, least {min(same):.4f}")


def plain_loop(model: Model, files: list[Path], output: Path) -> None:
    """What a page of search results would have one write."""
    size = model.image_size
    for path in files:
        photograph = Image.open(path).convert("RGB")
        small = np.asarray(photograph.resize((size, size), Image.Resampling.BILINEAR))
        inputs = torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            probabilities = torch.sigmoid(model.network(inputs))[0, 0].numpy()
        levels = Image.fromarray((probabilities * 255).round().astype(np.uint8))
        mask = np.asarray(levels.resize(photograph.size, Image.Resampling.BILINEAR)) >= model.settings.level
        Image.fromarray(mask.astype(np.uint8) * 255).save(output / f"{path.stem}.png")


def quietly(command: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert lesionseg(command) == 0


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """(seconds on all cores, seconds on the clock)."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.process_time() - cpu, time.perf_counter() - wall


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def overlap(one: Path, other: Path) -> float:
    masks = []
    for path in (one, other):
        with Image.open(path) as image:
            masks.append(np.asarray(image) > 0)
    return float(iou(count(*masks)))


def listed(paths: list[Path]) -> list[Path]:
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [file for file in files if file.suffix.lower() in EXTENSIONS]


def drawn(folder: Path, images: int) -> list[Path]:
    """JPEGs as cameras write them: a blob on a background of coarse and fine noise."""
    folder.mkdir()
    random, files = np.random.default_rng(0), []
    for index in range(images):
        width, height = DRAWN[index % len(DRAWN)]
        coarse = cv2.resize(random.random((7, 9, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        lesion = np.clip(8 * (0.5 - np.hypot(x, y) + 0.2 * coarse[..., 0]), 0, 1)[..., None]
        fine = random.normal(0, 4, (height, width, 1)).astype(np.float32)
        picture = (1 - lesion) * (210, 170, 150) + lesion * (110, 70, 50) + 30 * coarse + fine
        files.append(folder / f"drawn{index}.jpg")
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(files[-1], quality=92)
    return files


if __name__ == "__main__":
    main()
