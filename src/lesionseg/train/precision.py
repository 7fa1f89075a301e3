"""The number format the network computes in.

Weights, optimiser and losses are always float32. The format is that of the convolutions under autocast:

    bf16   bfloat16: float32's range with 8 bits of precision. CUDA from Ampere (compute capability 8.0) on,
           CPUs with AVX512-BF16, AMX or Arm's BF16 instructions.
    fp16   float16: 11 bits, but a range so small that gradients underflow; their loss is scaled up for it
           (torch.amp.GradScaler). For the tensor cores of Volta and Turing (V100, T4).
    tf32   float32 whose products are rounded to 11 bits, on CUDA from Ampere on. No autocast.
    fp32   full float32.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch

from lesionseg.common.errors import InputError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32}
PRECISIONS = ("auto", *DTYPES)
AMPERE, VOLTA = (8, 0), (7, 0)  # compute capabilities


def choose_dtype(name: str, device: torch.device, compile: bool = False) -> torch.dtype:
    """Return the dtype to autocast to on `device` (float32: no autocast) for `name`, one of PRECISIONS, and set how
    float32 products are rounded.

    `auto` takes bf16 where the hardware has it, fp16 on CUDA cards that only have that, else fp32. The rounding
    of float32 products is a setting of the whole process. Raises InputError for a format the device lacks,
    or one that torch.compile is not known to take.
    """
    if name == "tf32" and compile:
        raise InputError(
            "params.yaml: train.compile: found true with train.precision=tf32, of which torch's compiler reads older "
            "switches; set one of the two to something else"
        )
    if name == "auto":
        name = _fastest(device)
    if name == "tf32" and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE):
        raise InputError(
            f"params.yaml: train.precision: found 'tf32', which {device.type} here does not have; expected auto, bf16, "
            "fp16 or fp32"
        )
    # the one for all, and those of its operations: one that was ever set itself no longer follows it
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # torch's types leave it out
    switches: tuple[Any, ...] = (torch.backends, torch.backends.cuda.matmul, convolutions)
    for operations in switches:
        operations.fp32_precision = "tf32" if name == "tf32" else "ieee"
    return DTYPES[name]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """The context in which the network runs forward: autocast to `dtype`, or nothing for float32."""
    return torch.autocast(device.type, dtype if dtype != torch.float32 else None, enabled=dtype != torch.float32)


def _fastest(device: torch.device) -> str:
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= AMPERE else "fp16" if capability >= VOLTA else "fp32"
    has = torch.cpu.get_capabilities()
    # AVX-512 alone emulates bfloat16, slower than float32; the key is "bf16" on Arm
    return "bf16" if any(has.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16")) else "fp32"
