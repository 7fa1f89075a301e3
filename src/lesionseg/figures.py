"""The charts. Each takes plain numbers, returns a matplotlib Figure, and keeps no global state.

An undefined figure (NaN, or None) is left out of its chart, and a chart with nothing to draw says so.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lesionseg import palette

DPI = 125
WIDTH = 6.4  # inches: 800 pixels


def training_curves(history: Mapping[str, np.ndarray]) -> Figure:
    """Loss, and Dice and IoU pooled over all pixels, by epoch (1-based), for training and validation.

    `history` has float arrays (epochs,): epoch, train_loss, val_loss, train_dice, val_dice, train_iou, val_iou.
    """
    figure = _figure(3.2)
    losses, scores = figure.subplots(1, 2)
    epoch = history["epoch"]
    marker = "o" if len(epoch) == 1 else None  # a line of one point is invisible
    for part, label, colour in (("train", "training", palette.TRAINING), ("val", "validation", palette.VALIDATION)):
        losses.plot(epoch, history[f"{part}_loss"], color=colour, label=label, marker=marker)
        scores.plot(epoch, history[f"{part}_dice"], color=colour, label=f"Dice, {label}", marker=marker)
        scores.plot(epoch, history[f"{part}_iou"], color=colour, label=f"IoU, {label}", marker=marker, linestyle="--")
    losses.set(xlabel="epoch", ylabel="loss", title="Loss")
    losses.set_ylim(bottom=0)
    scores.set(xlabel="epoch", ylabel="score, pooled over pixels", title="Dice and IoU", ylim=(0, 1))
    for axes in (losses, scores):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
    return figure


def confusion_matrix(confusions: Mapping[str, Mapping[str, int]]) -> Figure:
    """Pixels by true and predicted class, a 2×2 matrix for each split: counts, and shares of the true class.

    `confusions` maps a split to its counts `tp`, `fp`, `fn`, `tn`.
    """
    figure = _figure(3.4, width=min(WIDTH, 3.9) if len(confusions) == 1 else 3.3 * len(confusions))
    grid = figure.subplots(1, len(confusions), squeeze=False)[0]
    for axes, (split, counts) in zip(grid, confusions.items(), strict=True):
        matrix = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]], dtype=np.float64)
        totals = matrix.sum(axis=1, keepdims=True)
        shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            percent = f"{share:.1%}" if totals[row, 0] else "no such pixels"
            axes.text(
                column, row, f"{percent}\n{matrix[row, column]:,.0f}", ha="center", va="center",
                color="white" if share > 0.5 else palette.INK,
            )  # fmt: skip
        axes.set(xlabel="predicted", ylabel="truth", title=f"{split}: pixels, share of the true class")
        axes.set_xticks([0, 1], ["skin", "lesion"])
        axes.set_yticks([0, 1], ["skin", "lesion"], rotation=90, va="center")
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def _figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
