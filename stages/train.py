"""Train the network on data/processed; write its weights and history to models/unet."""

from importlib.metadata import version
from pathlib import Path
from typing import Literal

import checkout  # noqa: F401

import torch
from dvclive import Live

from lesionseg import networks
from lesionseg.common.errors import InputError, run_stage
from lesionseg.common.files import write_csv
from lesionseg.common.hardware import choose_device, describe_device, use_deterministic_algorithms
from lesionseg.common.parallel import cores
from lesionseg.common.parameters import Field, Group, Runtime, load
from lesionseg.formats.processed import open_arrays, read_samples
from lesionseg.networks import weights
from lesionseg.train import checkpoint, distributed, loop, losses, precision, schedule
from lesionseg.train.augment import ROTATIONS, STRENGTHS, Augmenter
from lesionseg.train.checkpoint import Checkpoints
from lesionseg.train.loading import Samples, default_workers

PROCESSED = Path("data/processed")
MODEL = Path("models/unet")
CHECKPOINTS = Path(".cache/train")  # no output of the stage: DVC deletes those before it runs
COMPUTING = ("torch", "numpy", "albumentations", "opencv-python-headless")  # packages whose version shows in the bits


class Parameters(Group):
    network: Literal[networks.NAMES]
    base_width: int = Field(ge=1, le=1024)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    seed: int = Field(ge=0)
    loss: Literal[losses.NAMES]
    dice_weight: float = Field(ge=0)
    focal_gamma: float = Field(ge=0)
    tversky_beta: float = Field(ge=0, le=1)
    focal_tversky_gamma: float = Field(ge=1)
    augment_flips: bool
    augment_rotations: Literal[ROTATIONS]
    augment_scale_shift: Literal[STRENGTHS]
    augment_elastic: Literal[STRENGTHS]
    augment_colour: Literal[STRENGTHS]
    schedule: Literal[schedule.NAMES]
    warmup_epochs: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    gradient_clip: float | None = Field(gt=0)
    ema_decay: float | None = Field(ge=0, lt=1)
    keep: Literal["last", "best"]
    early_stopping: int | None = Field(ge=1)
    precision: precision.Precision
    accumulation: int = Field(ge=1)
    processes: int = Field(ge=1)
    deterministic: bool
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None


def main() -> None:
    parameters = load("train", Parameters)
    runtime = load("runtime", Runtime)
    place = distributed.place()
    if place is None and parameters.processes > 1:
        return distributed.launch(main, parameters.processes)  # each comes here again, with its place
    return train(parameters, runtime, place or distributed.Place())


def train(parameters: Parameters, runtime: Runtime, place: distributed.Place) -> None:
    """One process of the training."""
    data = read_data(parameters)
    if place.processes != parameters.processes:
        raise InputError(
            f"params.yaml: train.processes: found {parameters.processes}, but torchrun started {place.processes}; "
            f"set train.processes={place.processes}"
        )
    hardware = choose_device(runtime.device, place.local_rank if place.processes > 1 else None)
    use_deterministic_algorithms(parameters.deterministic)
    dtype = precision.choose(parameters.precision, hardware)
    torch.manual_seed(parameters.seed)
    model = networks.build(parameters.network, parameters.base_width)
    recipe = loop.Recipe(**{name: getattr(parameters, name) for name in loop.Recipe.__dataclass_fields__})
    checkpoints = Checkpoints(CHECKPOINTS, key(parameters, hardware), runtime.checkpoint_minutes)
    workers = default_workers(hardware, cores()) if runtime.workers is None else runtime.workers

    if place.first:
        print(
            f"{parameters.network}, base width {parameters.base_width}, on {describe_device(hardware)}, {dtype}",
            flush=True,
        )
    live = LiveHistory(MODEL / "live")
    with distributed.group(place, hardware):
        fitted = loop.fit(
            model,
            loss_of(parameters),
            data,
            recipe,
            device=hardware,
            dtype=dtype,
            workers=workers,
            place=place,
            checkpoints=checkpoints,
            on_epoch=live.add,
        )
    if place.first:
        live.end()
        side = data.samples.images.shape[1]
        kept = {"keep": recipe.keep, "epoch": fitted.epoch, "image_size": side, "average": recipe.ema_decay is not None}
        settings = {f"train.{name}": value for name, value in parameters.model_dump().items()}
        metadata = {"network": parameters.network, "base_width": parameters.base_width} | kept | settings
        write_csv(MODEL / "history.csv", list(fitted.history[0]), fitted.history)
        weights.save(MODEL / "weights.safetensors", fitted.state, metadata)
        checkpoints.remove()


def read_data(parameters: Parameters) -> loop.Data:
    """The rows of the splits train and val, augmented as the parameters say."""
    samples = read_samples(PROCESSED)
    images, masks = open_arrays(PROCESSED)
    rows = {split: [row for row, sample in enumerate(samples) if sample.split == split] for split in ("train", "val")}
    if problems := [
        f"{PROCESSED / 'samples.csv'}: no sample of the split '{split}', expected at least one; "
        "change preprocess.validation_fraction or add images"
        for split in rows
        if not rows[split]
    ]:
        raise InputError(problems)
    augment = Augmenter(
        parameters.seed,
        images.shape[1],
        flips=parameters.augment_flips,
        rotations=parameters.augment_rotations,
        scale_shift=parameters.augment_scale_shift,
        elastic=parameters.augment_elastic,
        colour=parameters.augment_colour,
    )
    return loop.Data(Samples(images, masks, augment), rows["train"], rows["val"], [sample.id for sample in samples])


def loss_of(parameters: Parameters) -> losses.Loss:
    return losses.build(
        parameters.loss,
        dice_weight=parameters.dice_weight,
        focal_gamma=parameters.focal_gamma,
        tversky_beta=parameters.tversky_beta,
        focal_tversky_gamma=parameters.focal_tversky_gamma,
    )


def key(parameters: Parameters, hardware: torch.device) -> str:
    """The key of this run's checkpoint: all that its result depends on."""
    facts = {
        "parameters": parameters.model_dump(),
        "hardware": describe_device(hardware),
        "versions": {package: version(package) for package in COMPUTING},
    }
    data = [PROCESSED / name for name in ("images.npy", "masks.npy", "samples.csv")]
    return checkpoint.key(facts, [*data, *checkpoint.source_files()])


class LiveHistory:
    """The history as DVCLive files, which the VS Code extension, Studio and `dvc plots` show while it grows."""

    def __init__(self, folder: Path):
        self.folder, self.live = folder, None

    def add(self, row: loop.Row) -> None:
        """Log an epoch; a resumed run adds those before it again, from the first on."""
        if self.live is None:
            # neither dvc.yaml nor an experiment is touched, and nothing is logged that differs between equal runs
            self.live = Live(str(self.folder), dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False)
        for name, value in row.items():
            if name != "epoch":
                self.live.log_metric(name.replace("_", "/", 1) if name[0] in "tv" else name, value)
        self.live.next_step()

    def end(self) -> None:
        """Write the summary."""
        if self.live is not None:
            self.live.end()


if __name__ == "__main__":
    run_stage("train", main)
