"""The full training loop, lesionseg.train.loop.fit, with loading and augmentation: what a user waits for."""

import io
import time
from collections.abc import Sequence
from contextlib import redirect_stdout

import numpy as np
import torch

from gpu_measurements.clock import synchronise
from gpu_measurements.report import Row
from gpu_measurements.scale import Scale
from gpu_measurements.step import Variant
from lesionseg import networks
from lesionseg.common.hardware import use_deterministic_algorithms
from lesionseg.common.parallel import cores
from lesionseg.train import losses, precision
from lesionseg.train.loading import PREFETCH, Augment, Samples, batches, default_workers
from lesionseg.train.loop import Data, Recipe, fit

EPOCHS = 3  # of which the first warms up
FEWEST_STEPS = 4  # in an epoch


def loader_speed(samples: Samples, batch: int, workers: int, device: torch.device, seconds: float) -> Row:
    """Images a second that arrive on the device while it computes nothing, from `workers` processes."""

    def keys():
        # lesionseg.train.loading takes lists of (epoch, row): one a batch
        for index in range(2**31):
            yield [((index + 1), row % len(samples.images)) for row in range(index * batch, (index + 1) * batch)]

    stream = batches(samples, keys(), device, workers)
    for _ in range(2 * PREFETCH * workers + 1):  # what was read ahead while nobody took it is used up
        next(stream)
    synchronise(device)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        next(stream)
        count += batch
    synchronise(device)
    return {"images_per_second": count / (time.perf_counter() - began)}


def speed(
    variant: Variant,
    scale: Scale,
    images: np.ndarray,
    masks: np.ndarray,
    augment: Augment | None,
    device: torch.device,
    expected: float,
) -> Row:
    """Images a second of `fit`, whole epochs with their ends, but with a validation set of a single batch.

    An epoch has as many steps as take about `scale.seconds` at the `expected` images a second. Rows of the arrays
    come several times in it where there are fewer.
    """
    use_deterministic_algorithms(variant.deterministic)
    dtype = precision.choose(variant.precision, device)
    steps = max(FEWEST_STEPS, round(scale.seconds * expected / variant.batch))
    data = Data(
        Samples(images, masks, augment),
        _rows(steps * variant.batch, len(images)),
        _rows(variant.batch, len(images)),
        [str(row) for row in range(len(images))],
    )
    recipe = Recipe(EPOCHS, variant.batch, learning_rate=1e-4, seed=0, compile=variant.compile)
    torch.manual_seed(0)
    ends: list[float] = []
    try:
        with redirect_stdout(io.StringIO()):  # its line an epoch
            fit(
                networks.build(scale.network, scale.base_width),
                losses.build("bce_dice"),
                data,
                recipe,
                device=device,
                dtype=dtype,
                workers=default_workers(device, cores()),
                # the row's figures were read from the device: it has finished the epoch
                on_epoch=lambda row: ends.append(time.perf_counter()),
            )
    finally:
        use_deterministic_algorithms(True)
        torch.compiler.reset()
    seconds = (ends[-1] - ends[0]) / (EPOCHS - 1)
    return {"images_per_second": len(data.train_rows) / seconds, "steps_an_epoch": steps}


def _rows(count: int, there: int) -> Sequence[int]:
    return np.resize(np.arange(there), count).tolist()
