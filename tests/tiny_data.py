"""A tiny data set on disk as preprocess leaves it, a network that has learnt it a little, and a stage run on it.

Every test of evaluation and visualisation starts from here.
"""

import os
import runpy
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits

from lesionseg.formats import manifest
from lesionseg.formats.manifest import Pair
from lesionseg.formats.processed import HELD_OUT, TRAINED, Sample, write_samples
from lesionseg.images.decoding import read_rgb
from lesionseg.networks import build_network, weights

REPOSITORY = Path(__file__).parents[1]
SIZE = 32
NATIVE = [(120, 90), (90, 120), (200, 160), (64, 64), (24, 20), (333, 250), (151, 77), (80, 60)]  # width, height
SUBSET = {"official_validation": "validation", "official_test": "test", "external": "external"}  # of the manifest
SKIN, REDDER = (110, 110, 110), (60, -30, -30)

Network = tuple[dict, dict]  # state and metadata


def lesion(index: int, width: int, height: int) -> np.ndarray:
    """A mask uint8 (height, width): blobs; every eighth empty and every eighth full."""
    if index % 8 == 4:
        return np.zeros((height, width), np.uint8)
    if index % 8 == 6:
        return np.ones((height, width), np.uint8)
    noise = np.random.default_rng(index).standard_normal((6, 6)).astype(np.float32)
    field = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (field > np.quantile(field, [0.97, 0.9, 0.7, 0.4][index % 4])).astype(np.uint8)


def picture(index: int, mask: np.ndarray, noise: float = 25) -> np.ndarray:
    """An image uint8 (H, W, 3), reddish where there is lesion, so that a small network learns it at once."""
    noise = np.random.default_rng(index).normal(0, noise, (*mask.shape, 3))
    return np.clip(SKIN + noise + mask[..., None] * np.array(REDDER), 0, 255).astype(np.uint8)


def write_data(
    root: Path,
    splits: Sequence[str],
    masks: Sequence[np.ndarray] | None = None,
    seen: Sequence[np.ndarray] | None = None,
    size: int = SIZE,
    noise: float = 25,
    native_images: bool = False,
    source: str = "x",
) -> dict[str, np.ndarray]:
    """Write raw and processed data under `root`, an image for each of `splits`; returns the native masks by id.

    `masks` replace those of `lesion`. `seen`, uint8 (size, size), is where an image looks like lesion; without it,
    where its mask is: a network then finds what it should. `noise` is its standard deviation, of 255.
    With `native_images` the photographs are written too, at native size, and the arrays made of them.
    """
    entries: dict[str, list] = {name: [] for name in (*TRAINED, *HELD_OUT)}
    pairs, truth = [], {}
    (root / "data/raw/masks").mkdir(parents=True)
    for index, split in enumerate(splits):
        mask = lesion(index, *NATIVE[index % len(NATIVE)]) if masks is None else masks[index]
        height, width = mask.shape
        name = f"ISIC_{index:07d}"
        truth[name] = mask
        path = f"masks/{name}_segmentation.png"
        Image.fromarray(mask * np.uint8(255)).save(root / "data/raw" / path)
        subset = SUBSET.get(split, "training")
        pairs.append(Pair(name, f"images/{name}.jpg", path, width, height, "", "", subset, source))
        small = (cv2.resize(mask * 255.0, (size, size), interpolation=cv2.INTER_AREA) >= 128).astype(np.uint8)
        image = picture(index, small if seen is None else seen[index], noise)
        if native_images:
            (root / "data/raw/images").mkdir(exist_ok=True)
            photograph = root / f"data/raw/images/{name}.png"
            Image.fromarray(picture(index, mask, noise)).save(photograph)
            image, _ = read_rgb(photograph, size)
        entries[split].append((Sample(name, split, width, height, float(mask.mean()), name), image, small))
    manifest.write(root / "data/raw", pairs)
    for folder, members in (("processed", TRAINED), ("held_out", HELD_OUT)):
        path = root / "data" / folder
        path.mkdir()
        rows = sorted((entry for split in members for entry in entries[split]), key=lambda entry: entry[0].id)
        np.save(path / "images.npy", np.array([row[1] for row in rows], np.uint8).reshape(-1, size, size, 3))
        np.save(path / "masks.npy", np.array([row[2] for row in rows], np.uint8).reshape(-1, size, size))
        write_samples(path, [row[0] for row in rows])
    return truth


@cache
def trained_network() -> Network:
    """A small U-Net that has learnt the red lesions a little, not perfectly."""
    masks = [
        (cv2.resize(lesion(index, 120, 90) * 255.0, (SIZE, SIZE), interpolation=cv2.INTER_AREA) >= 128).astype(np.uint8)
        for index in range(16)
    ]
    images = np.stack([picture(index, mask) for index, mask in enumerate(masks)])
    torch.manual_seed(0)
    network = build_network("unet", 4)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # images this small gain nothing from a second one
    for _ in range(25):
        optimiser.zero_grad()
        binary_cross_entropy_with_logits(network(inputs)[:, 0], torch.from_numpy(np.stack(masks)).float()).backward()
        optimiser.step()
    torch.set_num_threads(threads)
    return network.state_dict(), {"network": "unet", "base_width": 4, "image_size": SIZE, "precision": "float32"}


def constant_network(probability: float) -> Network:
    """A U-Net that answers with one probability everywhere."""
    network = build_network("unet", 4)
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.constant_(network.head.bias, np.log(probability / (1 - probability)))
    return network.state_dict(), {"network": "unet", "base_width": 4}


def write_model(root: Path, network: Network, **metadata) -> None:
    """Write the weights where train leaves them, with more `metadata` such as {"train.keep": "best"}."""
    weights.save(root / "models/trained/weights.safetensors", network[0], network[1] | metadata)


def run_stage(root: Path, stage: str, runtime: dict | None = None, **changes) -> None:
    """Run a stage in this process, in `root`, with the repository's parameters, changed for this run."""
    content = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    content[stage] |= changes
    content["runtime"] |= {"device": "cpu", "workers": 2} | (runtime or {})
    (root / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    here = Path.cwd()
    os.chdir(root)
    sys.path.insert(0, str(REPOSITORY / "stages"))
    try:
        runpy.run_path(str(REPOSITORY / f"stages/{stage}.py"), run_name="stage")["main"]()
    finally:
        sys.path.remove(str(REPOSITORY / "stages"))
        os.chdir(here)


def settle(network: torch.nn.Module, images: torch.Tensor) -> torch.nn.Module:
    """Take the running statistics from the images: with the initial ones an untrained U-Net has one answer for all."""
    with torch.no_grad():
        for _ in range(30):
            network.train()(images)
    return network.eval()


def write_undecided_model(path: Path, size: int, images: int) -> Path:
    """A network that is trained on nothing, written to `path`: its logits vary about 0 on `images` squares of noise."""
    torch.manual_seed(3)
    noise = torch.rand(images, 3, size, size)
    network = settle(build_network("unet", 2), noise)
    with torch.no_grad():
        network.head.bias -= network(noise).mean()
    weights.save(path, network.state_dict(), {"network": "unet", "base_width": 2, "image_size": size})
    return path
