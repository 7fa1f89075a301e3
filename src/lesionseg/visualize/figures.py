"""The charts. Each takes plain numbers, returns a matplotlib Figure, and keeps no global state.

An undefined number (NaN) is left out of its chart, and a chart with nothing to draw says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from lesionseg.visualize import palette, style

DPI = 125
WIDTH = 6.4  # inches: 800 pixels, the width of a README page
SCORE_NAMES = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall"}
MARKERS = {"val": "o", "official_validation": "s", "official_test": "^"}  # tells splits apart without colour


@style.applied()
def training_curves(history: Mapping[str, np.ndarray]) -> Figure:
    """Loss, and Dice and IoU pooled over all pixels, by epoch, for training and validation.

    `history` has float arrays (epochs,): epoch (1-based), train_loss, val_loss, train_dice, val_dice, train_iou,
    val_iou. A dotted line marks the epoch of the best validation Dice.
    """
    figure = _figure(3.2)
    losses, scores = figure.subplots(1, 2)
    epoch = history["epoch"]
    marker = "o" if len(epoch) <= 3 else None  # a line of one point is invisible
    for part, label, colour in (
        ("train", "training", palette.TRAINING),
        ("val", "validation", palette.VALIDATION),
    ):
        style = {"color": colour, "marker": marker}
        losses.plot(epoch, history[f"{part}_loss"], label=label, **style)
        scores.plot(epoch, history[f"{part}_dice"], label=f"Dice, {label}", **style)
        scores.plot(epoch, history[f"{part}_iou"], label=f"IoU, {label}", linestyle="--", mfc="white", **style)
    losses.set(xlabel="epoch", ylabel="loss", title="Loss")
    losses.set_ylim(bottom=0, top=1.08 * losses.get_ylim()[1])
    scores.set(xlabel="epoch", ylabel="score, pooled over pixels", title="Dice and IoU", ylim=(0, 1))
    for axes in (losses, scores):
        axes.set_xlim(epoch[0] - 0.5, epoch[-1] + 0.5)
        if len(epoch) <= 12:
            axes.set_xticks(epoch)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best")
    if np.isfinite(history["val_dice"]).any() and len(epoch) > 1:
        best = int(np.nanargmax(history["val_dice"]))
        scores.axvline(epoch[best], color=palette.FAINT, linestyle=":", zorder=0)
        _say(scores, f"best {history['val_dice'][best]:.3f} at epoch {epoch[best]:.0f}", 0.98, 0.97, "right")
    return figure


@style.applied()
def confusion_matrix(confusions: Mapping[str, Mapping[str, int]]) -> Figure:
    """Pixels by true and predicted class, a 2×2 matrix for each split: counts, and shares of the true class.

    `confusions` maps a split to its pixel counts `tp`, `fp`, `fn`, `tn`.
    """
    figure = _figure(3.5, width=3.5 * max(1, len(confusions)))
    for axes, (split, counts) in zip(_row_of_axes(figure, len(confusions)), confusions.items(), strict=True):
        matrix = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]], dtype=np.float64)
        totals = matrix.sum(axis=1, keepdims=True)
        shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            percent = f"{share:.1%}" if totals[row, 0] else "no such pixels"
            ink = "white" if share > 0.5 else palette.INK
            axes.text(column, row - 0.1, percent, ha="center", va="center", color=ink, fontsize=14)
            axes.text(column, row + 0.16, f"{matrix[row, column]:,.0f} px", ha="center", va="center", color=ink)
        axes.set(xlabel="predicted (shares are of the true class)", ylabel="truth", title=_split_name(split))
        axes.set_xticks([0, 1], ["skin", "lesion"])
        axes.set_yticks([0, 1], ["skin", "lesion"], rotation=90, va="center")
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram of one split: a bin of predicted probabilities each row, arrays (bins,)."""

    probability: np.ndarray  # mean predicted probability of the bin's pixels; NaN when it is empty
    frequency: np.ndarray  # share of the bin's pixels that are lesion; NaN when it is empty
    pixels: np.ndarray  # pixels in the bin
    error: float | None  # expected calibration error


@style.applied()
def calibration(splits: Mapping[str, Reliability]) -> Figure:
    """Reliability diagrams of the splits in one chart, and below it how many pixels each bin holds (log scale)."""
    figure = _figure(5.2, width=4.8)
    diagram, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    diagram.plot([0, 1], [0, 1], color=palette.FAINT, linestyle="--", label="perfect calibration", zorder=1)
    for split, bins in splits.items():
        error = "" if bins.error is None else f", ECE {bins.error:.3f}"
        style = {"color": palette.SPLITS[split], "marker": MARKERS[split], "markersize": 5}
        drawn = np.isfinite(bins.probability) & np.isfinite(bins.frequency)
        diagram.plot(bins.probability[drawn], bins.frequency[drawn], label=f"{_split_name(split)}{error}", **style)
        filled = np.isfinite(bins.probability) & (bins.pixels > 0)
        counts.plot(bins.probability[filled], bins.pixels[filled], **style)
    diagram.set(ylabel="share that is lesion", ylim=(-0.02, 1.02), title="Calibration of the pixels' probabilities")
    diagram.legend(loc="upper left")
    counts.set(xlabel="predicted probability of lesion", ylabel="pixels", xlim=(-0.02, 1.02))
    if counts.lines and any(len(line.get_ydata()) for line in counts.lines):
        counts.set_yscale("log")
    else:
        _say(counts, "no pixels")
    return figure


SWEPT = ("threshold", "dice", "iou", "precision", "recall")


@style.applied()
def threshold_sweep(splits: Mapping[str, Mapping[str, np.ndarray]], used: Mapping[str, float | None]) -> Figure:
    """Pooled Dice, IoU, precision and recall by probability threshold; a dotted line marks the threshold in use.

    `splits` maps a split to arrays (thresholds,), one for each name in SWEPT; `used` gives its threshold, if known.
    """
    figure = _figure(3.6, width=WIDTH if len(splits) == 1 else 3.6 * max(1, len(splits)))
    for axes, (split, sweep) in zip(_row_of_axes(figure, len(splits)), splits.items(), strict=True):
        for score, name in SCORE_NAMES.items():
            dashes = "--" if score in ("precision", "recall") else "-"
            axes.plot(sweep["threshold"], sweep[score], color=palette.SCORES[score], linestyle=dashes, label=name)
        axes.set(xlabel="probability threshold", ylabel="score, pooled over pixels", xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title(_split_name(split))
        threshold = used.get(split)
        axes.legend(loc="lower left" if threshold is None or threshold > 0.3 else "lower right")
        if threshold is not None:
            axes.axvline(threshold, color=palette.INK, linestyle=":", linewidth=1.2, zorder=0)
            axes.annotate(f" in use: {threshold:.2f}", (threshold, 0.02), fontsize=9, color=palette.INK)
    return figure


@style.applied()
def dice_distribution(splits: Mapping[str, np.ndarray]) -> Figure:
    """How many images reach which Dice, a histogram for each split, with mean and median.

    `splits` maps a split to its images' Dice, (images,).
    """
    figure = _figure(0.9 + 2.1 * max(1, len(splits)))
    for axes, (split, dice) in zip(_column_of_axes(figure, len(splits)), splits.items(), strict=True):
        dice = dice[np.isfinite(dice)]
        axes.hist(dice, bins=np.linspace(0, 1, 41), color=palette.SPLITS[split], edgecolor="white", linewidth=0.6)
        axes.set(ylabel="images", title=f"{_split_name(split)}: {_images(len(dice))}", xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.grid(axis="x", visible=False)
        if len(dice):
            for value, style, name in ((dice.mean(), "-", "mean"), (float(np.median(dice)), "--", "median")):
                axes.axvline(value, color=palette.INK, linestyle=style, linewidth=1.4, label=f"{name} {value:.3f}")
            axes.legend(loc="upper left")
        else:
            _say(axes, "no image has a defined Dice")
    axes.set_xlabel("Dice of the image")
    return figure


@style.applied()
def dice_by_size(splits: Mapping[str, tuple[np.ndarray, np.ndarray]], borders: Sequence[float] = ()) -> Figure:
    """Dice of each image against the share of it that is lesion (log scale), a chart for each split.

    `splits` maps a split to (lesion fraction, Dice), both (images,). `borders` are the lesion fractions between
    the size classes. The line joins the medians of equally large groups of images in order of size.
    """
    figure = _figure(0.9 + 2.7 * max(1, len(splits)))
    for axes, (split, (fraction, dice)) in zip(_column_of_axes(figure, len(splits)), splits.items(), strict=True):
        drawn = np.isfinite(dice) & (fraction > 0)  # an empty truth has no place on a log axis
        fraction, dice = fraction[drawn], dice[drawn]
        many, colour = len(fraction) > 300, palette.SPLITS[split]
        axes.scatter(fraction, dice, s=8 if many else 18, alpha=0.35 if many else 0.6, color=colour, linewidths=0)
        if len(fraction) >= 12:
            at, level = _medians_by(fraction, dice)
            axes.plot(at, level, color="white", linewidth=5)  # keeps the line apart from the points
            axes.plot(at, level, color=palette.INK, marker="o", markersize=4, label="median of a size group")
            axes.legend(loc="lower right")
        for border in borders:
            axes.axvline(border, color=palette.FAINT, linestyle=":", zorder=0)
        axes.set(xscale="log", ylim=(-0.03, 1.03), ylabel="Dice of the image")
        axes.set_title(f"{_split_name(split)}: {_images(len(fraction))}")
        if not len(fraction):
            _say(axes, "no image with a lesion")
    smallest = min((f[f > 0].min() for f, _ in splits.values() if (f > 0).any()), default=0.1)
    axes.set(xlabel="lesion's share of the image", xlim=(10 ** np.floor(np.log10(min(smallest, 0.1))) * 0.9, 1.12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


@dataclass(frozen=True)
class Curve:
    """A precision-recall or ROC curve: points (points,), and the area under them, or why there is none."""

    x: np.ndarray
    y: np.ndarray
    area: float | None
    note: str = ""  # why the curve is undefined


@style.applied()
def precision_recall(splits: Mapping[str, Curve]) -> Figure:
    """Precision against recall over all pixels; the area is the average precision."""
    return _curves(splits, "recall", "precision", "Precision and recall", "AP", "lower left")


@style.applied()
def roc(splits: Mapping[str, Curve]) -> Figure:
    """True against false positive rate over all pixels, with the area under it."""
    figure = _curves(splits, "false positive rate", "true positive rate", "ROC", "AUC", "lower right")
    figure.axes[0].plot([0, 1], [0, 1], color=palette.FAINT, linestyle="--", zorder=0)
    return figure


def _curves(splits: Mapping[str, Curve], x: str, y: str, title: str, area: str, corner: str) -> Figure:
    figure = _figure(4.2, width=4.4)
    axes = figure.subplots()
    notes = []
    for split, curve in splits.items():
        if not len(curve.x):
            notes.append(f"{_split_name(split)}: undefined" + (f",\n{curve.note}" if curve.note else ""))
            continue
        value = "" if curve.area is None else f", {area} {curve.area:.3f}"
        axes.plot(curve.x, curve.y, color=palette.SPLITS[split], label=f"{_split_name(split)}{value}")
    axes.set(xlabel=x, ylabel=y, title=f"{title}, all pixels", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    if axes.lines:
        axes.legend(loc=corner)
    if notes:
        _say(axes, "\n".join(notes))
    return figure


def _medians_by(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians of x and of y in 3 to 12 equally large groups, by rank of x."""
    groups = np.array_split(np.argsort(x, kind="stable"), np.clip(len(x) // 20, 3, 12))
    return tuple(np.array([np.median(values[group]) for group in groups]) for values in (x, y))


def _split_name(split: str) -> str:
    return "validation split" if split == "val" else split.replace("_", " ")


def _images(count: int) -> str:
    return f"{count:,} image" + ("" if count == 1 else "s")


def _figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def _row_of_axes(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, max(1, count), squeeze=False)[0])


def _column_of_axes(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(max(1, count), 1, squeeze=False, sharex=True)[:, 0])


def _say(axes: Axes, words: str, x: float = 0.5, y: float = 0.5, align: str = "center") -> None:
    vertical = "center" if y == 0.5 else "top"
    axes.text(x, y, words, transform=axes.transAxes, ha=align, va=vertical, color=palette.INK, fontsize=9)
