"""The charts. Each takes plain numbers, returns a matplotlib Figure, and keeps no global state.

A chart is as wide as the text of a page, and readable at that size. Its title says what is plotted; the titles of its
panels, which the caller gives, say for which data. Undefined numbers (NaN) are left out, and a chart with nothing to
draw says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, StrMethodFormatter

from lesionseg.visualize import palette, style

DPI = 300
WIDTH = 6.4  # inches: the width of the text on a page of A4 or Letter
SCORE_NAMES = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall"}
MARKERS = {
    "val": "o",
    "test": "D",
    "official_validation": "s",
    "official_test": "^",
    "external": "v",
}  # tells splits apart without colour


@style.applied()
def training_curves(history: Mapping[str, np.ndarray], kept: Sequence[int] = (), rule: str = "last") -> Figure:
    """Loss, and Dice and IoU pooled over all pixels, by epoch, for training and validation.

    `history` has float arrays (epochs,): epoch (1-based), train_loss, val_loss, train_dice, val_dice, train_iou,
    val_iou. A dotted line marks each epoch of `kept` (one for each network of an ensemble), whose weights were kept
    by the rule `last` or `best`.
    """
    figure = _figure(3.7, "Training: loss, and scores of all pixels at threshold 0.5, by epoch")
    losses, scores = figure.subplots(1, 2)
    epoch = history["epoch"]
    marker = "o" if len(epoch) <= 3 else None  # a line of one point is invisible
    for part, label, colour in (
        ("train", "training split", palette.TRAINING),
        ("val", "validation split", palette.VALIDATION),
    ):
        line = {"color": colour, "marker": marker}
        losses.plot(epoch, history[f"{part}_loss"], label=f"loss, {label}", **line)
        scores.plot(epoch, history[f"{part}_dice"], label=f"Dice, {label}", **line)
        scores.plot(epoch, history[f"{part}_iou"], label=f"IoU, {label}", linestyle="--", mfc="white", **line)
    losses.set(xlabel="epoch", ylabel="loss", title="Loss")
    losses.set_ylim(bottom=0, top=1.08 * losses.get_ylim()[1])
    scores.set(xlabel="epoch", ylabel="score, pooled over pixels", title="Dice and IoU", ylim=(0, 1))
    for axes in (losses, scores):
        axes.set_xlim(epoch[0] - 0.5, epoch[-1] + 0.5)
        if len(epoch) <= 12:
            axes.set_xticks(epoch)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        why = {"last": "the last", "best": "the best Dice on validation"}.get(rule, rule)
        for place, one in enumerate(dict.fromkeys(kept)):
            named = None if place else f"kept: epoch {', '.join(map(str, kept))}, {why}"
            axes.axvline(one, color=palette.INK, linestyle=":", linewidth=1.2, zorder=0, label=named)
    handles, labels = losses.get_legend_handles_labels()
    more_handles, more_labels = scores.get_legend_handles_labels()
    drawn = dict(zip((*labels, *more_labels), (*handles, *more_handles), strict=True))  # the line of that epoch once
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=2)
    return figure


@style.applied()
def confusion_matrix(confusions: Mapping[str, Mapping[str, int]], titles: Mapping[str, str]) -> Figure:
    """Pixels by true and predicted class, a 2×2 matrix for each split: counts, and shares of the true class.

    `confusions` maps a split to its pixel counts `tp`, `fp`, `fn`, `tn`.
    """
    rows = _rows(len(confusions))
    figure = _figure(0.7 + 3.5 * rows, "Pixels by true and predicted class, at the network's resolution")
    for axes, (split, counts) in zip(_grid(figure, len(confusions)), confusions.items(), strict=False):
        matrix = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]], dtype=np.float64)
        totals = matrix.sum(axis=1, keepdims=True)
        shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            percent = f"{100 * share:.1f} %" if totals[row, 0] else "no such pixels"
            ink = "white" if share > 0.5 else palette.INK
            axes.text(column, row - 0.1, percent, ha="center", va="center", color=ink, fontsize=12)
            axes.text(column, row + 0.16, f"{matrix[row, column]:,.0f} px", ha="center", va="center", color=ink)
        axes.set(
            xlabel="predicted\n(shares of the true class)",
            ylabel="truth",
            title=titles[split].replace(", threshold", "\nthreshold"),
        )
        axes.set_xticks([0, 1], ["skin", "lesion"])
        axes.set_yticks([0, 1], ["skin", "lesion"], rotation=90, va="center")
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


@dataclass(frozen=True)
class ReliabilityDiagram:
    """The reliability diagram of one split: arrays (bins,), one entry per bin of predicted probabilities."""

    probability: np.ndarray  # mean predicted probability of the bin's pixels; NaN when it is empty
    frequency: np.ndarray  # share of the bin's pixels that are lesion; NaN when it is empty
    pixels: np.ndarray  # pixels in the bin
    error: float | None  # expected calibration error


@style.applied()
def calibration(splits: Mapping[str, ReliabilityDiagram], titles: Mapping[str, str]) -> Figure:
    """Reliability diagrams of the splits in one chart, and below it how many pixels each bin holds (log scale)."""
    figure = _figure(5, "Calibration: predicted probability and share of lesion", width=5)
    diagram, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    diagram.plot([0, 1], [0, 1], color=palette.FAINT, linestyle="--", label="perfect calibration", zorder=1)
    for split, bins in splits.items():
        error = "" if bins.error is None else f"\nECE {bins.error:.3f}"
        line = {"color": palette.SPLITS[split], "marker": MARKERS[split], "markersize": 4}
        drawn = np.isfinite(bins.probability) & np.isfinite(bins.frequency)
        diagram.plot(bins.probability[drawn], bins.frequency[drawn], label=f"{titles[split]}{error}", **line)
        filled = np.isfinite(bins.probability) & (bins.pixels > 0)
        counts.plot(bins.probability[filled], bins.pixels[filled], **line)
    diagram.set(ylabel="share of the pixels that is lesion", ylim=(-0.02, 1.02))
    counts.set(xlabel="predicted probability of lesion", ylabel="pixels", xlim=(-0.02, 1.02))
    figure.legend(*diagram.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    if counts.lines and any(len(line.get_ydata()) for line in counts.lines):
        counts.set_yscale("log")
        counts.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))  # not 10^6, which is math
        counts.yaxis.set_minor_formatter(NullFormatter())
    else:
        _say(counts, "no pixels")
    return figure


SWEPT = ("threshold", "dice", "iou", "precision", "recall")


@style.applied()
def threshold_sweep(
    splits: Mapping[str, Mapping[str, np.ndarray]], used: Mapping[str, float | None], titles: Mapping[str, str]
) -> Figure:
    """Pooled Dice, IoU, precision and recall by probability threshold, with the threshold in use and the best Dice.

    `splits` maps a split to arrays (thresholds,), one for each name in SWEPT; `used` gives its threshold, if known.
    Precision ends where nothing is predicted any more, as it is undefined there.
    """
    rows = _rows(len(splits))
    figure = _figure(0.9 + 2.8 * rows, "Scores of all pixels by the probability threshold")
    for axes, (split, sweep) in zip(_grid(figure, len(splits)), splits.items(), strict=False):
        for score, name in SCORE_NAMES.items():
            dashes = "--" if score in ("precision", "recall") else "-"
            values = _while_predicted(sweep) if score == "precision" else sweep[score]
            axes.plot(sweep["threshold"], values, color=palette.SCORES[score], linestyle=dashes, label=name)
        axes.set(xlabel="probability threshold", ylabel="score, pooled over pixels", xlim=(0, 1), ylim=(0, 1.03))
        axes.set_yticks(np.linspace(0, 1, 6))
        words = []
        if np.isfinite(sweep["dice"]).any():
            best = int(np.nanargmax(sweep["dice"]))
            at, level = sweep["threshold"][best], sweep["dice"][best]
            axes.plot([at], [level], "o", color=palette.SCORES["dice"], mec="white", markersize=7, label="best Dice")
            words.append(f"best Dice {level:.3f} at {at:.2f}")
        if (threshold := used.get(split)) is not None:
            axes.axvline(threshold, color=palette.INK, linestyle=":", linewidth=1.2, zorder=0, label="threshold in use")
            words.append(f"in use {threshold:.2f}")
        axes.set_title("\n".join([titles[split], *words]))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _while_predicted(sweep: Mapping[str, np.ndarray]) -> np.ndarray:
    """Precision, without the last thresholds, at which no lesion pixel is found."""
    found = np.flatnonzero(sweep["recall"] > 0)
    end = found[-1] + 1 if len(found) else 0
    return np.where(np.arange(len(sweep["precision"])) < end, sweep["precision"], np.nan)


@style.applied()
def dice_distribution(splits: Mapping[str, np.ndarray], titles: Mapping[str, str]) -> Figure:
    """A histogram of the Dice of the images for each split, with mean and median.

    `splits` maps a split to its images' Dice, (images,).
    """
    figure = _figure(1.1 + 1.9 * max(1, len(splits)), "Images by their Dice")
    for axes, (split, dice) in zip(_column_of_axes(figure, len(splits)), splits.items(), strict=True):
        dice = dice[np.isfinite(dice)]
        axes.hist(
            dice, bins=np.linspace(0, 1, 41).tolist(), color=palette.SPLITS[split], edgecolor="white", linewidth=0.6
        )
        axes.set(ylabel="images", title=titles[split], xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.grid(axis="x", visible=False)
        if len(dice):
            for value, dashes, name in ((dice.mean(), "-", "mean"), (float(np.median(dice)), "--", "median")):
                axes.axvline(value, color=palette.INK, linestyle=dashes, linewidth=1.4, label=f"{name} {value:.3f}")
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        else:
            _say(axes, "no image has a defined Dice")
    axes.set_xlabel("Dice of the image")
    return figure


@style.applied()
def dice_by_size(
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]], titles: Mapping[str, str], borders: Sequence[float] = ()
) -> Figure:
    """Dice of each image against its lesion fraction (log scale), a panel for each split.

    `splits` maps a split to (lesion fraction, Dice), both (images,). `borders` are the lesion fractions between
    the size classes, drawn as dotted lines; a bar across each class shows the median of its images.
    """
    figure = _figure(1.0 + 2.5 * max(1, len(splits)), "Dice of each image by the size of its lesion")
    smallest = min((f[f > 0].min() for f, _ in splits.values() if (f > 0).any()), default=0.1)
    low, high = 10 ** np.floor(np.log10(min(smallest, 0.1))) * 0.9, 1.12
    for axes, (split, (fraction, dice)) in zip(_column_of_axes(figure, len(splits)), splits.items(), strict=True):
        drawn = np.isfinite(dice) & (fraction > 0)  # a log axis has no place for an empty true mask
        fraction, dice = fraction[drawn], dice[drawn]
        many, colour = len(fraction) > 300, palette.SPLITS[split]
        axes.scatter(fraction, dice, s=8 if many else 18, alpha=0.35 if many else 0.6, color=colour, linewidths=0)
        for border in borders:
            axes.axvline(border, color=palette.FAINT, linestyle=":", zorder=0)
        for start, end in zip((low, *borders), (*borders, high), strict=True):
            group = dice[(fraction >= start) & (fraction < end)]
            if len(group):
                median, middle = float(np.median(group)), np.sqrt(start * end)
                axes.plot([start, end], [median, median], color="white", linewidth=4, solid_capstyle="butt")
                axes.plot([start, end], [median, median], color=palette.INK, solid_capstyle="butt")
                axes.text(
                    middle, -0.07, f"median {median:.3f}\nn = {len(group):,}", ha="center", va="top", fontsize=8.5
                )
        axes.set(xscale="log", ylim=(-0.3, 1.04), ylabel="Dice of the image")
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.set_title(titles[split])
        if not len(fraction):
            _say(axes, "no image with a lesion")
    axes.set(xlabel="lesion's share of the image", xlim=(low, high))
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


def _percent(share: float, _: int) -> str:
    return f"{100 * share:g} %"


@dataclass(frozen=True)
class CurveWithArea:
    """A precision-recall or ROC curve: x and y (points,), and the area under it, or why there is none."""

    x: np.ndarray
    y: np.ndarray
    area: float | None
    note: str = ""  # why the curve is undefined


@style.applied()
def precision_recall(splits: Mapping[str, CurveWithArea], titles: Mapping[str, str]) -> Figure:
    """Precision against recall over all pixels; the area is the average precision."""
    return _curves(splits, titles, "recall", "precision", "Precision and recall of all pixels", "AP")


@style.applied()
def roc(splits: Mapping[str, CurveWithArea], titles: Mapping[str, str]) -> Figure:
    """True against false positive rate over all pixels, with the area under it."""
    figure = _curves(splits, titles, "false positive rate", "true positive rate", "ROC curve of all pixels", "AUC")
    figure.axes[0].plot([0, 1], [0, 1], color=palette.FAINT, linestyle="--", zorder=0)
    return figure


def _curves(
    splits: Mapping[str, CurveWithArea], titles: Mapping[str, str], x: str, y: str, title: str, area: str
) -> Figure:
    figure = _figure(4.3, title, width=4.6)
    axes = figure.subplots()
    notes = []
    for split, curve in splits.items():
        if not len(curve.x):
            notes.append(f"{titles[split]}: no curve" + (f",\n{curve.note}" if curve.note else ""))
            continue
        value = "" if curve.area is None else f"\n{area} {curve.area:.3f}"
        axes.plot(curve.x, curve.y, color=palette.SPLITS[split], label=f"{titles[split]}{value}")
    axes.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    if axes.lines:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    if notes:
        _say(axes, "\n".join(notes))
    return figure


def _figure(height: float, title: str, width: float = WIDTH) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=palette.INK)
    return figure


def _rows(count: int) -> int:
    return max(1, -(-count // 2))


def _grid(figure: Figure, count: int) -> list[Axes]:
    """`count` panels, at most two side by side; what is left of the last row stays empty."""
    grid = figure.subplots(_rows(count), min(2, max(1, count)), squeeze=False).ravel()
    for unused in grid[max(1, count) :]:
        unused.set_axis_off()
    return list(grid[: max(1, count)])


def _column_of_axes(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(max(1, count), 1, squeeze=False, sharex=True)[:, 0])


def _say(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=palette.INK, fontsize=9)
