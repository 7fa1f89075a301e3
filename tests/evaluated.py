"""A small evaluation on disk, as the evaluate stage leaves it: drawn lesions, predictions that miss ever more."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lesionseg.common.files import write_csv, write_json
from lesionseg.evaluate.measurement import measure
from lesionseg.evaluate.split_report import SplitReport
from lesionseg.evaluate.tables import write_tables
from lesionseg.formats.processed import HELD_OUT, SPLITS, Sample, write_samples
from lesionseg.inference.postprocess import Cleaning
from lesionseg.networks import build, weights

HISTORY = ("epoch", "train_loss", "train_dice", "train_iou", "val_loss", "val_dice", "val_iou", "learning_rate")
ORDER = SPLITS


def disc(size: int, x: float, y: float, radius: float) -> np.ndarray:
    """A mask uint8 (size, size) with a disc of lesion."""
    rows, columns = np.mgrid[:size, :size]
    return (((columns - x) ** 2 + (rows - y) ** 2) <= radius**2).astype(np.uint8)


def drawn(index: int, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image uint8 (size, size, 3), mask, and 8-bit probabilities; the higher the index, the worse the prediction."""
    x, y, radius = random.uniform(0.35, 0.65) * size, random.uniform(0.35, 0.65) * size, random.uniform(0.1, 0.3) * size
    mask = disc(size, x, y, radius)
    skin = np.where(mask[..., None], (110, 70, 50), (225, 180, 160)) + random.normal(0, 6, (size, size, 1))
    rows, columns = np.mgrid[:size, :size]
    shift = 0.02 * size * (index % 12)
    inside = radius - np.hypot(columns - x - shift, rows - y)
    probabilities = 1 / (1 + np.exp(-inside * 24 / size))
    return np.clip(skin, 0, 255).astype(np.uint8), mask, np.round(255 * probabilities).astype(np.uint8)


def write_evaluation(
    root: Path,
    splits: Mapping[str, int],
    size: int = 64,
    epochs: int = 3,
    masks: np.ndarray | None = None,
    bootstrap: int = 100,
) -> None:
    """Write data/, models/, plots/ and params.yaml under `root`, for `splits` of so many images.

    `masks` uint8 (N, size, size) replace those drawn, so that a test can have an empty or a full one.
    """
    random = np.random.default_rng(7)
    names = [(split, number) for split in ORDER for number in range(splits.get(split, 0))]
    ids = random.permutation([f"IMG_{number:05d}" for number in range(len(names))])
    # samples are sorted by id within a folder, so the splits of a folder lie mixed in its arrays
    order = sorted(range(len(ids)), key=lambda index: (names[index][0] in HELD_OUT, ids[index]))
    entries = [(str(ids[index]), *names[index]) for index in order]
    pictures = [drawn(number, size, random) for _, _, number in entries]
    images = np.stack([picture[0] for picture in pictures])
    truths = np.stack([picture[1] for picture in pictures]) if masks is None else masks
    probabilities = np.stack([picture[2] for picture in pictures])

    predictions, model = root / "data/evaluation", root / "models/segmentation"
    for folder in (predictions, model, root / "data/summary", root / "plots"):
        folder.mkdir(parents=True, exist_ok=True)
    apart = [split in HELD_OUT for _, split, _ in entries]
    for folder, chosen in (("processed", False), ("held_out", True)):
        rows = [row for row, held in enumerate(apart) if held == chosen]
        (root / "data" / folder).mkdir(exist_ok=True)
        np.save(root / "data" / folder / "images.npy", images[rows])
        np.save(root / "data" / folder / "masks.npy", truths[rows])
        samples = [
            Sample(entries[row][0], entries[row][1], size, size, float(truths[row].mean()), entries[row][0])
            for row in rows
        ]
        write_samples(root / "data" / folder, samples)
    held_out = [row for split in ORDER[1:] for row, entry in enumerate(entries) if entry[1] == split]
    reports = {}
    predicted = []
    for row in held_out:
        name, split, _ = entries[row]
        measured, mask = measure(probabilities[row], probabilities[row], truths[row], truths[row], 128, Cleaning())
        reports.setdefault(split, SplitReport()).add(name, measured)
        predicted.append(mask)
    np.save(predictions / "probabilities.npy", probabilities[held_out])
    np.save(predictions / "predicted.npy", np.stack(predicted))
    write_csv(
        predictions / "samples.csv",
        ("id", "split", "index"),
        [{"id": entries[row][0], "split": entries[row][1], "index": row} for row in held_out],
    )
    write_tables(root / "plots", reports)
    write_json(predictions / "scores.json", {split: one.headline(bootstrap, 0) for split, one in reports.items()})
    write_json(predictions / "breakdowns.json", {split: one.detail(bootstrap, 0) for split, one in reports.items()})
    counts = {split: {"images": count} for split, count in splits.items()}
    summary = {"sources": {"synthetic": len(entries)}, "images": len(entries), "splits": counts}
    write_json(root / "data/summary/summary.json", summary)
    rows = [
        dict(zip(HISTORY, (epoch, 1 / epoch, 0.8, 0.66, 1.1 / epoch, 0.9 - 0.5 / epoch, 0.6, 1e-4), strict=True))
        for epoch in range(1, epochs + 1)
    ]
    write_csv(root / "plots/history.csv", HISTORY, rows)
    network = build("unet", 1)
    metadata = {
        "network": "unet",
        "base_width": 1,
        "keep": "last",
        "epoch": epochs,
        "device": "cpu",
        "precision": "float32",
    }
    weights.save(model / "weights.safetensors", network.state_dict(), metadata)
    (root / "params.yaml").write_text(
        "visualize:\n  examples: 3\n  seed: 0\n  ids: null\n  format: png\n", encoding="utf-8"
    )
