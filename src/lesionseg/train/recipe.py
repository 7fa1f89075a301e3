"""The settings of a training run: how to train, and what to compute on."""

from dataclasses import dataclass
from typing import Annotated

import torch

from lesionseg.common.parameters import Field, Group, one_of
from lesionseg.train.distributed import World
from lesionseg.train.schedule import SCHEDULES

KEEP = ("last", "best")  # which weights are saved: those after the last epoch, or at the highest validation Dice


class Recipe(Group):
    """How to train: parameters of the same names in params.yaml. Every one changes the result."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)  # images in one optimiser step, over all processes
    learning_rate: float = Field(gt=0)
    # of order and random layers; augmentation and initial weights take it too. The limit is that of torch's generators
    seed: int = Field(ge=0, lt=2**63)
    schedule: Annotated[str, one_of(SCHEDULES)]  # of the learning rate
    warmup_epochs: int = Field(ge=0)  # in which the learning rate rises to its value
    accumulation: int = Field(ge=1)  # parts in which a process takes its share of a batch
    # decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101), on weights, not on norms and biases
    weight_decay: float = Field(ge=0)
    gradient_clip: float | None = Field(gt=0)  # largest norm of the gradient
    ema_decay: float | None = Field(ge=0, lt=1)  # of the average of weights that is validated and saved
    keep: Annotated[str, one_of(KEEP)]
    early_stopping: int | None = Field(ge=1)  # epochs without a higher validation Dice after which to stop
    compile: bool  # the network, with torch.compile


@dataclass(frozen=True)
class Machine:
    """What to compute on. Device and number format change digits; the number of workers changes nothing."""

    device: torch.device
    dtype: torch.dtype  # of the network's computation (lesionseg.train.precision)
    workers: int = 0  # processes that load batches
    world: World = World()  # noqa: RUF009 (immutable)
