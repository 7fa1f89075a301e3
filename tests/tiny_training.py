"""A training small enough to be repeated, killed and split up: what the training tests share."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save

from lesionseg import networks
from lesionseg.common.hardware import use_deterministic_algorithms
from lesionseg.train import losses
from lesionseg.train.augment import Augmentation, Augmenter
from lesionseg.train.checkpoint import Checkpoints
from lesionseg.train.distributed import World, process_group, world_from_environment
from lesionseg.train.loading import Data, Samples
from lesionseg.train.logbook import Record
from lesionseg.train.loop import Fitted, fit
from lesionseg.train.recipe import Machine, Recipe

SIDE = 32
TRAIN, VAL = list(range(11)), [11, 12, 13]  # batches of 4: the last of each epoch has 3
REPOSITORY = Path(__file__).parents[1]
CPU = torch.device("cpu")
_USUAL = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))["train"]
PLAIN = {name: _USUAL[name] for name in Recipe.model_fields} | {
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "seed": 0,
    "schedule": "constant",
    "warmup_epochs": 0,
    "accumulation": 1,
    "weight_decay": 0.0,
    "gradient_clip": None,
    "ema_decay": None,
    "keep": "last",
    "early_stopping": None,
    "compile": False,
}
AUGMENTATION = {name: _USUAL[name] for name in Augmentation.model_fields} | {
    "augment_flips": True,
    "augment_rotations": "right_angles",
    "augment_scale_shift": "none",
    "augment_elastic": "none",
    "augment_colour": "none",
}
bce_dice = losses.build_loss("bce_dice", dice_weight=1.0)
# everything that has state of its own; float16 brings the scaler
EVERYTHING = PLAIN | {
    "schedule": "cosine",
    "warmup_epochs": 1,
    "accumulation": 2,
    "weight_decay": 0.01,
    "gradient_clip": 1.0,
    "ema_decay": 0.9,
    "keep": "best",
}


def augmenter(seed: int, size: int, **changes) -> Augmenter:
    """Flips and right angles, with `changes` such as colour="light"."""
    changed = {f"augment_{name}": value for name, value in changes.items()}
    return Augmenter(seed, size, Augmentation(**AUGMENTATION | changed))


def arrays(count: int = len(TRAIN) + len(VAL), side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of a dark disc each, and the discs: uint8 (N, H, W, 3) and 0/1 (N, H, W)."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    centres, radii = random.uniform(0.3, 0.7, (count, 2)) * side, random.uniform(0.15, 0.35, count) * side
    masks = np.stack([(y - a) ** 2 + (x - b) ** 2 < r * r for (a, b), r in zip(centres, radii, strict=True)])
    images = 190 - 90 * masks[..., None] + random.normal(0, 25, (count, side, side, 3))
    return images.clip(0, 255).astype(np.uint8), masks.astype(np.uint8)


def data(augment: object = "default", val: list[int] = VAL, side: int = SIDE) -> Data:
    images, masks = arrays(side=side)
    augment = augmenter(0, SIDE) if augment == "default" else augment
    return Data(Samples(images, masks, augment), TRAIN, val, [f"T_{row:02d}" for row in range(len(images))])


def network(base_width: int = 2, name: str = "unet") -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.build_network(name, base_width)


def run(model=None, loss=bce_dice, dataset=None, recipe=PLAIN, dtype=torch.float32, **options) -> Fitted:
    """`fit` on the tiny data, on the CPU unless told otherwise: `options` of Machine and Record."""
    machine = {name: options.pop(name) for name in ("device", "workers", "world") if name in options}
    return fit(
        model or network(),
        loss,
        dataset or data(),
        Recipe(**recipe),
        Machine(**{"device": CPU, "dtype": dtype} | machine),
        Record(**options),
    )


def digest(fitted: Fitted) -> str:
    """Of weights and history, to the last bit."""
    content = save({name: tensor.contiguous() for name, tensor in fitted.state.items()})
    return hashlib.sha256(content + json.dumps([fitted.epoch, fitted.history]).encode()).hexdigest()


class DyingLoss:
    """BCE + Dice that kills its process at the given call: in the middle of a step."""

    def __init__(self, dies_at: int | None = None):
        self.calls, self.dies_at, self.loss = 0, dies_at, bce_dice

    def __call__(self, logits, targets):
        self.calls += 1
        if self.calls == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.loss(logits, targets)


def process(folder: Path, recipe: dict, dtype: torch.dtype, minutes: float, death: tuple, device: str = "cpu") -> None:
    """A run in a process of its own that keeps checkpoints in `folder`, writes `outcome.json` there, and dies as
    `death` says: ("step", n): at the n-th part of a step; ("write", n): half-way through the n-th checkpoint;
    ("epoch", n): after the n-th epoch, before its checkpoint; ("never",)."""
    torch.set_num_threads(1)
    use_deterministic_algorithms(True)  # as the stage does: on CUDA the bits depend on it
    kind, number = (*death, None)[:2]
    loss = DyingLoss(number if kind == "step" else None)
    if kind == "write":
        _die_writing(number)

    def on_epoch(row):
        if kind == "epoch" and row["epoch"] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints = Checkpoints(folder, "run", minutes)
    fitted = run(
        loss=loss,
        recipe=recipe,
        dtype=dtype,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        examine_every=1,
        device=torch.device(device),
    )
    outcome = {"digest": digest(fitted), "loss_calls": loss.calls, "history": fitted.history}
    (folder / "outcome.json").write_text(json.dumps(outcome))


def terminated_with_its_loaders(folder: Path) -> None:
    """A run with two loading processes; SIGTERM reaches all of them, as a scheduler sends it to a job."""
    os.setsid()  # a group of its own
    calls = 0

    def loss(logits, targets):
        nonlocal calls
        calls += 1
        if calls == 2:
            os.killpg(0, signal.SIGTERM)
            time.sleep(0.2)  # for the others to take it in
        return bce_dice(logits, targets)

    run(loss=loss, workers=2, checkpoints=Checkpoints(folder, "run", 60))


def _die_writing(number: int) -> None:
    whole, calls = torch.save, 0

    def half(state, file):
        nonlocal calls
        calls += 1
        if calls == number:
            file.write(b"half a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        whole(state, file)

    torch.save = half


def member(
    folder: str, recipe: dict, minutes: float | None = None, dies_at: int | None = None, name: str = "unet"
) -> None:
    """One of several processes of a run; the first writes its outcome to `folder`."""
    world = world_from_environment() or World()
    checkpoints = None if minutes is None else Checkpoints(folder, "run", minutes)
    with process_group(world, CPU):
        loss = DyingLoss(dies_at)
        # the deeper networks need larger images; and oneDNN's strided 1×1 convolution writes outside its memory
        # below 16 channels, with several threads: deeplabv3 has 4 times its base width there
        small = name == "unet"
        model, dataset = network(2 if small else 4, name), data() if small else data(augmenter(0, 64), side=64)
        options = {"world": world, "checkpoints": checkpoints, "examine_every": 1}
        fitted = run(model, loss, dataset, recipe, **options)
    if world.first:
        outcome = {"digest": digest(fitted), "loss_calls": loss.calls, "history": fitted.history}
        Path(folder, "outcome.json").write_text(json.dumps(outcome))
