"""The training loop.

Everything it does is a function of the recipe, the data and the position (epoch, step): order, augmentation and
random numbers are drawn anew from them. So a run can stop after any step and go on from its checkpoint as if it had
not, and the workers that load and the processes that share a batch change nothing.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lesionseg.train.checkpoint import Interruption
from lesionseg.train.distributed import gradient_sync, pad_empty_batch, require_supported
from lesionseg.train.failures import explain_errors, require_finite, require_finite_validation
from lesionseg.train.learner import Learner
from lesionseg.train.loading import Batch, Data, Plan, batches
from lesionseg.train.logbook import Logbook, Record
from lesionseg.train.losses import Loss
from lesionseg.train.precision import autocast
from lesionseg.train.progress import Progress, Row, Tally
from lesionseg.train.recipe import Machine, Recipe

Stream = Iterator[Batch]  # in the order of the plan


@dataclass(frozen=True)
class Fitted:
    """The result: the weights to save, the epoch they are from, a row for every epoch, and the speed."""

    state: dict[str, Tensor]
    epoch: int
    history: list[Row]
    images_per_second: list[float]  # in each epoch, of this process; printed only, since it differs from run to run


@dataclass(frozen=True)
class Run:
    """What an epoch and a step work with."""

    loss: Loss
    data: Data
    recipe: Recipe
    machine: Machine
    plan: Plan
    learner: Learner


def fit(
    model: nn.Module,
    loss: Loss,
    data: Data,
    recipe: Recipe,
    machine: Machine,
    record: Record = Record(),  # noqa: B008 (immutable)
) -> Fitted:
    """Train `model`, which is changed, and return the weights to save.

    Raises InputError when a loss is not finite, the memory does not suffice or the machine cannot do it.
    """
    plan = Plan.of(data, recipe.batch_size, recipe.accumulation, machine.world)
    require_supported(machine.world, machine.device, plan.smallest_batch, recipe.compile)
    run = Run(loss, data, recipe, machine, plan, Learner(model, recipe, machine, len(plan.train)))
    progress = Progress(Tally(len(data.train_rows), machine.device))
    logbook = Logbook(record, run.learner, progress, machine.world)
    logbook.load(recipe.epochs, len(plan.train))
    speeds = []
    # several processes would have to communicate in every step to stop after the same one: Ctrl-C stops them at once
    with Interruption(machine.world.size == 1) as interruption, explain_errors(recipe, machine.device):
        epochs = range(progress.epoch, recipe.epochs + 1)
        keys = plan.keys(data, recipe.seed, epochs, progress.steps_done)
        stream = batches(data.samples, keys, machine.device, machine.workers)
        while progress.epoch <= recipe.epochs and not progress.should_stop(recipe.early_stopping):
            speed = train_epoch(run, stream, progress, logbook, interruption)
            row = {"epoch": progress.epoch} | progress.tally.gathered().row("train")
            row |= validate(run, stream).row("val") | {"learning_rate": run.learner.learning_rate}
            progress.end_epoch(row, run.learner.weights if recipe.keep == "best" else None)
            logbook.log_epoch(row, recipe.epochs, speed)
            speeds += [] if speed is None else [speed]
            logbook.save_if_due(epoch_ended=True)
            interruption.stop_if_requested(logbook.save)
    logbook.save()  # started again, a finished run has nothing left to do
    if recipe.keep == "best":
        return Fitted(progress.best["state"], progress.best["epoch"], progress.history, speeds)
    return Fitted(run.learner.weights(), len(progress.history), progress.history, speeds)


def train_epoch(
    run: Run, stream: Stream, progress: Progress, logbook: Logbook, interruption: Interruption
) -> float | None:
    """The steps that are left of the epoch under way. Returns images per second, None where no step was left."""
    steps, size = len(run.plan.train), run.recipe.batch_size
    done_before, began = progress.steps_done, time.perf_counter()
    run.learner.network.train()
    with logbook.bar(run.recipe.epochs, steps) as bar:
        while progress.steps_done < steps:
            train_step(run, stream, progress)
            progress.steps_done += 1
            bar.update()
            ended = progress.steps_done == steps
            if progress.steps_done % logbook.record.examine_every == 0 or ended or interruption.requested:
                checkpoints = logbook.record.checkpoints
                require_finite(progress.tally.gathered(), progress.epoch, run.data, run.recipe, checkpoints)
                if not ended:
                    logbook.save_if_due(epoch_ended=False)
                interruption.stop_if_requested(logbook.save)
    if done_before == steps:
        return None
    return (len(run.data.train_rows) - done_before * size) / (time.perf_counter() - began)


def train_step(run: Run, stream: Stream, progress: Progress) -> None:
    """One step of the optimiser on one batch, which this process takes in one or several parts."""
    recipe, learner, machine = run.recipe, run.learner, run.machine
    parts = run.plan.train[progress.steps_done]
    whole = run.plan.batch(progress.steps_done)
    # for dropout and other random layers
    torch.manual_seed(_mix(recipe.seed, progress.epoch, progress.steps_done, machine.world.rank))
    learner.set_learning_rate((progress.epoch - 1) * len(run.plan.train) + progress.steps_done)
    for part in parts:
        images, masks = pad_empty_batch(*next(stream), learner.model)
        targets = masks.unsqueeze(1)
        with gradient_sync(learner.network, part is parts[-1]):  # once a step
            with autocast(machine.device, machine.dtype):
                outputs = learner.network(unit_interval(images))
            losses = run.loss(outputs, targets)[: len(part)]
            # the mean over the whole batch: processes take the mean of their gradients, hence the factor
            learner.backward(losses.sum() * (machine.world.size / len(whole)))
        progress.tally.write(part, losses, full_resolution(outputs)[: len(part)], targets[: len(part)])
    learner.step()


@torch.inference_mode()
def validate(run: Run, stream: Stream) -> Tally:
    """Loss and counts of every validation image, of all processes."""
    network = run.learner.validated.eval()
    tally = Tally(len(run.data.val_rows), run.machine.device)
    for part in run.plan.val:
        images, masks = next(stream)
        targets = masks.unsqueeze(1)
        if len(part):
            with autocast(run.machine.device, run.machine.dtype):
                outputs = network(unit_interval(images))
            tally.write(part, run.loss(outputs, targets), full_resolution(outputs), targets)
    tally = tally.gathered()
    require_finite_validation(tally, run.data)
    return tally


def unit_interval(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) of 0 to 255 -> float32 (B, 3, H, W) of 0 to 1, in channels_last memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def full_resolution(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """The logits at full resolution; a network under deep supervision gives them first."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def _mix(*numbers: int) -> int:
    """A seed that differs for each tuple."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
