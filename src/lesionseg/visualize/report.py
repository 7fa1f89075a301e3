"""The evaluation as one self-contained HTML page: pictures, styles and the table's script are inside it."""

import base64
import hashlib
import io
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lesionseg.visualize import gallery, palette
from lesionseg.visualize.charts import Chart, split_name
from lesionseg.visualize.image_file import vector_bytes
from lesionseg.visualize.results import Results

CHART = 4.8  # inches: the width of a chart on the page, narrow enough to be readable on a phone
QUALITY = 82  # WebP of the gallery panels
FULL_SIZE = 96  # with more examples than this, panels shrink: three splits of 64 examples stay under 4 MB
HEADLINE = (  # the scores that open the page: section, name, label, and the anchor of their meaning
    ("per_image", "dice", "Dice, mean over images", "dice"),
    ("per_image", "iou", "IoU (Jaccard), mean over images", "iou"),
    ("pooled", "dice", "Dice, pooled over all pixels", "dice"),
    ("pooled", "iou", "IoU (Jaccard), pooled over all pixels", "iou"),
    ("official", "threshold_jaccard", "ISIC 2018 score: mean threshold Jaccard at native size", "threshold_jaccard"),
    ("official", "failure_rate", "Failures: share of images with a Jaccard below 0.65", "failure_rate"),
    ("boundary", "hd95", "Hausdorff distance, 95th percentile, in pixels at native size", "hd95"),
)
MEANINGS = {  # anchor that the tables link to -> name, explanation
    "dice": ("Dice", "Twice the overlap of prediction and truth, divided by the sum of their areas: 1 is a perfect "
             "match, 0 none. The mean over images counts each image once; pooled over all pixels, large lesions count "
             "more. Two empty masks score 1."),
    "iou": ("IoU, Jaccard", "The overlap divided by the union; Dice / (2 - Dice). Lower than Dice for the same masks."),
    "precision": ("Precision", "The share of the predicted lesion pixels that are lesion."),
    "recall": ("Recall", "The share of the lesion pixels that were found (sensitivity)."),
    "threshold_jaccard": ("Threshold Jaccard", "The score of the ISIC 2018 challenge: the mean over images of the "
                          "Jaccard at native size, in which an image below 0.65 counts 0."),
    "failure_rate": ("Failure rate", "The share of images with a Jaccard below 0.65 at native size."),
    "hd95": ("HD95", "The 95th percentile of the distances between the two outlines, in pixels at native size; "
             "lower is better. If only one of the masks is empty, the distance is the image's diagonal."),
    "mean_surface_distance": ("Mean surface distance", "The mean distance from the pixels of either outline to the "
                              "other outline, in pixels at native size; lower is better."),
    "normalised_surface_distance": ("Outline within 1 % of the diagonal", "The share of both outlines that lies that "
                                    "close to the other (normalised surface distance)."),
    "boundary_iou": ("Boundary IoU", "The IoU of the bands inside the two outlines, 2 % of the diagonal wide."),
    "lesion_fraction": ("Lesion fraction, size", "The lesion's share of the image, by the true mask."),
    "contrast": ("Contrast", "The colour difference (ΔE in CIELAB) between the medians of the lesion and of the skin "
                 "around it."),
    "hair": ("Hair", "The share of the image covered by long thin dark lines, found by a rule, not by a person."),
    "calibration": ("Expected calibration error", "The mean gap between the predicted probability and the share of "
                    "pixels that really are lesion; 0 is perfect."),
    "interval": ("95 % interval", "From resampling the images (bootstrap): how far the score would move with another "
                 "sample of similar images. It does not cover another training run, camera or clinic."),
}  # fmt: skip
SOURCES = {
    "synthetic": "synthetic photographs drawn by this project",
    "isic2018": "ISIC 2018 Task 1, official archives",
    "folder": "a folder of the user's own pairs",
}
NOT_SHOWN = (  # columns of the CSV alone: the table must fit a screen, and the list of all scores has their means
    "group", "tp", "fp", "fn", "tn", "dice_native", "predicted_fraction", "specificity", "accuracy",
    "threshold_jaccard", "failed", "hd95_relative", "mean_surface_distance_relative",
)  # fmt: skip
LABELS = {  # of columns of the table of images whose name does not say it all; metrics have their own
    "touches_border": "touches border (1: yes)",
    "contrast": "contrast to the skin, ΔE",
    "hair": "hair, share of the image",
}
GROUPED_BY = {  # breakdown -> what the images are grouped by, and scale and unit of the limits between groups
    "size": ("the lesion's share of the image", 100, " %"),
    "border": ("whether the lesion touches the edge of the image", None, ""),
    "contrast": ("the colour difference between the lesion and the skin around it", 1, " ΔE"),
    "hair": ("the share of the image that hair covers", 100, " %"),
}
SHORT = {"threshold_jaccard": "threshold Jaccard", "failure_rate": "failures"}  # column heads of the breakdowns
BREAKDOWN = "by_"  # the names of the sections that are breakdowns begin so


@dataclass(frozen=True)
class Column:
    """A column of the table of images."""

    name: str
    label: str
    numeric: bool
    decimals: int


def render_page(
    results: Results, galleries: Sequence[gallery.Gallery], charts: Sequence[Chart], data: Mapping[str, Any]
) -> str:
    """The page as HTML. `data` is the summary of the data set that preprocess wrote."""
    table = results.tables["per_image"]
    crowd = max(1.0, sum(len(each.examples) for each in galleries) / FULL_SIZE)
    labels = LABELS | results.labels
    columns = [_column(name, texts, labels) for name, texts in table.columns.items() if name not in NOT_SHOWN]
    rows = list(zip(*(_values(column, table.texts(column.name)) for column in columns), strict=True))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("lesionseg.visualize").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        splits={split: scores["images"] for split, scores in results.evaluation.items()},
        names={split: split_name(split) for split in results.evaluation},
        about=about(results, data),
        warning=chosen_on(results.network),
        official="isic2018" in data.get("sources", {}),
        meanings=MEANINGS,
        headline=_headline(results.evaluation),
        breakdowns={split: _breakdowns(scores, results.labels | SHORT) for split, scores in results.evaluation.items()},
        scores={split: score_rows(scores) for split, scores in results.evaluation.items()},
        galleries=[(each.title, [_shown(example, crowd) for example in each.examples]) for each in galleries],
        charts=[(chart.title, chart.caption, _data_uri(_chart(chart.figure), "svg+xml")) for chart in charts],
        columns=columns,
        rows=rows,
        origins={
            title: setting_rows(values)
            for title, values in {"Network and training": results.network, "Data": data}.items()
        },
        palette=palette,
    )
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page.replace("script-src 'sha256-'", f"script-src 'sha256-{digest}'", 1)


def about(results: Results, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows (name, words) that say what was evaluated: data, network, weights, thresholds, environment."""
    network = results.network
    sources = [f"{SOURCES.get(name, name)} ({_images(count)})" for name, count in data.get("sources", {}).items()]
    splits = [f"{_images(part['images'])} in {name}" for name, part in data.get("splits", {}).items()]
    cuts = [
        f"{part['threshold']:.2f} on {split}" for split, part in results.evaluation.items() if part.get("threshold")
    ]
    rows = {
        "Data": "; ".join(sources),
        "Splits": ", ".join(splits),
        "Network": f"{network.get('network', '')}, base width {network.get('base_width', '')}",
        "Weights kept": f"epoch {number(network['epoch'])}, by the rule “{network.get('keep', 'last')}”"
        if "epoch" in network
        else "",
        "Weights file": f"SHA-256 {results.weights_sha256[:16]}…",
        "Threshold": f"pixels at or above this probability count as lesion: {', '.join(cuts)}" if cuts else "",
        "Trained on": ", ".join(str(network[name]) for name in ("device", "precision") if name in network),
    }
    return [(name, words) for name, words in rows.items() if words]


def chosen_on(network: Mapping[str, Any]) -> str:
    """A warning, if the weights were chosen on the validation split; else nothing."""
    used = ["the epoch kept"] if network.get("keep") == "best" else []
    used += ["when to stop"] if network.get("train.early_stopping") else []
    if not used:
        return ""
    return (
        f"The validation split chose {' and '.join(used)}, so its scores here are optimistic. "
        "Rely on a test split (preprocess.test_fraction), an official or an external set."
    )


def _images(count: int) -> str:
    return f"{count:,} image" + ("" if count == 1 else "s")


def score_rows(nested: Mapping, group: str = "") -> list[tuple[str, str, str]]:
    """Flatten nested scores, without the breakdowns, to rows of text (name, value, interval) in the given order."""
    rows = []
    for name, value in nested.items():
        path = f"{group} · {name}" if group else name
        if isinstance(value, Mapping):
            rows += [] if name.startswith(BREAKDOWN) else score_rows(value, path)
        elif not _is_bound(name, nested):
            rows.append((path, number(value), interval(nested, name)))
    return rows


def _breakdowns(scores: Mapping[str, Mapping], labels: Mapping[str, str]) -> list[tuple[str, list, list]]:
    """The tables of a split's breakdowns: (title, columns, rows).

    A column is (label, anchor of its meaning or ""), a row (group, where it begins, (value, interval) per column).
    """
    tables = []
    for name, groups in scores.items():
        if name.startswith(BREAKDOWN):
            first = next(iter(groups.values()))
            columns = [key for key in first if key not in ("from", "no_interval") and not _is_bound(key, first)]
            by = name.removeprefix(BREAKDOWN)
            words, scale, unit = GROUPED_BY.get(by, ("", None, ""))
            rows = [
                (
                    group,
                    f"from {scale * found['from']:g}{unit}" if scale and "from" in found else "",
                    [(number(found[key]), interval(found, key)) for key in columns],
                )
                for group, found in groups.items()
            ]
            title = f"By {by}".replace("_", " ") + (f", {words}" if words else "")
            heads = [(labels.get(key, key.replace("_", " ")), key if key in MEANINGS else "") for key in columns]
            tables.append((title, heads, rows))
    return tables


def setting_rows(nested: Mapping, group: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings or counts to rows (name, value); a mapping of plain values becomes one row."""
    rows = []
    for name, value in nested.items():
        path = f"{group} · {name}" if group else name
        if not isinstance(value, Mapping):
            rows.append((path, number(value)))
        elif any(isinstance(part, Mapping) for part in value.values()):
            rows += setting_rows(value, path)
        else:
            rows.append((path, ", ".join(f"{key} {number(part)}" for key, part in value.items())))
    return rows


def number(value: object) -> str:
    """A value as the page shows it: grouped digits, few decimals, a dash for no value."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) >= 10:
            return f"{value:,.1f}"
        return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(number(item) for item in value)
    return str(value)


def interval(numbers: Mapping, name: str) -> str:
    """The interval of a score, or nothing."""
    low, high = numbers.get(f"{name}_low"), numbers.get(f"{name}_high")
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def _is_bound(name: str, numbers: Mapping) -> bool:
    stem, _, end = name.rpartition("_")
    return end in ("low", "high") and stem in numbers


def _headline(evaluation: Mapping[str, Mapping]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Rows of the opening table, empty ones left out: (label, anchor of the meaning, (value, interval) per split)."""
    rows = []
    for group, name, words, meaning in HEADLINE:
        cells = [
            (number(scores[group][name]), interval(scores[group], name)) if name in scores.get(group, {}) else ("", "")
            for scores in evaluation.values()
        ]
        if any(value for value, _ in cells):
            rows.append((words, meaning, cells))
    return rows


def _shown(example: gallery.Example, crowd: float) -> dict:
    """An example for the template: its words, and its panels as data URIs, `crowd` times smaller in area."""
    size = gallery.panel_size(example.image.shape[:2], gallery.COLUMNS * crowd)
    panels = [(name, _data_uri(_webp(panel(example, size)), "webp")) for name, panel in gallery.ROWS]
    return {
        "id": example.id,
        "caption": gallery.caption(example),
        "panels": panels,
        "height": size[0],
        "width": size[1],
    }


def _chart(figure: Figure) -> bytes:
    """A chart as SVG, CHART inches wide, without its title, as the caption says it."""
    copy = pickle.loads(pickle.dumps(figure))
    copy.suptitle("")
    copy.set_size_inches(CHART, copy.get_figheight())
    return vector_bytes(copy, "svg")


def _webp(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", quality=QUALITY, method=4)
    return buffer.getvalue()


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _column(name: str, texts: Sequence[str], labels: Mapping[str, str]) -> Column:
    """The column: numeric if every non-empty field is a number, with as many decimals as the file has, at most 3."""
    filled = [text for text in texts if text]
    try:
        numeric = (
            name not in ("id", "split", "group") and bool(filled) and all(math.isfinite(float(text)) for text in filled)
        )
    except ValueError:
        numeric = False
    decimals = max((len(text.partition(".")[2]) for text in filled), default=0) if numeric else 0
    return Column(name, labels.get(name, name.replace("_", " ")), numeric, min(decimals, 3))


def _values(column: Column, texts: Sequence[str]) -> list[float | int | str | None]:
    """A column's values for the page's script: null for an empty field."""
    if not column.numeric:
        return list(texts)
    return [(float(text) if column.decimals else int(text)) if text else None for text in texts]
