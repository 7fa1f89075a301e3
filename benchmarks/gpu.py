"""All there is to know about a card in one call: is training correct on it, how fast, where the time goes.

    python benchmarks/gpu.py --json gpu.json                              # everything but the recipe
    python benchmarks/gpu.py --json gpu.json --processed data/processed   # and the published recipe on these images
    python benchmarks/gpu.py --device cpu --smoke                         # every section, tiny, to test this script

Needs torch and the library, not DVC. Sections, each of which may fail without the others:

    environment  the machine and its software
    tests        the test suite's part that needs a GPU (where pytest is installed)
    peak         matrix products and copies: the two limits of everything else
    sweep        the bare step: batch sizes and number formats, then one change at a time
    loop         the whole loop, loading and augmentation included, beside the bare step
    profile      which kernels the time goes to
    recipe       10 epochs, Adam 1e-4, batch 8 at base width 64, on `--processed`, for each of `--seeds`
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from lesionseg import device, losses, networks, precision
from lesionseg.augment import Augmenter
from lesionseg.counts import Counts, count_batch
from lesionseg.loading import Samples, default_workers
from lesionseg.scores import OVERLAP
from lesionseg.training import Data, Recipe, fit, unit_interval
from training import bare, draw, loop, rate, wait

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Scale:
    """How much to measure."""

    base_width: int
    side: int
    batches: tuple[int, ...]
    seconds: float  # of each measurement, about
    matrix: int  # side of the square matrices multiplied
    workers: tuple[int, ...]


FULL = Scale(base_width=64, side=256, batches=(8, 32, 128), seconds=3, matrix=8192, workers=(0, 2, 4, 8))
SMOKE = Scale(base_width=2, side=32, batches=(2, 4), seconds=0.05, matrix=64, workers=(0, 1))


@dataclass
class Bench:
    """The machine, the scale, and the images measured on."""

    hardware: torch.device
    scale: Scale
    images: np.ndarray
    masks: np.ndarray

    @property
    def cuda(self) -> bool:
        return self.hardware.type == "cuda"

    def network(self) -> torch.nn.Module:
        return networks.build("unet", self.scale.base_width)

    def step(self, batch: int, name: str, deterministic: bool = False, **options: object) -> dict:
        """Rate of the bare step; its memory."""
        device.use_deterministic_algorithms(deterministic)
        dtype = precision.choose(name, self.hardware)
        arguments = (self.images[:batch], self.masks[:batch])
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.hardware)
        first = bare(self.network(), *arguments, 2, self.hardware, dtype, **options)
        steps = max(2, int(self.scale.seconds * first / batch))
        speed = bare(self.network(), *arguments, steps, self.hardware, dtype, **options)
        memory = torch.cuda.max_memory_allocated(self.hardware) / 2**30 if self.cuda else None
        settings = {"batch": batch, "precision": name, "deterministic": deterministic} | options
        return settings | {"images_per_second": speed, "memory_gib": memory}


def environment(bench: Bench) -> dict:
    facts = {
        "device": device.describe(bench.hardware),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    if bench.cuda:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm", "--format=csv"]
        facts["nvidia_smi"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return facts


def tests(bench: Bench) -> dict:
    if importlib.util.find_spec("pytest") is None:
        return {"skipped": "pytest is not installed"}
    # without a GPU the same command shows that all of them are skipped
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "tests"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return {"exit_code": result.returncode, "output": result.stdout.splitlines()[-40:]}


def peak(bench: Bench) -> dict:
    """10¹² operations per second of matrix products, 10⁹ bytes per second of a copy (read and written)."""
    side, found = bench.scale.matrix, {}
    for name in ("fp32", "tf32", "bf16", "fp16") if bench.cuda else ("fp32", "bf16"):
        dtype = precision.choose(name, bench.hardware)
        a, b = (torch.randn(side, side, device=bench.hardware, dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        products = _repeat(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), bench)
        found[f"{name}_tera_operations"] = products * 2 * side**3 / 1e12
    source = torch.empty(side * side * 4, dtype=torch.uint8, device=bench.hardware)
    target = torch.empty_like(source)
    found["giga_bytes"] = _repeat(lambda: target.copy_(source), bench) * 2 * source.numel() / 1e9
    return found


def _repeat(call: Callable[[], object], bench: Bench) -> float:
    """Calls per second."""
    call()
    once = rate(call, 3, 1, bench.hardware)
    return rate(call, max(3, int(bench.scale.seconds * once)), 1, bench.hardware)


def sweep(bench: Bench) -> list[dict]:
    best = "bf16" if precision.choose("auto", bench.hardware) == torch.bfloat16 else "auto"
    formats = ("fp32", "tf32", best) if bench.cuda else ("fp32", "bf16")
    rows = [_attempt(bench.step, batch, name) for batch in bench.scale.batches for name in formats]
    changes = [{"deterministic": True}, {"channels_last": False}]
    if bench.cuda:
        changes += [{"mode": mode} for mode in ("graph", "default", "reduce-overhead")]
    for batch in bench.scale.batches:
        rows += [_attempt(bench.step, batch, best, **change) for change in changes]
    if bench.cuda:  # minutes of trial: once
        rows.append(_attempt(bench.step, bench.scale.batches[-1], best, mode="max-autotune"))
    operations = _operations(bench)
    for row in rows:
        row["tera_operations"] = row.get("images_per_second", 0) * operations / 1e12
    return rows


def _operations(bench: Bench) -> int:
    """Floating-point operations to train on one image, counted by torch."""
    model = bench.network()
    image = torch.zeros(1, 3, bench.scale.side, bench.scale.side)
    with FlopCounterMode(display=False) as counter:
        model(image).sum().backward()
    return counter.get_total_flops()


def _attempt(measure: Callable[..., dict], *arguments: object, **options: object) -> dict:
    """A measurement, or why there is none: one that fails must not cost the others."""
    try:
        return measure(*arguments, **options)
    except Exception as error:  # whatever a compiler or a driver raises
        return {"arguments": [str(argument) for argument in arguments]} | options | {"error": str(error)[:500]}
    finally:
        torch.compiler.reset()  # it gives up compiling a function that it has compiled a few times
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def whole_loop(bench: Bench) -> list[dict]:
    """The loop with each number of workers, next to the bare step with the same settings."""
    device.use_deterministic_algorithms(False)
    dtype, rows = precision.choose("auto", bench.hardware), []
    for batch in bench.scale.batches:
        step = bench.step(batch, "auto")["images_per_second"]
        for workers in bench.scale.workers:
            speed = loop(bench.network(), bench.images, bench.masks, batch, bench.hardware, dtype, workers)
            rows.append(
                {"batch": batch, "workers": workers, "images_per_second": speed, "bare": step, "share": speed / step}
            )
    return rows


def profile(bench: Bench) -> dict:
    """The twenty operations that take longest, in percent of the device's time, at the middle batch size."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    batch = bench.scale.batches[len(bench.scale.batches) // 2]
    dtype = precision.choose("auto", bench.hardware)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if bench.cuda else [])
    with record(activities=activities) as recorded:
        bare(bench.network(), bench.images[:batch], bench.masks[:batch], 5, bench.hardware, dtype)
    time_of = (lambda event: event.self_device_time_total) if bench.cuda else lambda event: event.self_cpu_time_total
    events = sorted(recorded.key_averages(), key=time_of, reverse=True)
    total = sum(map(time_of, events)) or 1
    return {
        "batch": batch,
        "percent": {event.key[:90]: round(100 * time_of(event) / total, 2) for event in events[:20]},
    }


def recipe(bench: Bench, processed: Path | None, seeds: list[int]) -> list[dict]:
    """The published recipe: what it reaches on the validation images, pooled over all pixels, and how long it takes."""
    if processed is None:
        images, masks = bench.images, bench.masks
        rows = {"train": list(range(1, len(images))), "val": [0]}
        ids = [str(row) for row in range(len(images))]
    else:
        from lesionseg.arrays import open_arrays, read_samples

        samples = read_samples(processed)
        images, masks = open_arrays(processed)
        rows = {name: [row for row, s in enumerate(samples) if s.split == name] for name in ("train", "val")}
        ids = [sample.id for sample in samples]
    device.use_deterministic_algorithms(True)
    dtype = precision.choose("auto", bench.hardware)
    results = []
    for seed in seeds:
        torch.manual_seed(seed)
        data = Data(Samples(images, masks, Augmenter(seed, images.shape[1])), rows["train"], rows["val"], ids)
        settings = Recipe(epochs=10 if processed else 2, batch_size=8, learning_rate=1e-4, seed=seed)
        model = bench.network()
        began = time.perf_counter()
        fitted = fit(
            model,
            losses.build("bce_dice"),
            data,
            settings,
            device=bench.hardware,
            dtype=dtype,
            workers=default_workers(bench.hardware, os.cpu_count() or 1),
        )
        seconds = time.perf_counter() - began
        counts = Counts(*_count(model, data, bench.hardware, dtype))
        scores = {name: float(OVERLAP[name](counts)) for name in ("dice", "iou", "precision", "recall")}
        sizes = {"train_images": len(rows["train"]), "val_images": len(rows["val"]), "seconds": seconds}
        results.append({"seed": seed} | sizes | scores | {"history": fitted.history})
    return results


@torch.inference_mode()
def _count(model: torch.nn.Module, data: Data, hardware: torch.device, dtype: torch.dtype) -> list[int]:
    """Pooled tp, fp, fn, tn of the validation images."""
    model.eval()
    total = torch.zeros(4, dtype=torch.int64, device=hardware)
    for row in data.val_rows:
        images, masks = (tensor.to(hardware) for tensor in data.samples.__getitems__([(None, row)]))
        with precision.autocast(hardware, dtype):
            logits = model(unit_interval(images))
        total += count_batch(logits >= 0, masks[:, None] > 0).sum(0)
    return total.tolist()


def table(results: dict) -> str:
    """What a person wants to see of the results."""
    lines = [f"{results['environment'].get('device')}, torch {torch.__version__}"]
    if "exit_code" in results["tests"]:
        lines.append(f"tests: exit code {results['tests']['exit_code']}, {results['tests']['output'][-1]}")
    lines += [f"{name}: {value:.1f}" for name, value in results["peak"].items() if isinstance(value, float)]
    lines.append("\nbare step\n batch precision  images/s  10¹²/s  GiB  change")
    for row in results["sweep"] if isinstance(results["sweep"], list) else ():
        if "error" in row:
            lines.append(f"{row['arguments']} failed: {row['error'][:80]}")
            continue
        settings = {name: row[name] for name in ("deterministic", "channels_last", "mode") if row.get(name) is not None}
        changes = {name: value for name, value in settings.items() if (name, value) != ("deterministic", False)}
        speed, memory = f"{row['images_per_second']:9.1f} {row['tera_operations']:7.2f}", row["memory_gib"] or 0
        lines.append(f"{row['batch']:6} {row['precision']:9} {speed} {memory:4.1f}  {changes or ''}")
    lines.append("\nloop\n batch workers  images/s  share of the bare step")
    for row in results["loop"] if isinstance(results["loop"], list) else ():
        lines.append(f"{row['batch']:6} {row['workers']:7} {row['images_per_second']:9.1f} {row['share']:8.3f}")
    lines.append("\nprofile, percent")
    lines += [f"{share:7.2f}  {name}" for name, share in results["profile"].get("percent", {}).items()]
    for row in results["recipe"] if isinstance(results["recipe"], list) else ():
        scores = ", ".join(f"{name} {row[name]:.4f}" for name in ("dice", "iou", "precision", "recall"))
        lines.append(f"recipe, seed {row['seed']}: {scores} (pooled), {row['seconds']:.0f} s")
    failed = [name for name, result in results.items() if isinstance(result, dict) and "error" in result]
    return "\n".join(lines + [f"{name} failed: {results[name]['error'][-300:]}" for name in failed])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="everything tiny, to test this script")
    parser.add_argument("--processed", type=Path, help="processed arrays to run the recipe on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="these sections alone, by name")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            f"gpu.py: torch {torch.__version__} sees no NVIDIA GPU here; --device cpu --smoke tests the script itself"
        )
        return 1

    scale = SMOKE if options.smoke else FULL
    with tempfile.TemporaryDirectory() as folder:
        images, masks = draw(4 * scale.batches[-1] + 1, scale.side, Path(folder))
        bench = Bench(device.choose(options.device), scale, images, masks)
        sections = {
            "environment": environment,
            "tests": tests,
            "peak": peak,
            "sweep": sweep,
            "loop": whole_loop,
            "profile": profile,
            "recipe": lambda bench: (
                recipe(bench, options.processed, options.seeds) if options.processed or options.smoke else []
            ),
        }
        results: dict = {}
        for name, section in sections.items():
            began = time.perf_counter()
            try:
                skip = options.only and name not in options.only
                results[name] = {"skipped": "not asked for"} if skip else section(bench)
            except Exception:  # the next section may still work
                results[name] = {"error": traceback.format_exc()}
            wait(bench.hardware)
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
            if options.json:  # after each section: what is measured is kept if the machine goes away
                options.json.write_text(json.dumps(results, indent=2, default=str) + "\n")
    print(table(results))
    return 1 if any(isinstance(result, dict) and "error" in result for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
