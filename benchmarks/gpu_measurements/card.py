"""The card and what it can do at most: matrix products and copies, measured on it, not read off a data sheet."""

import os
import platform
import shutil
import subprocess
from importlib import metadata

import torch

from gpu_measurements.clock import median_seconds
from gpu_measurements.report import Row
from gpu_measurements.scale import Scale
from lesionseg.common.hardware import describe
from lesionseg.common.parallel import cores
from lesionseg.train import precision

# what the library needs, and what only the pipeline around it does
PACKAGES = ("numpy", "scipy", "opencv-python-headless", "pillow", "safetensors", "tqdm", "albumentations", "pytest")
FORMATS = ("bf16", "fp16", "tf32", "fp32")


def environment(device: torch.device) -> Row:
    """What the figures depend on besides the code."""
    row: Row = {
        "device": describe(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        row |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "multiprocessors": properties.multi_processor_count,
            "card_memory_gib": round(properties.total_memory / 2**30, 1),
            "driver": _nvidia_smi("driver_version", device),
            "power_limit": _nvidia_smi("power.limit", device),
            "clock_max": _nvidia_smi("clocks.max.sm", device),
        }
    return row | {package: _version(package) for package in PACKAGES}


def formats(device: torch.device) -> list[str]:
    """The number formats of `precision` that `device` has."""
    if device.type == "cpu":
        return ["bf16", "fp32"]
    capability = torch.cuda.get_device_capability(device)
    least = {"bf16": precision.AMPERE, "tf32": precision.AMPERE, "fp16": precision.VOLTA, "fp32": (0, 0)}
    return [name for name in FORMATS if capability >= least[name]]


def matrix_rate(name: str, scale: Scale, device: torch.device) -> Row:
    """Floating-point operations a second of a large matrix product in this format, on random numbers.

    Zeros would run faster: they cost less power.
    """
    side = scale.matrix_side
    dtype = precision.choose(name, device)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    seconds = median_seconds(lambda: torch.mm(left, right, out=product), device, scale.seconds)
    return {"side": side, "tflops": 2 * side**3 / seconds / 1e12}


def memory_rate(scale: Scale, device: torch.device) -> Row:
    """Bytes a second of a copy within the card's memory: those read plus those written."""
    source = torch.randint(0, 256, (scale.copied_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), device, scale.seconds)
    return {"bytes": source.numel(), "gb_per_second": 2 * source.numel() / seconds / 1e9}


def _nvidia_smi(field: str, device: torch.device) -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader", f"--id={device.index or 0}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
