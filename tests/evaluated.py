"""A small evaluation on disk, left by the evaluate stage itself: the later an image, the more the network misses."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lesionseg.common.files import write_csv, write_json
from lesionseg.formats.processed import EVALUATED
from tiny_data import run_stage, trained_network, write_data, write_model

HISTORY = ("epoch", "train_loss", "train_dice", "train_iou", "val_loss", "val_dice", "val_iou", "learning_rate")


def disc(size: int, x: float, y: float, radius: float) -> np.ndarray:
    """A mask uint8 (size, size) with a disc of lesion."""
    rows, columns = np.mgrid[:size, :size]
    return (((columns - x) ** 2 + (rows - y) ** 2) <= radius**2).astype(np.uint8)


def write_evaluation(
    root: Path,
    splits: Mapping[str, int],
    size: int = 64,
    epochs: int = 3,
    masks: np.ndarray | None = None,
) -> None:
    """Write data/, models/ and plots/ under `root`, for `splits` of so many images.

    The lesions are discs, and each image looks like lesion a little beside its own. `masks` uint8 (N, size, size)
    replace the discs, so that a test can have an empty or a full one.
    """
    random = np.random.default_rng(7)
    names = [split for split in ("train", *EVALUATED) for _ in range(splits.get(split, 0))]
    numbers = [number for split in ("train", *EVALUATED) for number in range(splits.get(split, 0))]
    order = random.permutation(len(names))  # the splits lie mixed in the arrays
    truths, seen = [], []
    for index in order:
        x, y = random.uniform(0.35, 0.65, 2) * size
        radius = random.uniform(0.1, 0.3) * size
        truths.append(disc(size, x, y, radius))
        seen.append(disc(size, x + 0.02 * size * (numbers[index] % 12), y, radius))
    if masks is not None:
        truths = [masks[index] for index in order]
    write_data(root, [names[index] for index in order], truths, seen, size, noise=3)
    write_model(root, trained_network(), image_size=size, keep="last", epoch=epochs, device="cpu")
    write_history(root, epochs)
    run_stage(root, "evaluate", bootstrap_samples=100)
    counts = {split: {"images": count} for split, count in splits.items()}
    summary = {"sources": {"synthetic": len(names)}, "images": len(names), "splits": counts}
    write_json(root / "data/summary/summary.json", summary)


def write_history(root: Path, epochs: int) -> None:
    """Write plots/history.csv as training does."""
    rows = [
        dict(zip(HISTORY, (epoch, 1 / epoch, 0.8, 0.66, 1.1 / epoch, 0.9 - 0.5 / epoch, 0.6, 1e-4), strict=True))
        for epoch in range(1, epochs + 1)
    ]
    write_csv(root / "plots/history.csv", HISTORY, rows)
