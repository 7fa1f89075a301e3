"""Train the network on data/processed; write its weights and history to models/unet."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import checkout  # noqa: F401

import torch
from dvclive import Live

from lesionseg import networks
from lesionseg.common.errors import InputError, run_stage
from lesionseg.common.files import write_csv
from lesionseg.common.hardware import choose_device, describe_device, use_deterministic_algorithms
from lesionseg.common.parallel import cores
from lesionseg.common.parameters import Field, Runtime, load, one_of
from lesionseg.formats.processed import open_arrays, read_samples
from lesionseg.networks import weights
from lesionseg.train import checkpoint, distributed, loop, losses, precision
from lesionseg.train.augment import Augmentation, Augmenter
from lesionseg.train.checkpoint import Checkpoints
from lesionseg.train.loading import Data, Samples, default_workers
from lesionseg.train.logbook import Record
from lesionseg.train.recipe import Machine, Recipe

PROCESSED = Path("data/processed")
MODEL = Path("models/unet")
CHECKPOINTS = Path(".cache/train")  # no output of the stage: DVC deletes those before it runs
COMPUTING = ("torch", "numpy", "albumentations", "opencv-python-headless")  # packages whose version shows in the bits


class Parameters(Recipe, Augmentation, losses.Options):
    network: Annotated[str, one_of(networks.NAMES)]
    base_width: int = Field(ge=1, le=1024)
    precision: Annotated[str, one_of(precision.PRECISIONS)]
    processes: int = Field(ge=1)
    deterministic: bool


def main() -> None:
    parameters = load("train", Parameters)
    runtime = load("runtime", Runtime)
    world = distributed.world_from_environment()
    if world is None and parameters.processes > 1:
        return distributed.launch(main, parameters.processes)  # each comes here again, with its rank
    return train(parameters, runtime, world or distributed.World())


def train(parameters: Parameters, runtime: Runtime, world: distributed.World) -> None:
    """One process of the training."""
    data = read_data(parameters)
    if world.size != parameters.processes:
        raise InputError(
            f"params.yaml: train.processes: found {parameters.processes}, but torchrun started {world.size}; "
            f"set train.processes={world.size}"
        )
    hardware = choose_device(runtime.device, world.local_rank if world.size > 1 else None)
    use_deterministic_algorithms(parameters.deterministic)
    dtype = precision.choose(parameters.precision, hardware)
    torch.manual_seed(parameters.seed)
    model = networks.build(parameters.network, parameters.base_width)
    checkpoints = Checkpoints(CHECKPOINTS, key(parameters, hardware), runtime.checkpoint_minutes)
    workers = default_workers(hardware, cores()) if runtime.workers is None else runtime.workers

    if world.first:
        print(
            f"{parameters.network}, base width {parameters.base_width}, on {describe_device(hardware)}, {dtype}",
            flush=True,
        )
    live = LiveHistory(MODEL / "live")
    machine, record = Machine(hardware, dtype, workers, world), Record(checkpoints, live.add)
    loss = losses.build(**parameters.model_dump(include=set(losses.Options.model_fields)))
    with distributed.process_group(world, hardware):
        fitted = loop.fit(model, loss, data, parameters, machine, record)
    if world.first:
        live.end()
        side = data.samples.images.shape[1]
        kept = {
            "keep": parameters.keep,
            "epoch": fitted.epoch,
            "image_size": side,
            "average": parameters.ema_decay is not None,
        }
        settings = {f"train.{name}": value for name, value in parameters.model_dump().items()}
        metadata = {"network": parameters.network, "base_width": parameters.base_width} | kept | settings
        write_csv(MODEL / "history.csv", list(fitted.history[0]), fitted.history)
        weights.save(MODEL / "weights.safetensors", fitted.state, metadata)
        checkpoints.remove()


def read_data(parameters: Parameters) -> Data:
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
    augment = Augmenter(parameters.seed, images.shape[1], parameters)
    return Data(Samples(images, masks, augment), rows["train"], rows["val"], [sample.id for sample in samples])


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
