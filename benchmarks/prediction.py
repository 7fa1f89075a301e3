"""`lesionseg predict` compared with the usual loop and with onnxruntime: time per photograph, and whether the masks are
the same.

    python benchmarks/prediction.py PHOTOGRAPH_OR_FOLDER... [--drawn 6] [--model FOLDER]... [--rounds 3] [--threads 1]

All take the same photographs, weights and number of threads, taking turns in this process, and write a PNG for each:

- plain loop: opens each photograph with Pillow, converts it to RGB, resizes it, runs the network on it alone in float32
  under no_grad, thresholds, enlarges the mask and saves it with Pillow's defaults
- lesionseg predict: the command; loading the model counts
- model.predict: the Python API, one photograph per call
- onnxruntime: the file of `lesionseg export`, one photograph per call, as Pillow decodes it; left out where onnx or
  onnxruntime is not installed

Imports are not timed. `--drawn` adds synthetic JPEGs of 6 to 12 megapixels. CPU is the time on all cores, which other
load on the machine hardly changes with one thread; wall is how long a user waits on an idle machine. In brackets: the
range of the ratio over the rounds.
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
from PIL import Image, ImageOps

from lesionseg.__main__ import main as lesionseg
from lesionseg.images.naming import EXTENSIONS
from lesionseg.predict.model import Model, load
from lesionseg.predict.options import MODEL
from lesionseg.predict.pictures import write_png
from lesionseg.scoring.counts import count
from lesionseg.scoring.scores import iou

Way = Callable[[Model, list[Path], Path], None]  # predicts the photographs and writes a mask each into the folder
PLAIN = {  # the settings of the plain loop
    "test_time_augmentation": "none",
    "refinement": "none",
    "opening": 0,
    "keep_largest": False,
    "fill_holes": False,
}
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
        print(f"threads: {arguments.threads}; torch {torch.__version__}; milliseconds per photograph")
        for model in arguments.model or [Path(MODEL)]:
            compare(files, model, folder, arguments.rounds, arguments.threads)


def compare(files: list[Path], path: Path, folder: Path, rounds: int, threads: int) -> None:
    model = load(path, "cpu", **PLAIN)
    ways = {"plain loop": plain_loop, "lesionseg predict": command(path, threads), "model.predict": one_by_one}
    try:
        ways["onnxruntime"] = exported(model, threads)
    except ModuleNotFoundError as error:
        print(f"onnxruntime: left out ({error}; pip install 'lesionseg[export]')")
    outputs = {name: folder / path.name / name for name in ways}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for output in outputs.values():
        output.mkdir(parents=True)
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(timed(way, model, files, outputs[name]))
    print(f"\n{path}: {model.network.__class__.__name__} at {model.image_size}")
    print(
        f"  {'':20}{'CPU':>7}  times as fast    {'wall':>7}  times as fast    IoU with the plain loop's, mean and least"
    )
    slow = np.array(seconds["plain loop"])
    for name in ways:
        clocks = ""
        for clock in (0, 1):
            each = np.array(seconds[name])[:, clock]
            ratios = slow[:, clock] / each
            times = f"{np.median(ratios):.2f} ({ratios.min():.2f}–{ratios.max():.2f})"
            clocks += f"{np.median(each) / len(files) * 1000:7.1f}  {times:17}"
        same = [overlap(mask_file(outputs["plain loop"], file), mask_file(outputs[name], file)) for file in files]
        print(f"  {name:20}{clocks}{np.mean(same):.4f} {min(same):.4f}")


def command(path: Path, threads: int) -> Way:
    """`lesionseg predict`, without what the plain loop does not do."""
    options = ["--model", str(path), "--device", "cpu", "--workers", str(threads), "--test-time-augmentation", "none"]
    options += ["--refinement", "none", "--opening", "0", "--no-keep-largest", "--no-fill-holes"]

    def predict(model: Model, files: list[Path], output: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert lesionseg(["predict", *map(str, files), "--output", str(output), *options]) == 0

    return predict


def one_by_one(model: Model, files: list[Path], output: Path) -> None:
    for path in files:
        write_png(mask_file(output, path), model.predict(path) * np.uint8(255))


def exported(model: Model, threads: int) -> Way:
    """The model as an ONNX file, as examples/onnx_serving runs it."""
    import onnxruntime

    from lesionseg.export.graph import build_graph

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    content = build_graph(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def predict(model: Model, files: list[Path], output: Path) -> None:
        for path in files:
            with Image.open(path) as image:
                photograph = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            (mask,) = session.run(["mask"], {"photograph": photograph})
            Image.fromarray(mask * np.uint8(255)).save(mask_file(output, path))

    return predict


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
        Image.fromarray(mask.astype(np.uint8) * 255).save(mask_file(output, path))


def mask_file(output: Path, photograph: Path) -> Path:
    """Where the mask of a photograph is written, as `lesionseg predict` calls it."""
    return output / f"{photograph.stem}_segmentation.png"


def timed(way: Way, model: Model, files: list[Path], output: Path) -> tuple[float, float]:
    """(seconds on all cores, seconds on the clock)."""
    wall, cpu = time.perf_counter(), time.process_time()
    way(model, files, output)
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
