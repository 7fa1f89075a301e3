"""Training on an NVIDIA card, in one call: what the card can do, and how close training comes to it.

    python benchmarks/gpu.py                            # synthetic images
    python benchmarks/gpu.py --data data/processed      # those of the pipeline, at 256×256, for the recipe's scores

Results are printed and written to --json after each measurement, so that a run that is cut off keeps them. docs/gpu.md
says how to read them.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from lesionseg import networks
from lesionseg.common.errors import InputError
from lesionseg.common.hardware import choose_device, describe_device, use_deterministic_algorithms
from lesionseg.common.parallel import cores
from lesionseg.formats.processed import open_arrays, read_samples
from lesionseg.train import precision
from lesionseg.train.augment import Augmenter
from lesionseg.train.loading import Data, Samples, default_workers
from lesionseg.train.logbook import Record
from lesionseg.train.loop import fit, unit_interval
from lesionseg.train.recipe import Machine
from training import LOSS, PUBLISHED

REPOSITORY = Path(__file__).parents[1]
BLOCKS = 5  # of calls; the time is their median
Row = dict[str, object]


@dataclass(frozen=True)
class Scale:
    """How large and how long everything is."""

    base_width: int = 64
    side: int = 256
    batches: tuple[int, ...] = (8, 32, 128)
    matrix: int = 8192  # rows and columns of the matrices multiplied
    seconds: float = 2  # of one measurement
    epochs: int = 10  # of the recipe
    loop_steps: int = 40  # of an epoch in the measurement of the loop


SMOKE = Scale(base_width=2, side=32, batches=(2,), matrix=64, seconds=0.05, epochs=1, loop_steps=2)


@dataclass(frozen=True)
class Variant:
    """How a step is computed. The defaults are the pipeline's, but for the precision."""

    batch: int
    precision: str
    channels_last: bool = True
    deterministic: bool = True
    compile: bool = False
    graph: bool = False  # the whole step recorded as one CUDA graph


def variants(batches: tuple[int, ...], formats: list[str], cuda: bool) -> list[Variant]:
    """Each batch size in the first format, then with one thing changed at a time."""
    usual = [Variant(batch, formats[0]) for batch in batches]
    changes = [{}, *({"precision": name} for name in formats[1:]), {"channels_last": False}]
    changes += [{"deterministic": False}, {"compile": True}]
    # a gradient scaler decides in each step whether to take it, which a graph cannot
    changes += [{"graph": True}] if cuda and formats[0] != "fp16" else []
    return [replace(variant, **change) for change in changes for variant in usual]


def formats(device: torch.device) -> list[str]:
    """The number formats `device` has, the fastest first."""
    if device.type == "cpu":
        return ["bf16", "fp32"]
    ampere = torch.cuda.get_device_capability(device) >= precision.AMPERE
    return ["bf16", "fp16", "tf32", "fp32"] if ampere else ["fp16", "fp32"]


def seconds_a_call(call: Callable[[], object], device: torch.device, budget: float) -> list[float]:
    """Seconds per call in each of BLOCKS blocks; Python waits for the device only between blocks."""

    def block(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / calls

    block(3)  # kernels are loaded, algorithms chosen, memory taken
    calls = max(1, round(budget / BLOCKS / block(1)))
    return [block(calls) for _ in range(BLOCKS)]


def environment(device: torch.device) -> Row:
    row: Row = {"device": describe_device(device), "torch": torch.__version__, "cores": cores()}
    if device.type == "cuda":
        row |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        row["memory_gib"] = torch.cuda.get_device_properties(device).total_memory / 2**30
    return row


def matrix_rate(name: str, scale: Scale, device: torch.device) -> Row:
    """Floating-point operations per second in a large product of random matrices; zeros would draw less power."""
    dtype = precision.choose_dtype(name, device)
    left, right = (torch.randn(scale.matrix, scale.matrix, device=device, dtype=dtype) for _ in range(2))
    seconds = median(seconds_a_call(lambda: left @ right, device, scale.seconds))
    return {"precision": name, "tflops": 2 * scale.matrix**3 / seconds / 1e12}


def operations(base_width: int, side: int) -> int:
    """Floating-point operations of training on one image, forward and backward: counted, not computed."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        images = torch.zeros(1, side, side, 3, dtype=torch.uint8)
        outputs = networks.build_network("unet", base_width)(unit_interval(images))
        LOSS(outputs, torch.zeros_like(outputs)).mean().backward()
    return counter.get_total_flops()


def bare_step(variant: Variant, scale: Scale, device: torch.device) -> Row:
    """Images per second of forward, loss, backward and Adam on one batch on the device, and peak memory."""
    gc.collect()  # compiled networks refer to themselves
    use_deterministic_algorithms(variant.deterministic)
    dtype = precision.choose_dtype(variant.precision, device)
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    torch.manual_seed(0)
    images = torch.randint(0, 256, (variant.batch, scale.side, scale.side, 3), dtype=torch.uint8, device=device)
    targets = (images[..., 0] > 127).unsqueeze(1)
    model = networks.build_network("unet", scale.base_width).to(device, memory_format=layout).train()
    network = torch.compile(model) if variant.compile else model
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.0, fused=True, capturable=variant.graph)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step() -> None:
        # autocast's cache of cast weights must not outlive a recording
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32, cache_enabled=not variant.graph):
            outputs = network(unit_interval(images).contiguous(memory_format=layout))
        scaler.scale(LOSS(outputs, targets).mean()).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()

    try:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        seconds = seconds_a_call(recorded(step) if variant.graph else step, device, scale.seconds)
        row = {"images_per_second": variant.batch / median(seconds)}
        row["spread"] = (max(seconds) - min(seconds)) / median(seconds)
        return row | ({"peak_gib": torch.cuda.max_memory_allocated(device) / 2**30} if device.type == "cuda" else {})
    finally:
        use_deterministic_algorithms(True)
        torch.compiler.reset()


def recorded(step: Callable[[], None]) -> Callable[[], None]:
    """The step as one CUDA graph. Gradients are None when recording starts, so each replay writes them afresh."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # on another stream before recording, as torch requires
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def synthetic(scale: Scale, count: int = 64) -> Data:
    """Noise with a disc in the middle: enough to measure speed."""
    images = np.random.default_rng(0).integers(0, 256, (count, scale.side, scale.side, 3), dtype=np.uint8)
    y, x = np.mgrid[: scale.side, : scale.side] - scale.side // 2
    masks = np.broadcast_to((x**2 + y**2 < (scale.side / 4) ** 2).astype(np.uint8), images.shape[:3])
    rows = list(range(count))
    return Data(Samples(images, masks), rows[8:], rows[:8], [str(row) for row in rows])


def processed(folder: Path, scale: Scale) -> Data:
    """What the preprocess stage made, its splits train and val."""
    samples = read_samples(folder)
    images, masks = open_arrays(folder)
    if images.shape[1] != scale.side:
        raise InputError(f"--data: found images {images.shape[1]} pixels wide, expected {scale.side}")
    train, val = ([row for row, one in enumerate(samples) if one.split == name] for name in ("train", "val"))
    return Data(Samples(images, masks), train, val, [sample.id for sample in samples])


def train(data: Data, scale: Scale, machine: Machine, **changes: object) -> tuple[Row, list[float]]:
    """Last row of the history, and images per second in each epoch of the full loop with loading and augmentation."""
    recipe = PUBLISHED.model_copy(update=changes)
    torch.manual_seed(recipe.seed)
    data = data.augmented(Augmenter(recipe.seed, scale.side, recipe))
    fitted = fit(networks.build_network("unet", scale.base_width), LOSS, data, recipe, machine, Record(quiet=True))
    return fitted.history[-1], fitted.images_per_second


def measurements(data: Data, scale: Scale, device: torch.device) -> Iterator[tuple[str, Row, Callable[[], Row]]]:
    """Name, settings and measurement, the most valuable first."""
    rates: dict[str, float] = {}
    steps: dict[int, float] = {}
    flops = operations(scale.base_width, scale.side)
    names = formats(device)

    def rate(name: str) -> Row:
        row = matrix_rate(name, scale, device)
        rates[name] = 1e12 * row["tflops"] / flops
        return row | {"images_per_second_at_most": rates[name]}

    def step(variant: Variant) -> Row:
        row = bare_step(variant, scale, device)
        if variant == Variant(variant.batch, names[0]):
            steps[variant.batch] = row["images_per_second"]
        return row | {"share_of_matrix_rate": row["images_per_second"] / rates[variant.precision]}

    def loop(batch: int) -> Row:
        rows = np.resize(data.train_rows, batch * scale.loop_steps).tolist()
        machine = Machine(device, precision.choose_dtype(names[0], device), default_workers(device, cores()))
        _, speeds = train(replace(data, train_rows=rows), scale, machine, epochs=2, batch_size=batch)
        return {"images_per_second": speeds[-1], "below_bare_step": 1 - speeds[-1] / steps[batch]}

    def recipe(seed: int) -> Row:
        began = time.perf_counter()
        machine = Machine(device, precision.choose_dtype("auto", device), default_workers(device, cores()))
        row, _ = train(data, scale, machine, seed=seed, epochs=scale.epochs)
        return {"seconds": time.perf_counter() - began} | row

    yield "environment", {}, lambda: environment(device)
    for name in names:
        yield "matrix rate", {}, lambda name=name: rate(name)
    for variant in variants(scale.batches, names, device.type == "cuda"):
        yield "bare step", asdict(variant), lambda variant=variant: step(variant)
    for batch in scale.batches:
        yield "loop", {"batch": batch, "precision": names[0]}, lambda batch=batch: loop(batch)
    for seed in range(3):
        yield "recipe", {"seed": seed}, lambda seed=seed: recipe(seed)
    if device.type == "cuda":
        yield "tests", {}, cuda_tests


def cuda_tests() -> Row:
    """The last line of `pytest -m cuda`."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests"]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, check=False)
    return {"exit code": done.returncode, "said": done.stdout.strip().splitlines()[-1]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="processed directory: images.npy, masks.npy, samples.csv")
    parser.add_argument("--only", nargs="+", help="of environment, matrix rate, bare step, loop, recipe, tests")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="at a size at which the speeds mean nothing")
    parser.add_argument("--json", type=Path, default=Path("gpu-measurements.json"))
    options = parser.parse_args()
    scale, failed, rows = SMOKE if options.smoke else Scale(), 0, []
    try:
        device = choose_device(options.device)
        data = processed(options.data, scale) if options.data else synthetic(scale)
    except InputError as error:
        sys.exit("\n".join(f"gpu: error: {problem}" for problem in error.problems))
    use_deterministic_algorithms(True)
    for name, settings, measure in measurements(data, scale, device):
        if options.only and name not in options.only:
            continue
        try:
            row = measure()
        except (RuntimeError, InputError, KeyError) as error:  # out of memory, say, or a part left out
            row, failed = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}, failed + 1
        rows.append({"part": name} | settings | row)
        print(json.dumps(rows[-1]), flush=True)
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
