"""What an evaluation costs on Linux: time per image and step, scaling over cores, and memory by number of images.

    python benchmarks/evaluation.py [--images 60] [--base-width 16]

It draws blobs as masks at native sizes as in ISIC 2018 and measures the evaluation's own functions on them; the
probabilities are blurred masks, so that outlines are as long as real ones. The network has random weights, on which its
cost does not depend. Milliseconds per image are CPU time, which other load on the machine hardly changes; whole runs
are wall time.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from PIL import Image

from lesionseg.common.parallel import cores
from lesionseg.evaluate.boundary import compare_boundaries
from lesionseg.evaluate.evaluation import Case, Outputs, evaluate
from lesionseg.evaluate.measurement import Maps
from lesionseg.evaluate.split_scores import Setting
from lesionseg.formats.processed import Processed
from lesionseg.images.masks import read_mask
from lesionseg.inference import native
from lesionseg.inference.prediction import batch_size, predict
from lesionseg.inference.refine import REFINERS
from lesionseg.inference.settings import VIEWS
from lesionseg.networks import build_network
from lesionseg.scoring.counts import count

# width, height and rough share of the 2,594 training images (Codella et al. 2018 gives the range; sizes cluster)
SIZES = [((1022, 767), 6), ((2048, 1536), 1), ((3024, 2016), 4), ((4288, 2848), 2), ((6688, 4439), 2)]
TRAINING_IMAGES = 2594
SIDE = 256

Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--base-width", type=int, default=16)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)  # a child: how many of which folder
    arguments = parser.parse_args()
    if arguments.memory:
        peak_memory(Path(arguments.memory[0]), int(arguments.memory[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        cases, probabilities, masks = data_set(Path(folder), arguments.images)
        single_image(cases, probabilities)
        scaling(cases, probabilities, masks, Path(folder))
        memory(Path(folder), arguments.images)
    network(arguments.base_width)


def data_set(folder: Path, images: int) -> tuple[list[Case], np.ndarray, np.ndarray]:
    """Write masks as PNG to `folder`, and probabilities as a memory-mapped file, as in the stage."""
    random = np.random.default_rng(0)
    sizes = [size for size, share in SIZES for _ in range(share)]
    probabilities, masks = [], []
    for index in range(images):
        width, height = sizes[index * 7 % len(sizes)]
        noise = cv2.resize(random.random((9, 9), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        mask = (np.hypot(x, y) < 0.3 + 0.5 * noise).astype(np.uint8)
        path = folder / f"{index}_segmentation.png"
        Image.fromarray(mask * np.uint8(255)).save(path)
        small = cv2.resize(mask * np.uint8(255), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        masks.append(small // 128)
        probabilities.append(cv2.GaussianBlur(np.roll(small, 3, 1), (0, 0), 3))
    np.save(folder / "probabilities.npy", np.stack(probabilities))
    np.save(folder / "masks.npy", np.stack(masks))
    return opened(folder, images)


def opened(folder: Path, images: int) -> tuple[list[Case], np.ndarray, np.ndarray]:
    """The cases in a folder that `data_set` filled, repeated until there are `images`."""
    probabilities, masks = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("probabilities", "masks"))
    there = len(masks)
    cases = [Case(f"{i}", "val", i % there, folder / f"{i % there}_segmentation.png", f"{i}") for i in range(images)]
    return cases, probabilities, masks


def single_image(cases: list[Case], probabilities: np.ndarray) -> None:
    print("CPU milliseconds per image")
    print(f"  {'native size':>12s}{'read mask':>11s}{'enlarge':>9s}{'count':>7s}{'boundary':>10s}")
    seen = set()
    for case, map_ in zip(cases, probabilities, strict=True):
        truth, reading = timed(lambda: read_mask(case.mask))  # noqa: B023
        if truth.shape in seen:
            continue
        seen.add(truth.shape)
        mask, enlarging = timed(lambda: native.mask_at(map_, truth.shape, 128))  # noqa: B023
        _, counting = timed(lambda: count(mask, truth))  # noqa: B023
        _, measuring = timed(lambda: compare_boundaries(mask, truth))  # noqa: B023
        size = f"{truth.shape[1]}×{truth.shape[0]}"
        print(f"  {size:>12s}{reading:11.1f}{enlarging:9.1f}{counting:7.1f}{measuring:10.1f}")


def scaling(cases: list[Case], probabilities: np.ndarray, masks: np.ndarray, folder: Path) -> None:
    print(f"\nevaluate() on {len(cases)} images")
    base = None
    for workers in sorted({1, 2, cores()}):
        clock = time.perf_counter
        _, milliseconds = timed(lambda: run(cases, probabilities, masks, folder, workers), clock)  # noqa: B023
        base = base or milliseconds
        minutes = milliseconds / len(cases) * TRAINING_IMAGES / 60_000
        print(
            f"  {workers:2d} threads: {milliseconds / len(cases):6.1f} ms per image, "
            f"{base / milliseconds:4.2f} times one; {TRAINING_IMAGES} images in {minutes:.1f} minutes"
        )


def run(cases: list[Case], probabilities: np.ndarray, masks: np.ndarray, folder: Path, workers: int) -> dict:
    data = Processed([], np.broadcast_to(np.uint8(150), (*masks.shape, 3)), masks)
    outputs = Outputs(folder / "predicted.npy")
    return evaluate(cases, data, Maps(probabilities, probabilities), {"val": Setting()}, outputs, workers)


def memory(folder: Path, images: int) -> None:
    print("\npeak memory of a process that evaluates, native size, 2 threads")
    for times in (1, 2, 4):
        child = [sys.executable, __file__, "--memory", str(folder), str(times * images)]
        peak = subprocess.run(child, check=True, capture_output=True, text=True).stdout.strip()
        print(f"  {times * images:5d} images {peak}")


def peak_memory(folder: Path, images: int) -> None:
    """Evaluate `images` images of the folder in this process and print its peak resident memory."""
    cases, probabilities, masks = opened(folder, images)
    repeated = np.stack([probabilities[case.row] for case in cases])
    np.save(folder / "repeated.npy", repeated)
    del repeated
    before = high_water()
    run(cases, np.load(folder / "repeated.npy", mmap_mode="r"), masks, folder, 2)
    print(f"{high_water():6d} MiB, {before} MiB of it before the first")


def high_water() -> int:
    """Peak resident memory of this process in MiB. Not ru_maxrss: a child inherits that from its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) // 1024


def network(base_width: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"\nprediction on {device}, base width {base_width}, {SIDE}×{SIDE}, milliseconds per image")
    images = np.random.default_rng(0).integers(0, 256, (32, SIDE, SIDE, 3), np.uint8)
    rows = range(len(images))
    model = build_network("unet", base_width)
    for augmentation in VIEWS:
        _, elapsed = timed(lambda: list(predict(model, images, rows, device, augmentation)), time.perf_counter)  # noqa: B023
        print(f"  float32, test-time augmentation {augmentation:16s} {elapsed / len(images):8.1f}")
    batch = batch_size(torch.device(device), (SIDE, SIDE))
    inputs = torch.zeros(batch, 3, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            with torch.autocast(device, dtype if dtype != torch.float32 else None, enabled=dtype != torch.float32):
                _, elapsed = timed(lambda: model(inputs).float().cpu(), time.perf_counter)
            print(f"  the network alone, {dtype!s:15s}              {elapsed / len(inputs):8.1f}")
    for name, refine in REFINERS.items():
        if refine:
            _, elapsed = timed(lambda: refine(images[0, ..., 0], images[0]))  # noqa: B023
            print(f"  refinement {name}, CPU                 {elapsed:8.1f}")


def timed(function: Callable[[], Result], clock: Callable[[], float] = time.process_time) -> tuple[Result, float]:
    """The result, and the time of the faster of two runs in milliseconds by the `clock`."""
    best = np.inf
    for _ in range(2):
        start = clock()
        result = function()
        best = min(best, clock() - start)
    return result, best * 1000


if __name__ == "__main__":
    main()
