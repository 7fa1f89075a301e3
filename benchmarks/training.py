"""How fast training is: the loop compared with the bare step and with the usual loop, in one run.

    python benchmarks/training.py                          # base widths 16 and 64, batch 8, 256×256
    python benchmarks/training.py --base-width 16 --rounds 5 --json training.json

Three rates, in images per second, measured in turns; the rate is the best of the rounds, as timeit advises: what
else the machine does only ever slows a round down.

    loop    lesionseg.train.loop.fit: memory-mapped arrays, augmentation, metrics, checks; what the stage runs
    bare    forward, loss, backward and optimiser step on one batch that is already there, and nothing else
    plain   the usual loop: float32, NCHW, a DataLoader that decodes a PNG and a mask for each sample and
            augments them, loss.item() in every step
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import albumentations
import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lesionseg import networks
from lesionseg.common.hardware import choose_device, describe_device, use_deterministic_algorithms
from lesionseg.common.parallel import cores
from lesionseg.common.parameters import load
from lesionseg.train import losses, precision
from lesionseg.train.augment import Augmentation, Augmenter
from lesionseg.train.loading import Data, Samples, default_workers
from lesionseg.train.logbook import Record
from lesionseg.train.loop import fit, unit_interval
from lesionseg.train.recipe import Machine, Recipe


class Published(Recipe, Augmentation, losses.Options, extra="ignore"):
    """The parameters of the train group that make a step."""


PUBLISHED = load("train", Published, Path(__file__).parents[1] / "params.yaml")
LOSS = losses.build_loss("bce_dice", dice_weight=1.0)


def draw(count: int, side: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Smooth coloured images with one disc each, and the discs: memory-mapped uint8 (N, H, W, 3), (N, H, W)."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    images, masks = np.empty((count, side, side, 3), np.uint8), np.empty((count, side, side), np.uint8)
    for index in range(count):
        noise = cv2.GaussianBlur(random.normal(0, 1, (side, side, 3)).astype(np.float32), (0, 0), side / 40)
        (a, b), radius = random.uniform(0.3, 0.7, 2) * side, random.uniform(0.1, 0.3) * side
        masks[index] = (y - a) ** 2 + (x - b) ** 2 < radius**2
        images[index] = np.clip(180 - 70 * masks[index][..., None] + 200 * noise, 0, 255)
    for name, array in (("images", images), ("masks", masks)):
        np.save(folder / f"{name}.npy", array)
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "masks.npy", mmap_mode="r")


def bare(model: nn.Module, images: np.ndarray, masks: np.ndarray, steps: int, machine: Machine) -> float:
    """Images per second of `steps` steps on the batch `images` uint8 (B, H, W, 3), `masks` uint8 (B, H, W)."""
    model.to(machine.device, memory_format=torch.channels_last).train()
    inputs = unit_interval(torch.from_numpy(np.array(images)).to(machine.device))
    targets = torch.from_numpy(np.array(masks)).to(machine.device)[:, None].float()
    optimiser = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.dtype == torch.float16)

    def step() -> None:
        with precision.autocast(machine.device, machine.dtype):
            logits = model(inputs)
        scaler.scale(LOSS(logits, targets).mean()).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()

    step()  # allocates gradients and optimiser state
    return rate(step, steps, len(inputs), machine.device)


def rate(step: Callable[[], None], steps: int, images: int, hardware: torch.device) -> float:
    """Images per second of `steps` calls with `images` each, until the device has finished."""
    wait(hardware)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait(hardware)
    return steps * images / (time.perf_counter() - began)


def wait(hardware: torch.device) -> None:
    if hardware.type == "cuda":
        torch.cuda.synchronize(hardware)


def loop(model: nn.Module, images: np.ndarray, masks: np.ndarray, batch_size: int, machine: Machine) -> float:
    """Images per second in the second epoch of `fit`, on all images but one, which is the validation set."""
    rows = list(range(len(images)))
    samples = Samples(images, masks, Augmenter(0, images.shape[1], PUBLISHED))
    data = Data(samples, rows[:-1], rows[-1:], [str(row) for row in rows])
    recipe = PUBLISHED.model_copy(update={"epochs": 2, "batch_size": batch_size})
    return fit(model, LOSS, data, recipe, machine, Record(quiet=True)).images_per_second[-1]


class Files(Dataset):
    """One PNG and one mask decoded and augmented for each sample, as most published loaders do."""

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count
        flips = [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
        self.augment = albumentations.Compose([*flips, albumentations.RandomRotate90(p=1)])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = np.array(Image.open(self.folder / f"{index}.png").convert("RGB"))
        mask = np.array(Image.open(self.folder / f"{index}_mask.png").convert("L"))
        augmented = self.augment(image=image, mask=mask)
        image = torch.from_numpy(augmented["image"].transpose(2, 0, 1).copy()).float() / 255
        return image, torch.from_numpy(augmented["mask"] > 127)[None].float()


def write_files(images: np.ndarray, masks: np.ndarray, folder: Path) -> None:
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        Image.fromarray(image).save(folder / f"{index}.png")
        Image.fromarray(mask * 255).save(folder / f"{index}_mask.png")


def plain(model: nn.Module, folder: Path, count: int, batch_size: int, hardware: torch.device, workers: int) -> float:
    """Images per second of one epoch over the first `count` files."""
    model.to(hardware, memory_format=torch.contiguous_format).train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)
    loader = DataLoader(Files(folder, count), batch_size, shuffle=True, num_workers=workers, drop_last=True)
    total, seen = 0.0, 0
    wait(hardware)
    began = time.perf_counter()
    for images, masks in loader:
        images, masks = images.to(hardware), masks.to(hardware)
        optimiser.zero_grad()
        batch_loss = LOSS(model(images), masks).mean()
        batch_loss.backward()
        optimiser.step()
        total += batch_loss.item()
        seen += len(images)
    wait(hardware)
    return seen / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-width", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side", type=int, default=256, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=4, help="batches in a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements; the best counts")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp16", "tf32", "fp32"])
    parser.add_argument("--workers", type=int, help="of the loop and of the plain one; default: the loop's own choice")
    parser.add_argument("--json", type=Path, help="write the rates there too")
    options = parser.parse_args()

    hardware = choose_device(options.device)
    dtype = precision.choose_dtype(options.precision, hardware)
    use_deterministic_algorithms(True)  # as the stage does by default
    workers = default_workers(hardware, cores()) if options.workers is None else options.workers
    machine = Machine(hardware, dtype, workers)
    count = options.steps * options.batch_size
    print(f"{describe_device(hardware)}, torch {torch.__version__}, {dtype}, {workers} workers")
    print("base   loop   bare  plain images/s   loop/bare  loop/plain")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        images, masks = draw(count + 1, options.side, Path(folder))
        write_files(images, masks, Path(folder))
        for base_width in options.base_width:
            ours, theirs = networks.build_network("unet", base_width), networks.build_network("unet", base_width)
            batch = slice(options.batch_size)
            rates: dict[str, list[float]] = {"loop": [], "bare": [], "plain": []}
            for _ in range(options.rounds):
                rates["loop"].append(loop(ours, images, masks, options.batch_size, machine))
                rates["bare"].append(bare(ours, images[batch], masks[batch], options.steps, machine))
                rates["plain"].append(plain(theirs, Path(folder), count, options.batch_size, hardware, workers))
            best = {name: max(values) for name, values in rates.items()}
            to_bare, to_plain = best["loop"] / best["bare"], best["loop"] / best["plain"]
            columns = f"{best['loop']:6.1f} {best['bare']:6.1f} {best['plain']:6.1f}"
            print(f"{base_width:4} {columns} {to_bare:20.3f} {to_plain:11.2f}", flush=True)
            results.append(
                {"base_width": base_width, "loop_to_bare": to_bare, "loop_to_plain": to_plain, "rates": rates}
            )
    if options.json:
        facts = {
            "device": describe_device(hardware),
            "torch": torch.__version__,
            "dtype": str(dtype),
            "workers": workers,
        }
        settings = {"batch_size": options.batch_size, "side": options.side, "steps": options.steps}
        options.json.write_text(json.dumps(facts | settings | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
