"""Predictions as pictures: for each example, the photograph with outlines, the probabilities and the errors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from lesionseg.common.errors import InputError
from lesionseg.formats.processed import Processed
from lesionseg.inference import outline
from lesionseg.inference.outline import PANEL, resized
from lesionseg.visualize import palette, style
from lesionseg.visualize.charts import split_name
from lesionseg.visualize.results import Predictions, Results

KINDS = ("best", "median", "worst", "random")
CHOSEN = "chosen"  # the kind of a gallery of ids that the user named
MOST = 16  # examples in a gallery, at most
COLUMNS = 4  # examples side by side
LEVELS = 32  # shades of probability: they fit into a palette, and fewer shades take fewer bytes
VIRIDIS = [(int(r), int(g), int(b)) for r, g, b, _ in colormaps["viridis"](np.linspace(0, 1, LEVELS), bytes=True)]

DPI = 100  # the file's pixels at scale 1
PRINT = 2  # the scale of a gallery for print: 375 dpi at the width of a page's text
GAP = 6  # pixels between panels
LEGEND = 148  # width of the column of row names and keys
NARROWEST = 560  # width, as the title needs it
TITLE, CAPTION = 34, 42  # heights of the title and of an example's caption


@dataclass(frozen=True)
class Example:
    """One image to show. The arrays share (H, W)."""

    id: str
    caption: str  # one short line under the id, such as "Dice 0.912 · IoU 0.838"
    image: np.ndarray  # uint8 (H, W, 3) RGB
    truth: np.ndarray  # uint8 (H, W), 0 and 1
    predicted: np.ndarray  # uint8 (H, W), 0 and 1
    probabilities: np.ndarray  # uint8 (H, W), 255 stands for 1


@dataclass(frozen=True)
class Gallery:
    """The examples of one kind of one split."""

    kind: str  # one of KINDS, or CHOSEN
    split: str
    images: int  # in the whole split
    examples: list[Example]
    threshold: float | None = None  # pixels at or above this probability count as lesion

    @property
    def title(self) -> str:
        images = "1 image" if self.images == 1 else f"{self.images:,} images"
        cut = "" if self.threshold is None else f", threshold {self.threshold:.2f}"
        ranked = "" if self.kind in ("random", CHOSEN) else " by Dice"
        return f"{self.kind.capitalize()} predictions{ranked} · {split_name(self.split)}, {images}{cut}"


def galleries(
    results: Results,
    predictions: Predictions,
    data: Processed,
    count: int,
    seed: int,
    named: Sequence[str] = (),
) -> Iterator[Gallery]:
    """For every split a gallery of the images `named`, if it has any of them, then one of each kind with `count`
    examples (fewer if there are fewer images).

    `data` has the photographs and masks. Raises InputError for images that were scored but have no prediction, and for
    named ones that were not scored.
    """
    place = {name: row for row, name in enumerate(predictions.ids)}
    table = results.tables["per_image"]
    scored = set(table.texts("id"))
    problems = []
    if missing := [name for name in table.texts("id") if name not in place]:
        problems.append(
            f"{table.path}: no prediction for {len(missing)} of its images, such as {', '.join(missing[:5])}; "
            "run `dvc repro --force evaluate`"
        )
    if unknown := [name for name in named if name not in scored]:
        problems.append(
            f"params.yaml: visualize.ids: found {', '.join(unknown)}; expected ids of evaluated images, as in "
            f"{table.path}"
        )
    if problems:
        raise InputError(problems)
    for split, scores in results.evaluation.items():
        part = table.where("split", split)
        ids, dice, iou = part.texts("id"), part.numbers("dice"), part.numbers("iou")
        picked = {CHOSEN: [ids.index(name) for name in named if name in ids]}
        picked |= {kind: pick(kind, ids, dice, count, seed) for kind in KINDS}
        for kind, positions in picked.items():
            examples = []
            for position in positions:
                row = place[ids[position]]
                examples.append(
                    Example(
                        id=ids[position],
                        caption=f"Dice {dice[position]:.3f} · IoU {iou[position]:.3f}",
                        image=data.images[predictions.rows[row]],
                        truth=data.masks[predictions.rows[row]],
                        predicted=predictions.predicted[row],
                        probabilities=predictions.probabilities[row],
                    )
                )
            if examples:
                yield Gallery(kind, split, len(ids), examples, scores.get("threshold"))


def overview(shown: Sequence[Gallery]) -> Gallery:
    """One gallery of the first split: its best, its median, its worst and a random prediction."""
    first = [each for each in shown if each.split == shown[0].split and each.kind in KINDS]
    extreme = {"best": 0, "worst": -1}
    examples = []
    for each in first:
        example = each.examples[extreme.get(each.kind, len(each.examples) // 2)]
        examples.append(replace(example, caption=f"{each.kind}: {example.caption.partition(' · ')[0]}"))
    return replace(first[0], kind="best, median, worst and random", examples=examples)


def pick(kind: str, ids: Sequence[str], scores: Sequence[float] | np.ndarray, count: int, seed: int = 0) -> list[int]:
    """Pick the examples of a gallery: positions in `ids`, by falling score.

    `best` and `worst` are the ends of the ranking by score (ties by id), `median` its middle, and `random` a
    sample without replacement that depends only on `seed` and the ids; a larger sample contains every smaller one.
    If there are fewer than `count` images, all of them are picked.
    """
    ranking = sorted(range(len(ids)), key=lambda index: (-scores[index], ids[index]))
    count = min(count, len(ids))
    if kind == "best":
        return ranking[:count]
    if kind == "worst":
        return ranking[len(ranking) - count :]
    if kind == "median":
        start = (len(ranking) - count) // 2
        return ranking[start : start + count]
    if kind == "random":
        by_id = sorted(range(len(ids)), key=lambda index: ids[index])
        drawn = np.random.default_rng(seed).permutation(len(ids))[:count]
        sample = {by_id[index] for index in drawn}
        return [index for index in ranking if index in sample]
    raise ValueError(f"gallery '{kind}'; known: {', '.join(KINDS)}")


def outlined(example: Example, size: tuple[int, int]) -> np.ndarray:
    """The photograph with the true and the predicted outline: uint8 (height, width, 3) for size (height, width)."""
    return outline.outlined(example.image, {"truth": example.truth, "predicted": example.predicted}, size)


def probability_map(example: Example, size: tuple[int, int]) -> np.ndarray:
    """The probabilities in LEVELS steps of viridis, dark 0 to yellow 1: uint8 (height, width, 3)."""
    step = resized(example.probabilities, size).astype(np.uint16) * LEVELS // 256
    return np.array(VIRIDIS, np.uint8)[step]


def error_map(example: Example, size: tuple[int, int]) -> np.ndarray:
    """Agreement, misses and false alarms over the darkened photograph: uint8 (height, width, 3)."""
    grey = np.asarray(Image.fromarray(resized(example.image, size)).convert("L"))
    dark = (grey * 0.45).astype(np.uint8) // 6 * 6  # coarse grey levels halve the bytes and do not show
    picture = np.repeat(dark[..., None], 3, axis=-1)
    truth, predicted = (resized(255 * mask, size) >= 128 for mask in (example.truth, example.predicted))
    picture[truth & predicted] = palette.hex_to_rgb(palette.AGREEMENT)
    picture[truth & ~predicted] = palette.hex_to_rgb(palette.TRUTH)
    picture[~truth & predicted] = palette.hex_to_rgb(palette.PREDICTION)
    return picture


def panel_size(shape: tuple[int, int], count: float) -> tuple[int, int]:
    """Height and width of a panel for images of `shape`: smaller in large galleries, so that files stay small."""
    longest = min(PANEL, PANEL * (COLUMNS / count) ** 0.5)
    scale = longest / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


ROWS = (("photograph", outlined), ("probability", probability_map), ("errors", error_map))


@style.applied()
def draw(shown: Gallery, scale: float = 1) -> Figure:
    """Draw the examples of a gallery, one per column, COLUMNS in a row; `scale` multiplies the pixels."""
    examples = shown.examples
    height, width = panel_size(examples[0].image.shape[:2], len(examples))
    columns = min(COLUMNS, len(examples))
    bands = -(-len(examples) // columns)
    band_height = CAPTION + len(ROWS) * (height + GAP)
    total = (max(LEGEND + columns * (width + GAP), NARROWEST), TITLE + bands * band_height)
    figure = Figure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI * scale, facecolor="white")
    pixels = (round(height * scale), round(width * scale))

    def text(x: float, y: float, words: str, **look: Any) -> None:
        """Words at pixel (x, y) from the upper left corner; a dollar sign in an id starts no formula."""
        usual: dict[str, Any] = {"color": palette.INK, "va": "top", "fontsize": 10.5, "parse_math": False}
        figure.text(x / total[0], 1 - y / total[1], words, **usual | look)

    text(8, 7, shown.title, fontsize=12, weight="bold")
    for band in range(bands):
        top = TITLE + band * band_height
        for column, example in enumerate(examples[band * columns : (band + 1) * columns]):
            x = LEGEND + column * (width + GAP)
            text(x, top + 2, _shorten(example.id), weight="bold")
            text(x, top + 20, caption(example))
            for row, (_, panel) in enumerate(ROWS):
                y = top + CAPTION + row * (height + GAP)
                box = (x / total[0], 1 - (y + height) / total[1], width / total[0], height / total[1])
                axes = figure.add_axes(box, frameon=False)
                axes.set_axis_off()
                axes.imshow(panel(example, pixels), aspect="auto", interpolation="none")
        for row, key in enumerate((_outline_key, _probability_key, _error_key)):
            key(figure, text, top + CAPTION + row * (height + GAP), total, shown.threshold)
    return figure


def caption(example: Example) -> str:
    """The example's caption; where the prediction is empty or all lesion, its first part and a note that says so."""
    whole = "nothing" if not example.predicted.any() else "everything" if example.predicted.all() else ""
    return f"{example.caption.partition(' · ')[0]} · {whole} predicted" if whole else example.caption


def _outline_key(figure, text, y, total, _) -> None:
    text(8, y, "Photograph", weight="bold")
    handles = [
        Line2D([], [], color=palette.TRUTH, linewidth=2.5, label="true outline"),
        Line2D([], [], color=palette.PREDICTION, linewidth=2.5, label="predicted"),
    ]
    _legend(figure, handles, y + 18, total)


def _probability_key(figure, text, y, total, threshold) -> None:
    text(8, y, "Probability", weight="bold")
    axes = figure.add_axes((10 / total[0], 1 - (y + 38) / total[1], 110 / total[0], 12 / total[1]))
    axes.imshow(np.array(VIRIDIS, np.uint8)[None], aspect="auto", extent=(0, 1, 0, 1))
    axes.set(yticks=[], xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
    axes.grid(False)
    axes.tick_params(labelsize=9.5, colors=palette.INK, length=3)
    if threshold is not None:
        axes.plot([threshold, threshold], [-0.3, 1.3], color="white", linewidth=3, clip_on=False)
        axes.plot([threshold, threshold], [-0.3, 1.3], color=palette.INK, linewidth=1.5, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        text(8, y + 62, f"| threshold {threshold:.2f}", fontsize=9.5)


def _error_key(figure, text, y, total, _) -> None:
    text(8, y, "Errors", weight="bold")
    edge: dict[str, Any] = {"edgecolor": palette.INK, "linewidth": 0.6}
    handles = [
        Patch(facecolor=palette.AGREEMENT, label="agreement", **edge),
        Patch(facecolor=palette.TRUTH, label="missed", **edge),
        Patch(facecolor=palette.PREDICTION, label="false alarm", **edge),
    ]
    _legend(figure, handles, y + 18, total)


def _legend(figure, handles, y, total) -> None:
    legend = figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(4 / total[0], 1 - y / total[1]),
        frameon=False,
        fontsize=10.5,
        labelcolor=palette.INK,
        handlelength=1.3,
        borderpad=0.2,
        borderaxespad=0,
    )
    legend.set_in_layout(False)


def _shorten(name: str, longest: int = 26) -> str:
    """Cut the middle out of a long id: both ends of a file name tell files apart."""
    if len(name) <= longest:
        return name
    end = (longest - 1) // 2
    return f"{name[:end]}…{name[-end:]}"
