"""The state of a training run: position, losses and counts of the epoch under way, history, best epoch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from lesionseg.scoring.counts import count_batch
from lesionseg.train.distributed import all_reduce
from lesionseg.train.loading import Part

Row = dict[str, int | float]  # one epoch of the history
Weights = TypeVar("Weights")


class Tally:
    """Loss and pixel counts of every image of an epoch, in its order.

    They stay on the device and are read by Python only when needed: reading makes it wait for the device.
    """

    def __init__(self, images: int, device: torch.device):
        self.losses = torch.zeros(images, device=device)
        self.counts = torch.zeros(images, 4, dtype=torch.int64, device=device)

    def write(self, part: Part, losses: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Record the images at the positions of `part`: losses (B,), logits and 0/1 targets (B, 1, H, W)."""
        self.losses[part.start : part.stop] = losses.detach()
        self.counts[part.start : part.stop] = count_batch(logits.detach() >= 0, targets > 0)

    def gathered(self) -> "Tally":
        """The tally of all processes together; all must call it."""
        whole = object.__new__(Tally)
        whole.losses, whole.counts = all_reduce(self.losses), all_reduce(self.counts)
        return whole

    def not_finite(self) -> list[int]:
        """The positions whose loss is NaN or infinite."""
        return (~self.losses.isfinite()).nonzero().flatten().tolist()

    def row(self, name: str) -> Row:
        """Mean loss, and Dice and IoU pooled over all pixels at threshold 0.5."""
        tp, fp, fn, _ = self.counts.sum(0).tolist()
        pixels = 2 * tp + fp + fn
        dice = 2 * tp / pixels if pixels else 1.0  # nothing to find and nothing found
        loss = self.losses.double().mean().item()
        return {f"{name}_loss": loss, f"{name}_dice": dice, f"{name}_iou": dice / (2 - dice)}

    def clear(self) -> None:
        self.losses.zero_()
        self.counts.zero_()


@dataclass
class Progress:
    """The position, the tally of the epoch under way, the history, and the best epoch so far."""

    tally: Tally
    epoch: int = 1  # the one under way, from 1
    steps_done: int = 0  # in it
    history: list[Row] = field(default_factory=list)
    best: dict = field(default_factory=lambda: {"dice": -1.0})  # with the keys epoch and, if wanted, state

    def end_epoch(self, row: Row, weights: Callable[[], dict[str, Tensor]] | None) -> None:
        """Append an epoch's `row`; where it is the best so far, store what `weights` returns, unless that is None."""
        self.history.append(row)
        if row["val_dice"] > self.best["dice"]:
            self.best = {"dice": row["val_dice"], "epoch": row["epoch"]}
            if weights is not None:
                self.best["state"] = weights()
        self.tally.clear()
        self.epoch, self.steps_done = self.epoch + 1, 0

    def should_stop(self, patience: int | None) -> bool:
        """Whether the validation Dice has not risen for `patience` epochs."""
        return (
            patience is not None and bool(self.history) and self.history[-1]["epoch"] - self.best["epoch"] >= patience
        )

    def state_dict(self) -> dict:
        """What a checkpoint holds; with several processes, all must call it."""
        tally = self.tally.gathered()
        position = {name: getattr(self, name) for name in ("epoch", "steps_done", "history", "best")}
        return position | {"losses": tally.losses, "counts": tally.counts}

    def load_state_dict(self, state: dict, with_tally: bool) -> None:
        """Resume from `state`; `with_tally` in one process only, since the saved tally is that of all."""
        self.epoch, self.steps_done, self.history, self.best = (
            state[name] for name in ("epoch", "steps_done", "history", "best")
        )
        if with_tally:
            self.tally.losses.copy_(state["losses"])
            self.tally.counts.copy_(state["counts"])
