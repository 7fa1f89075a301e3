"""How fast pairs are preprocessed, where the time goes, and what duplicates and split cost.

    python benchmarks/preprocess.py                                   # synthetic 12 and 30 megapixel pairs
    python benchmarks/preprocess.py --folder <images/ and masks/>     # your own too, by megapixels

The plain loop is the usual one: PIL open, convert, resize, one process. It takes turns with this pipeline on the same
files, which are in the page cache. Rates per core are by CPU seconds, which other load on the machine hardly changes;
rates with several workers are wall time. The best of the repetitions counts.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from lesionseg.common.parallel import cores, ordered_process_map
from lesionseg.images.decoding import decode, read_rgb, to_rgb
from lesionseg.images.masks import binary, shrink
from lesionseg.preprocess import duplicates
from lesionseg.preprocess.pairs import BadPair, ReadPair, read_pair
from lesionseg.preprocess.split import choose_validation

Files = list[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="images/<id>.<ext> and masks/<id>_segmentation.png to measure too")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=6, help="synthetic pairs of each size")
    parser.add_argument("--simulate", type=int, nargs="*", default=[2_594, 100_000], help="data sets for duplicates")
    arguments = parser.parse_args()

    print(f"{cores()} cores; to {arguments.size}×{arguments.size}; images per CPU second, one core:\n")
    print(f"{'':24}{'images only':^26}{'masks only':^26}{'pairs, everything':^26}")
    print(f"{'pairs':24}" + f"{'plain':>9}{'here':>8}{'ratio':>7}  " * 3)
    with tempfile.TemporaryDirectory() as scratch:
        sets = {
            f"{arguments.images} synthetic, {megapixels} MP": (Path(scratch), files)
            for megapixels, files in (
                (12, synthetic(Path(scratch), 4000, 3000, arguments.images)),
                (30, synthetic(Path(scratch), 6708, 4472, arguments.images)),
            )
        }
        if arguments.folder:
            sets = by_megapixels(arguments.folder) | sets
        for name, (raw, files) in sets.items():
            compare(name, raw, files, arguments.size, arguments.repeats)
        print("\nwhere the time goes, CPU milliseconds per pair:\n")
        for name, (raw, files) in sets.items():
            breakdown(name, raw, files, arguments.size, arguments.repeats)
        print("\npairs per second (wall) by number of processes:\n")
        for name, (raw, files) in sets.items():
            scaling(name, raw, files, arguments.size, arguments.repeats)
    print("\nduplicates and split, wall seconds:\n")
    for count in arguments.simulate:
        simulate(count)


def synthetic(folder: Path, width: int, height: int, count: int) -> Files:
    """JPEG photographs with skin-like texture and grain at quality 92 (about 4 bits per pixel), and PNG masks."""
    files = []
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = gaussian_filter(random.normal(0, 1, (height // 8, width // 8)).astype(np.float32), 4) * 200
        texture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        edge = np.hypot(x, y) + texture / 300
        grey = 190 - 110 * (edge < 0.5) + texture + random.integers(-7, 8, (height, width))
        pixels = np.stack([np.clip(grey * part, 0, 255).astype(np.uint8) for part in (1, 0.8, 0.7)], axis=-1)
        image, mask = f"{width}_{number}.jpg", f"{width}_{number}.png"
        Image.fromarray(pixels).save(folder / image, quality=92)
        Image.fromarray((edge < 0.5).astype(np.uint8) * np.uint8(255)).save(folder / mask)
        files.append((image, mask))
    return files


def by_megapixels(folder: Path) -> dict[str, tuple[Path, Files]]:
    """The pairs of a folder in three classes of size."""
    classes: dict[str, Files] = {"below 2 MP": [], "2 to 6 MP": [], "6 MP and more": []}
    for path in sorted((folder / "images").iterdir()):
        with Image.open(path) as image:
            megapixels = image.width * image.height / 1e6
        name = "below 2 MP" if megapixels < 2 else "2 to 6 MP" if megapixels < 6 else "6 MP and more"
        classes[name].append((f"images/{path.name}", f"masks/{path.stem}_segmentation.png"))
    return {f"{len(files)} given, {name}": (folder, files) for name, files in classes.items() if files}


def compare(name: str, raw: Path, files: Files, size: int, repeats: int) -> None:
    """The plain loop and this pipeline, taking turns."""

    def plain_images() -> None:
        for image, _ in files:
            np.asarray(Image.open(raw / image).convert("RGB").resize((size, size)))

    def plain_masks() -> None:
        for _, mask in files:
            assert np.asarray(Image.open(raw / mask).convert("L").resize((size, size))).max() <= 255

    def plain_pairs() -> None:
        plain_images()
        plain_masks()

    def images() -> None:
        for image, _ in files:
            read_rgb(raw / image, size)

    def masks() -> None:
        for _, mask in files:
            shrink(binary(decode(raw / mask))[0], size)

    def pairs() -> None:
        for pair in files:
            read_pair(raw, *pair, size)

    line = f"{name:24}"
    for plain, here in ((plain_images, images), (plain_masks, masks), (plain_pairs, pairs)):
        slow, fast = best([plain, here], repeats, time.process_time)
        line += f"{len(files) / slow:9.1f}{len(files) / fast:8.1f}{slow / fast:6.1f}x  "
    print(line)


def breakdown(name: str, raw: Path, files: Files, size: int, repeats: int) -> None:
    """CPU time of the steps of a pair."""
    photographs = [decode(raw / image, size) for image, _ in files]
    masks = [decode(raw / mask) for _, mask in files]
    shapes = [binary(mask)[0] for mask in masks]
    pixels = [read_rgb(raw / image, size)[0] for image, _ in files]
    steps: dict[str, Callable[[], object]] = {
        "decode JPEG": lambda: [decode(raw / image, size) for image, _ in files],
        "resize": lambda: [to_rgb(p.image).resize((size, size), Image.Resampling.BILINEAR, p.box) for p in photographs],
        "decode PNG": lambda: [decode(raw / mask) for _, mask in files],
        "check mask": lambda: [binary(mask) for mask in masks],
        "shrink mask": lambda: [shrink(shape, size) for shape in shapes],
        "thumbnail": lambda: [duplicates.thumbnail(image) for image in pixels],
    }
    seconds = best(list(steps.values()), repeats, time.process_time)
    print(
        f"{name:24}"
        + "  ".join(f"{step} {second / len(files) * 1000:.1f}" for step, second in zip(steps, seconds, strict=True))
    )


def scaling(name: str, raw: Path, files: Files, size: int, repeats: int) -> None:
    """Pairs per second with 1, 2, 4, … processes, up to the number of cores, without starting them."""
    counts = [2**power for power in range(8) if 2**power < cores()] + [cores()]
    seconds = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            work = [files[index % len(files)] for index in range(12 * count)]
            results = ordered_process_map(partial(read_files, raw, size), work, count)
            for _ in range(4 * count):
                next(results)
            start = time.perf_counter()
            rest = sum(1 for _ in results)
            seconds[count].append((time.perf_counter() - start) / rest)
    one = min(seconds[1])
    print(
        f"{name:24}"
        + "  ".join(f"{count}: {1 / min(each):.1f} ({one / min(each):.2f}x)" for count, each in seconds.items())
    )


def read_files(raw: Path, size: int, files: tuple[str, str]) -> ReadPair | BadPair:
    return read_pair(raw, *files, size)


def best(runs: list[Callable[[], object]], repeats: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each run, the best of `repeats` rounds in which they take turns."""
    seconds = [[] for _ in runs]
    for _ in range(repeats):
        for taken, run in zip(seconds, runs, strict=True):
            start = clock()
            run()
            taken.append(clock() - start)
    return [min(taken) for taken in seconds]


def simulate(count: int) -> None:
    """Near-duplicate search and split of `count` images as similar as dermoscopy images are; 1 in 20 is a copy."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    thumbnails = np.empty((count, 32, 32), np.uint8)
    for start in range(0, count, 2000):
        part = min(2000, count - start)
        noise = random.normal(0, 1, (part, 32, 32)).astype(np.float32)
        texture = sum(gaussian_filter(noise, (0, s, s)) * s * 12 for s in (1, 2, 4))
        radius = random.uniform(0.2, 0.9, (part, 1, 1))
        blob = 1 / (1 + np.exp((np.hypot(x, y) - radius) * 8))
        thumbnails[start : start + part] = np.clip(190 - 100 * blob + texture, 0, 255)
    copies = count // 20
    noise = random.normal(0, 2, (copies, 32, 32))
    thumbnails[count - copies :] = np.clip(thumbnails[:copies] + noise, 0, 255)
    fractions = random.beta(0.9, 2.5, count)

    start = time.perf_counter()
    bits = duplicates.hashes(thumbnails)
    hashed, cpu = time.perf_counter(), time.process_time()
    first, second, _ = duplicates.close_pairs(bits, 64)
    searched, cpu = time.perf_counter(), time.process_time() - cpu
    scores = duplicates.structure_correlation(thumbnails[first], thumbnails[second])
    same = scores >= duplicates.CONFIRM
    confirmed = time.perf_counter()
    label = duplicates.groups(count, zip(first[same], second[same], strict=True))
    choose_validation([f"I{group:07d}" for group in label], fractions, 0.2, 0)
    done = time.perf_counter()
    print(
        f"{count:>8} images: hashes {hashed - start:.2f}, search {searched - hashed:.2f} (CPU {cpu:.2f}; {len(first)} "
        f"candidates), confirm {confirmed - searched:.2f} ({same.sum()} pairs, {copies} planted), "
        f"groups and split {done - confirmed:.2f}"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    main()
