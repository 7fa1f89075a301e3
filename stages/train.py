"""Train the network on data/processed; write its weights to models/trained, and its history as it goes."""

from functools import partial
from pathlib import Path
from typing import Annotated

import checkout  # noqa: F401

import torch

from lesionseg import networks
from lesionseg.common.hardware import choose_device, describe_device, use_deterministic_algorithms
from lesionseg.common.parallel import cores
from lesionseg.common.parameters import Field, Runtime, load, one_of
from lesionseg.common.stage import ENVIRONMENT, run_stage, versions
from lesionseg.formats import weights_file
from lesionseg.networks import weights
from lesionseg.train import checkpoint, distributed, loop, losses, precision
from lesionseg.train.augment import Augmentation, Augmenter
from lesionseg.train.checkpoint import Checkpoints
from lesionseg.train.loading import Data, default_workers, read_data
from lesionseg.train.logbook import Record
from lesionseg.train.members import History, ensemble_state, seeds
from lesionseg.train.recipe import Machine, Recipe
from lesionseg.train.single import only_training

PROCESSED = Path("data/processed")
MODEL = Path("models/trained")
HISTORY, METRICS = Path("plots/history.csv"), Path("metrics/training.json")  # in git, written after every epoch
CHECKPOINTS = Path(".cache/train")  # no output of the stage: DVC deletes those before it runs
LOCK = Path(".cache/train.lock")
VERSIONS = Path(__file__).resolve().parents[1] / ENVIRONMENT  # lists the packages whose version shows in the bits


class Parameters(Recipe, Augmentation, losses.Options):
    network: Annotated[str, one_of(networks.NAMES)]
    base_width: int = Field(ge=1, le=1024)
    members: int = Field(ge=1, le=weights_file.MOST_MEMBERS)
    precision: Annotated[str, one_of(precision.PRECISIONS)]
    processes: int = Field(ge=1)
    deterministic: bool


def main() -> None:
    parameters = load("train", Parameters)
    runtime = load("runtime", Runtime)
    world = distributed.world_from_environment()
    if world is None and parameters.processes > 1:
        return distributed.launch(main, parameters.processes)  # each comes here again, with its rank
    world = world or distributed.World()
    with only_training(LOCK, enabled=world.first):
        return train(parameters, runtime, world)


def train(parameters: Parameters, runtime: Runtime, world: distributed.World) -> None:
    """One process of the training."""
    data = read_data(PROCESSED)
    distributed.require_processes(parameters.processes, world)
    device = choose_device(runtime.device, world.local_rank if world.size > 1 else None)
    use_deterministic_algorithms(parameters.deterministic)
    workers = default_workers(device, cores()) if runtime.workers is None else runtime.workers
    machine = Machine(device, precision.choose_dtype(parameters.precision, device, parameters.compile), workers, world)
    facts = computed_with(parameters, machine)
    if world.first:
        print(f"{parameters.network}, base width {parameters.base_width}, on {', '.join(facts.values())}", flush=True)
    run, history = key(parameters, facts), History(HISTORY, METRICS, MODEL / "members.csv")
    with distributed.process_group(world, device):
        fitted = []
        for member, seed in enumerate(seeds(parameters.seed, parameters.members), start=1):
            checkpoints = Checkpoints(CHECKPOINTS, run, runtime.checkpoint_minutes, member)
            recipe = parameters.model_copy(update={"seed": seed})
            fitted.append(fit(recipe, data, machine, Record(checkpoints, partial(history.add, member))))
    if world.first:
        metadata = metadata_of(parameters, data, fitted) | facts
        weights.save(MODEL / weights_file.TRAINED_FILE, ensemble_state([one.state for one in fitted]), metadata)
        checkpoints.remove()


def fit(parameters: Parameters, data: Data, machine: Machine, record: Record) -> loop.Fitted:
    """Train one network."""
    torch.manual_seed(parameters.seed)
    model = networks.build_network(parameters.network, parameters.base_width)
    loss = losses.build_loss(**parameters.model_dump(include=set(losses.Options.model_fields)))
    augmenter = Augmenter(parameters.seed, data.samples.images.shape[1], parameters)
    return loop.fit(model, loss, data.augmented(augmenter), parameters, machine, record)


def computed_with(parameters: Parameters, machine: Machine) -> dict[str, str]:
    """Device and number format, what `auto` came to included: they change digits."""
    dtype = str(machine.dtype).removeprefix("torch.")
    name = parameters.precision if parameters.precision == "tf32" else dtype
    return {"device": describe_device(machine.device), "precision": name}


def key(parameters: Parameters, facts: dict[str, str]) -> str:
    """The key of this run's checkpoint: all that its result depends on."""
    data = [PROCESSED / name for name in ("images.npy", "masks.npy", "samples.csv")]
    run = {"parameters": parameters.model_dump(), "computed_with": facts, "versions": versions("train", VERSIONS)}
    return checkpoint.key(run, [*data, *checkpoint.source_files()])


def metadata_of(parameters: Parameters, data: Data, fitted: list[loop.Fitted]) -> weights.Metadata:
    """What rebuilds the network, and how and by which packages it was trained."""
    names = ("network", "base_width", "members", "keep")
    epochs = [one.epoch for one in fitted]
    return {
        **{name: getattr(parameters, name) for name in names},
        "epoch": epochs[0] if len(epochs) == 1 else ", ".join(map(str, epochs)),
        "image_size": data.samples.images.shape[1],
        "average": parameters.ema_decay is not None,
        **{f"train.{name}": value for name, value in parameters.model_dump().items()},
        "versions": versions("train", VERSIONS),
    }


if __name__ == "__main__":
    run_stage("train", main)
