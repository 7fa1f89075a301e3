"""Which device computes, and whether it does so with deterministic algorithms."""

import os
import re

import torch

from lesionseg.common.errors import InputError


def choose_device(
    name: str, local_rank: int | None = None, called: str = "params.yaml: runtime.device"
) -> torch.device:
    """Return the device for `auto` (CUDA where there is a GPU, else the CPU), `cpu`, `cuda` or `cuda:<index>`.

    With several processes on one machine, each gives its `local_rank` and gets the GPU of that number. Raises
    InputError where `name` is no device or a GPU that torch does not see; `called` names the setting in the message.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise InputError(f"{called}: found {name!r}, expected auto, cpu, cuda or cuda:<index>")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and local_rank is not None and torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f"params.yaml: train.processes: each process on a machine needs a GPU of its own, and there are "
                f"{torch.cuda.device_count()}; lower it, or set runtime.device=cpu"
            )
        name = f"cuda:{local_rank}"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            reason = "is built without CUDA" if torch.version.cuda is None else "finds no usable GPU or driver"
            raise InputError(
                f"{called}: found '{name}', but torch {torch.__version__} {reason}; "
                "expected auto or cpu on this machine"
            )
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise InputError(
                f"{called}: found '{name}', but there are {torch.cuda.device_count()} GPUs, numbered from 0"
            )
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        torch.cuda.set_device(device)
    return device


def describe_device(device: torch.device) -> str:
    """The hardware and how much of it torch uses: runs on different ones differ in the last bits."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def use_deterministic_algorithms(enabled: bool) -> None:
    """Make CUDA give the same bits every time, or let it pick the fastest algorithm by trial. The CPU always does.

    A setting of the whole process; call it before the first CUDA operation.
    """
    # read when cuBLAS makes its first handle; without it torch refuses deterministic matrix products
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled)
    # a debugging aid that writes every new tensor twice; torch's types leave it out
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = enabled
    # the trial takes whichever kernel was faster that time, so that two runs may differ
    torch.backends.cudnn.benchmark = not enabled
