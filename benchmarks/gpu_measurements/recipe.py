"""The published recipe from start to scores: Adam 1e-4, batch 8, 10 epochs, flips and right angles, BCE + Dice."""

import io
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

from gpu_measurements.clock import synchronise
from gpu_measurements.report import Row
from gpu_measurements.scale import Scale
from lesionseg import networks
from lesionseg.common.parallel import cores
from lesionseg.formats.processed import open_arrays, read_samples
from lesionseg.inference.prediction import predict
from lesionseg.scoring import scores
from lesionseg.scoring.counts import Counts, count
from lesionseg.train import losses, precision
from lesionseg.train.loading import Augment, Samples, default_workers
from lesionseg.train.loop import Data, Recipe, fit

THRESHOLD = 128  # of 255: from probability 0.5 on a pixel is lesion


def train_and_score(
    folder: Path, seed: int, precision_name: str, scale: Scale, augment: Augment, device: torch.device
) -> Row:
    """Train on the split `train` of a processed folder, and score `val` pooled over its pixels."""
    samples = read_samples(folder)
    images, masks = open_arrays(folder)
    rows = {split: [row for row, sample in enumerate(samples) if sample.split == split] for split in ("train", "val")}
    data = Data(Samples(images, masks, augment), rows["train"], rows["val"], [sample.id for sample in samples])
    dtype = precision.choose(precision_name, device)
    torch.manual_seed(seed)
    model = networks.build(scale.network, scale.base_width)
    recipe = Recipe(scale.epochs, scale.recipe_batch, learning_rate=1e-4, seed=seed)

    began = time.perf_counter()
    with redirect_stdout(io.StringIO()):  # its line an epoch
        fitted = fit(
            model,
            losses.build("bce_dice"),
            data,
            recipe,
            device=device,
            dtype=dtype,
            workers=default_workers(device, cores()),
        )
    synchronise(device)
    seconds = time.perf_counter() - began

    model.load_state_dict(fitted.state)
    predicted = predict(model, images, rows["val"], device)
    pooled = Counts.of(
        np.array([count(one.plain >= THRESHOLD, masks[row]) for one, row in zip(predicted, rows["val"], strict=True)])
    ).pooled()
    return {
        "train_images": len(rows["train"]),
        "val_images": len(rows["val"]),
        "seconds": seconds,
        **{f"pooled_{name}": float(getattr(scores, name)(pooled)) for name in ("dice", "iou", "precision", "recall")},
        "history": fitted.history,
    }
