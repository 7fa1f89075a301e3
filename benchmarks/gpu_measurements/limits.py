"""What a training step cannot be faster than: its operations at the matrix rate, its bytes at the memory's rate."""

from dataclasses import dataclass
from functools import cache

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lesionseg import networks
from lesionseg.train import losses
from lesionseg.train.loop import unit_interval

# Adam reads weight, gradient and both moments and writes back all but the gradient, 4 bytes each
ADAM_BYTES = 28
# under autocast a weight is read as float32 and written in half precision, and its gradient the other way round
CAST_BYTES = 12


@dataclass(frozen=True)
class Cost:
    """Of training a network: what grows with the images, and what each step costs whatever its size."""

    parameters: int
    operations: int  # an image, forward and backward; a multiplication and an addition are two
    image_bytes: int  # an image, moved by operators that each read their inputs and write their outputs once
    other_bytes: int  # those of them that are not moved by convolutions: batch norm, ReLU, pooling, concatenation
    step_bytes: int  # a step: weights, gradients, optimiser

    def by_operations(self, batch: int, operations_per_second: float) -> float:
        """Seconds of a step of `batch` images that only computes."""
        return batch * self.operations / operations_per_second

    def by_bytes(self, batch: int, bytes_per_second: float) -> float:
        """Seconds of a step of `batch` images that only moves its data."""
        return (batch * self.image_bytes + self.step_bytes) / bytes_per_second

    def in_turn(self, batch: int, operations_per_second: float, bytes_per_second: float) -> float:
        """Seconds of a step whose convolutions run at the matrix rate and all else, after them, at the memory's."""
        moved = batch * self.other_bytes + self.step_bytes
        return self.by_operations(batch, operations_per_second) + moved / bytes_per_second


@cache
def cost(network: str, base_width: int, side: int, dtype: torch.dtype) -> Cost:
    """Count one training step on images `side` pixels wide and high, activations of `dtype`, without computing it.

    The bytes are those of torch's operators run one by one, as without torch.compile; kernels that read an input
    twice, as batch norm's do, move more, and fused ones less.
    """
    one, two = (_step(network, base_width, side, dtype, batch) for batch in (1, 2))
    image = {name: two[name] - one[name] for name in two}
    outside = ADAM_BYTES + (CAST_BYTES if dtype != torch.float32 else 0)
    return Cost(
        parameters=one["parameters"],
        operations=image["operations"],
        image_bytes=image["bytes"],
        other_bytes=image["bytes"] - image["convolution_bytes"],
        step_bytes=one["bytes"] - image["bytes"] + outside * one["parameters"],
    )


def _step(network: str, base_width: int, side: int, dtype: torch.dtype, batch: int) -> dict[str, int]:
    """What forward and backward of a batch take; tensors on `meta` have shapes but no content."""
    with torch.device("meta"):
        model = networks.build(network, base_width).to(dtype)
        images = torch.zeros(batch, side, side, 3, dtype=torch.uint8)
        targets = torch.zeros(batch, 1, side, side, dtype=torch.uint8)
    loss = losses.build("bce_dice")
    with FlopCounterMode(display=False) as operations, _ByteCounter() as moved:
        loss(model(unit_interval(images).to(dtype)), targets).mean().backward()
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "operations": operations.get_total_flops(),
        "bytes": moved.bytes,
        "convolution_bytes": moved.convolution_bytes,
    }


class _ByteCounter(TorchDispatchMode):
    """Adds up the bytes of every operator's inputs and outputs; views move none."""

    def __init__(self):
        super().__init__()
        self.bytes = self.convolution_bytes = 0

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        result = operator(*arguments, **(options or {}))
        returned = operator._schema.returns
        if not any(value.alias_info and not value.alias_info.is_write for value in returned):
            tensors = [*_tensors(arguments), *_tensors(result)]
            moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.bytes += moved
            self.convolution_bytes += moved if "convolution" in operator._schema.name else 0
        return result


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []
