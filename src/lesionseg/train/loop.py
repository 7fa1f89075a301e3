"""The training loop.

Everything it does is a function of the recipe, the data and the position (epoch, step): order, augmentation and
random numbers are drawn anew from them. So a run can stop after any step and go on from its checkpoint as if it had
not, and the workers that load and the processes that share a batch change nothing.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.scoring.counts import count_batch
from lesionseg.train import schedule
from lesionseg.train.checkpoint import Checkpoints, Interruption
from lesionseg.train.distributed import Place, add_up, from_first, share_batch_norm, share_gradients
from lesionseg.train.loading import Key, Part, Samples, batches, order, steps
from lesionseg.train.precision import autocast
from lesionseg.train.weight_average import WeightAverage

EXAMINE_EVERY = 25  # steps between looks at the losses, which make Python wait for the device

Row = dict[str, int | float]  # one epoch of the history


@dataclass(frozen=True)
class Recipe:
    """How to train. Every field changes the result; the defaults are Adam as published."""

    epochs: int
    batch_size: int  # images in one optimiser step, over all processes
    learning_rate: float
    seed: int  # of order and random layers; the augmentation and the initial weights have theirs
    schedule: str = "constant"  # of the learning rate, one of lesionseg.train.schedule.NAMES
    warmup_epochs: int = 0  # in which the learning rate rises to its value
    accumulation: int = 1  # parts in which a process takes its share of a batch
    weight_decay: float = (
        0.0  # decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101), on weights, not norms and biases
    )
    gradient_clip: float | None = None  # largest norm of the gradient
    ema_decay: float | None = None  # of the average of weights that is validated and kept
    keep: Literal["last", "best"] = "last"  # the weights after the last epoch, or at the highest validation Dice
    early_stopping: int | None = None  # epochs without a higher validation Dice after which to stop
    compile: str | None = None  # mode of torch.compile


@dataclass(frozen=True)
class Data:
    """What to train and validate on: rows of the arrays. `ids` names them in messages."""

    samples: Samples
    train_rows: Sequence[int]
    val_rows: Sequence[int]
    ids: Sequence[str]


@dataclass(frozen=True)
class Fitted:
    """The outcome: the weights kept, the epoch they are from, a row for every epoch, and how fast it went."""

    state: dict[str, Tensor]
    epoch: int
    history: list[Row]
    images_per_second: list[float]  # of each epoch's training in this process; no result, it differs from run to run


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Data,
    recipe: Recipe,
    *,
    device: torch.device,
    dtype: torch.dtype,
    workers: int = 0,
    place: Place = Place(),  # noqa: B008 (immutable)
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Row], None] = lambda row: None,
    examine_every: int = EXAMINE_EVERY,
    quiet: bool = False,
) -> Fitted:
    """Train `model`, which is changed, and return the weights to keep.

    `loss` takes logits and targets (B, 1, H, W) and gives one value per image (B,). `dtype` is that of the network's
    computation (lesionseg.train.precision). With `checkpoints`, goes on where a killed run of the same key stopped.
    `on_epoch` gets each row of the history in the first process, those of before a resume again. `quiet` prints
    nothing. Raises InputError
    when a loss is not finite or the memory does not suffice.
    """
    count = len(data.train_rows)
    plan = steps(count, recipe.batch_size, recipe.accumulation, place.rank, place.processes)
    val_plan = [part for [part] in steps(len(data.val_rows), recipe.batch_size, 1, place.rank, place.processes)]

    model = share_batch_norm(model.to(device, memory_format=torch.channels_last), device)
    # it takes a batch of no images, so that an idle process does not touch the statistics; other norms do not
    batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    compiled = torch.compile(model, mode=recipe.compile) if recipe.compile else model
    network = share_gradients(compiled, device)
    optimiser = _adam(model, recipe)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    average = WeightAverage(model, recipe.ema_decay) if recipe.ema_decay is not None else None
    kept = average.network if average else model  # what is validated and returned
    learning_rate = schedule.build(recipe.schedule, recipe.epochs * len(plan), recipe.warmup_epochs * len(plan))

    # Of each sample in the epoch's order: written on the device, read by Python only at examinations.
    losses = torch.zeros(count, device=device)
    counts = torch.zeros(count, 4, dtype=torch.int64, device=device)
    history: list[Row] = []
    best: dict = {"dice": -1.0}
    speeds: list[float] = []
    first_epoch, first_step = 1, 0
    stateful = {"model": model, "optimiser": optimiser, "scaler": scaler} | ({"average": average} if average else {})

    def tell(message: str) -> None:
        if place.first and not quiet:
            tqdm.write(message)
            sys.stdout.flush()  # seen at once where it goes into a pipe or a log

    def save(epoch: int, steps_done: int) -> None:
        state = {name: part.state_dict() for name, part in stateful.items()}
        position = {"epoch": epoch, "steps_done": steps_done, "history": history, "best": best}
        if place.first:
            checkpoints.save(state | position | {"losses": add_up(losses), "counts": add_up(counts)})
        else:
            add_up(losses), add_up(counts)

    if checkpoints and (saved := from_first(checkpoints.load() if place.first else None)):
        for name, part in stateful.items():
            part.load_state_dict(saved[name])
        first_epoch, first_step, history, best = (saved[name] for name in ("epoch", "steps_done", "history", "best"))
        if place.first:  # the samples so far of all processes
            losses.copy_(saved["losses"])
            counts.copy_(saved["counts"])
        tell(f"going on from {checkpoints.path}: epoch {first_epoch}, step {first_step + 1} of {len(plan)}")
        for row in history if place.first else ():
            on_epoch(row)

    def pause_if_asked(epoch: int, steps_done: int) -> None:
        if interruption.requested:
            if checkpoints:
                save(epoch, steps_done)
            raise KeyboardInterrupt

    keys = _keys(data, recipe, plan, val_plan, first_epoch, first_step)
    # several processes cannot agree on a step to stop after without talking in each: Ctrl-C stops them at once
    with Interruption(place.processes == 1) as interruption, _memory_errors(recipe, device):
        stream = batches(data.samples, keys, device, workers)
        for epoch in range(first_epoch, recipe.epochs + 1):
            if _exhausted(history, recipe.early_stopping):
                break
            began = time.perf_counter()
            network.train()
            progress = tqdm(
                plan,
                f"epoch {epoch}/{recipe.epochs}",
                initial=first_step,
                disable=None if place.first and not quiet else True,
            )
            for step in range(first_step, len(plan)):
                whole = Part(step * recipe.batch_size, min((step + 1) * recipe.batch_size, count))
                torch.manual_seed(_mix(recipe.seed, epoch, step, place.rank))  # dropout and the like
                for parameters in optimiser.param_groups:
                    parameters["lr"] = recipe.learning_rate * learning_rate((epoch - 1) * len(plan) + step)

                for part in plan[step]:
                    images, masks = next(stream)
                    if not len(part) and not batch_norm:  # an idle process still exchanges gradients, here of a blank
                        images, masks = images.new_zeros(1, *images.shape[1:]), masks.new_zeros(1, *masks.shape[1:])
                    targets = masks.unsqueeze(1)
                    # processes exchange gradients once a step, in its last part
                    exchange = part is plan[step][-1] or network is compiled
                    with nullcontext() if exchange else network.no_sync():
                        with autocast(device, dtype):
                            outputs = network(unit_interval(images))
                        image_losses = loss(outputs, targets)[: len(part)]
                        # the mean over the whole batch: processes take the mean of their gradients, hence the factor
                        scaler.scale(image_losses.sum() * (place.processes / len(whole))).backward()
                    losses[part.start : part.stop] = image_losses.detach()
                    counts[part.start : part.stop] = count_batch(
                        _logits(outputs)[: len(part)] >= 0, targets[: len(part)] > 0
                    )

                if recipe.gradient_clip is not None:
                    scaler.unscale_(optimiser)
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
                scaler.step(optimiser)
                scaler.update()
                optimiser.zero_grad()
                if average:
                    average.update(model)
                progress.update()

                if (step + 1) % examine_every == 0 or step + 1 == len(plan) or interruption.requested:
                    _require_finite(add_up(losses)[: whole.stop], data, recipe, epoch, checkpoints)
                    if checkpoints and step + 1 < len(plan) and from_first(checkpoints.due(epoch_ended=False)):
                        save(epoch, step + 1)
                    pause_if_asked(epoch, step + 1)
            progress.close()
            speeds.append((count - first_step * recipe.batch_size) / (time.perf_counter() - began))

            row = {"epoch": epoch} | _row("train", add_up(losses), add_up(counts))
            row |= _row("val", *_validate(kept if average else compiled, loss, data, val_plan, stream, device, dtype))
            row["learning_rate"] = optimiser.param_groups[0]["lr"]
            history.append(row)
            if row["val_dice"] > best["dice"]:
                best = {"dice": row["val_dice"], "epoch": epoch}
                if recipe.keep == "best":
                    best["state"] = _copy(kept)
            if place.first:
                on_epoch(row)
            tell(_line(row, recipe, speeds[-1]))
            losses.zero_()
            counts.zero_()
            first_step = 0
            if checkpoints and from_first(checkpoints.due(epoch_ended=True)):
                save(epoch + 1, 0)
            pause_if_asked(epoch + 1, 0)

    if recipe.keep == "best":
        return Fitted(best["state"], best["epoch"], history, speeds)
    return Fitted(_copy(kept), len(history), history, speeds)


def unit_interval(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) of 0 to 255 -> float32 (B, 3, H, W) of 0 to 1, in channels_last memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


@torch.inference_mode()
def _validate(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Data,
    plan: Sequence[Part],
    stream: Iterator[tuple[Tensor, Tensor]],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Loss (N,) and counts (N, 4) of every validation sample, of all processes."""
    model.eval()
    losses = torch.zeros(len(data.val_rows), device=device)
    counts = torch.zeros(len(data.val_rows), 4, dtype=torch.int64, device=device)
    for part in plan:
        images, masks = next(stream)
        targets = masks.unsqueeze(1)
        if len(part):
            with autocast(device, dtype):
                logits = model(unit_interval(images))
            losses[part.start : part.stop] = loss(logits, targets)
            counts[part.start : part.stop] = count_batch(_logits(logits) >= 0, targets > 0)
    losses = add_up(losses)
    if bad := (~losses.isfinite()).nonzero().flatten().tolist():
        names = ", ".join(data.ids[data.val_rows[position]] for position in bad[:10])
        raise InputError(
            f"training stopped: the validation loss is not finite for {len(bad)} images ({names}); lower "
            "train.learning_rate or set train.precision=fp32"
        )
    return losses, add_up(counts)


def _keys(
    data: Data,
    recipe: Recipe,
    plan: Sequence[Sequence[Part]],
    val_plan: Sequence[Part],
    first_epoch: int,
    first_step: int,
) -> Iterator[list[Key]]:
    """What to load, batch after batch, to the end of the run."""
    for epoch in range(first_epoch, recipe.epochs + 1):
        rows = order(recipe.seed, epoch, data.train_rows)
        for parts in plan[first_step:]:
            for part in parts:
                yield [(epoch, int(row)) for row in rows[part.start : part.stop]]
        for part in val_plan:
            yield [(None, int(row)) for row in data.val_rows[part.start : part.stop]]
        first_step = 0


def _adam(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay; without weight decay it is plain Adam (Kingma and Ba 2015, arXiv 1412.6980)."""
    parameters = list(model.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def _logits(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """The logits at full resolution; a network under deep supervision gives them first."""
    return outputs.detach() if isinstance(outputs, Tensor) else outputs[0].detach()


def _row(name: str, losses: Tensor, counts: Tensor) -> Row:
    """Mean loss, and Dice and IoU pooled over all pixels at threshold 0.5. Waits for the device."""
    tp, fp, fn, _ = counts.sum(0).tolist()
    pixels = 2 * tp + fp + fn
    dice = 2 * tp / pixels if pixels else 1.0  # nothing to find and nothing found
    return {f"{name}_loss": losses.double().mean().item(), f"{name}_dice": dice, f"{name}_iou": dice / (2 - dice)}


def _require_finite(losses: Tensor, data: Data, recipe: Recipe, epoch: int, checkpoints: Checkpoints | None) -> None:
    """Stop where a loss of this epoch, in its order, is NaN or infinite. Waits for the device."""
    bad = (~losses.isfinite()).nonzero().flatten().tolist()
    if not bad:
        return
    step = bad[0] // recipe.batch_size  # the first such step: all after it carry its weights
    rows = order(recipe.seed, epoch, data.train_rows)
    names = ", ".join(data.ids[rows[position]] for position in bad if position // recipe.batch_size == step)
    good = f"{checkpoints.path} is the last good one" if checkpoints and checkpoints.path.exists() else "none yet"
    raise InputError(
        f"training stopped: the loss is {losses[bad[0]].item()} in epoch {epoch}, step {step + 1} (images {names}); "
        "lower train.learning_rate, set train.gradient_clip or train.precision=fp32, or look at the images; "
        f"checkpoint: {good}"
    )


@contextmanager
def _memory_errors(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Turn running out of memory, and a batch too small for batch norm, into what to change."""
    share = f"train.batch_size={recipe.batch_size} with train.accumulation={recipe.accumulation}"
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise InputError(
            f"params.yaml: {share} does not fit into the memory of {device}: {reason}. Raise train.accumulation (the "
            "batch in more parts), or lower train.batch_size or train.base_width"
        ) from None
    except RuntimeError as error:
        if "DefaultCPUAllocator: can't allocate memory" not in str(error):
            raise
        raise InputError(
            f"params.yaml: {share} does not fit into the machine's memory. Raise train.accumulation (the batch in more "
            "parts), or lower train.batch_size or train.base_width"
        ) from None
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"params.yaml: {share}: batch norm needs more than one value a channel, and at the bottom of the network a "
            "part of one small image has a single one; raise preprocess.image_size or train.batch_size"
        ) from None


def _exhausted(history: Sequence[Row], patience: int | None) -> bool:
    """Whether the validation Dice has not risen for `patience` epochs."""
    if patience is None or not history:
        return False
    best = max(history, key=lambda row: row["val_dice"])  # the first of equals
    return history[-1]["epoch"] - best["epoch"] >= patience


def _mix(*numbers: int) -> int:
    """A seed that differs for each tuple."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _line(row: Row, recipe: Recipe, images_per_second: float) -> str:
    return (
        f"epoch {row['epoch']}/{recipe.epochs}: loss {row['train_loss']:.4f}, validation loss {row['val_loss']:.4f}, "
        f"validation Dice {row['val_dice']:.4f}, {images_per_second:.1f} images/s"
    )
