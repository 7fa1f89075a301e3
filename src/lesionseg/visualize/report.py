"""The evaluation as one HTML page that needs nothing else: pictures, styles and the table's script are inside it."""

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
import numpy as np
from PIL import Image

from lesionseg.visualize import gallery, palette
from lesionseg.visualize.charts import Chart
from lesionseg.visualize.results import Results

QUALITY = 82  # WebP of the gallery panels
FULL_SIZE = 96  # examples on the page from which on panels shrink: it stays under 4 MB with three splits of 64
HEADLINE = (  # figures of a split, by group and name, that open the page
    ("per_image", "dice", "Dice, mean over images"),
    ("per_image", "iou", "IoU (Jaccard), mean over images"),
    ("pooled", "dice", "Dice, pooled over all pixels"),
    ("pooled", "iou", "IoU (Jaccard), pooled over all pixels"),
    ("official", "threshold_jaccard", "ISIC 2018 score: mean threshold Jaccard at native size"),
    ("official", "failure_rate", "Failures: share of images with a Jaccard below 0.65"),
    ("boundary", "hd95", "Hausdorff distance, 95th percentile, in pixels at native size"),
)
LABELS = {  # of columns of the table of images whose name does not say it all
    "dice": "Dice",
    "iou": "IoU",
    "jaccard_native": "Jaccard at native size",
    "dice_native": "Dice at native size",
    "hd95": "HD95, px",
    "mean_surface_distance": "surface distance, px",
    "touches_border": "touches border (1: yes)",
}
BROAD, SMALLEST = 700, 0.6  # a chart at least this many pixels wide shrinks to this share on a phone, then scrolls
BREAKDOWNS = {"by_size": "By lesion size", "by_border": "By lesion touching the border"}
BROKEN_DOWN = ("images", "dice", "iou", "precision", "recall", "threshold_jaccard", "failure_rate", "hd95")


@dataclass(frozen=True)
class Column:
    """A column of the table of images."""

    name: str
    label: str
    numeric: bool
    decimals: int


def render(
    results: Results,
    galleries: Sequence[gallery.Gallery],
    charts: Sequence[tuple[Chart, bytes]],
    origins: Mapping[str, Mapping],
) -> str:
    """The page.

    `charts` come with their PNG bytes. `origins` are what the figures come from, settings and data: title -> nested
    keys and values.
    """
    table = results.tables["per_image"]
    merged = {split: _merged(figures, results.detail[split]) for split, figures in results.evaluation.items()}
    crowd = max(1.0, sum(len(each.examples) for each in galleries) / FULL_SIZE)
    columns = [_column(name, texts) for name, texts in table.columns.items()]
    rows = list(zip(*(_values(column, table.texts(column.name)) for column in columns), strict=True))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("lesionseg.visualize").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        splits={split: figures["images"] for split, figures in results.evaluation.items()},
        headline=_headline(merged),
        breakdowns={split: _breakdowns(results.detail[split]) for split in merged},
        figures={split: figure_rows(figures) for split, figures in merged.items()},
        galleries=[
            (each.kind, each.split, [_shown(example, crowd) for example in each.examples]) for each in galleries
        ],
        charts=[(chart.title, chart.caption, _data_uri(png, "png"), _smallest(png)) for chart, png in charts],
        columns=columns,
        rows=rows,
        origins={title: setting_rows(values) for title, values in origins.items()},
        palette=palette,
    )
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page.replace("script-src 'sha256-'", f"script-src 'sha256-{digest}'", 1)


def figure_rows(nested: Mapping, group: str = "") -> list[tuple[str, str, str]]:
    """Flatten nested figures to rows (name, value, interval), all texts, in the given order; not the breakdowns."""
    rows = []
    for name, value in nested.items():
        path = f"{group} · {name}" if group else name
        if isinstance(value, Mapping):
            rows += [] if name in BREAKDOWNS else figure_rows(value, path)
        elif not _is_bound(name, nested):
            rows.append((path, number(value), interval(nested, name)))
    return rows


def _breakdowns(detail: Mapping[str, Mapping]) -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
    """Tables of a split's groups of images: (title, columns, rows), a row being (group, values)."""
    labels = [LABELS.get(name, name.replace("_", " ")) for name in BROKEN_DOWN]

    def cells(figures: Mapping) -> list[str]:
        return ["–" if figures[name] is None else number(figures[name]) for name in BROKEN_DOWN]

    return [
        (title, labels, [(group, cells(figures)) for group, figures in detail[key].items()])
        for key, title in BREAKDOWNS.items()
    ]


def setting_rows(nested: Mapping, group: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings or counts to rows (name, value); a group of single values is one row."""
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
    """A value as the page shows it: grouped integers, few decimals, a word for what is undefined."""
    if value is None:
        return "undefined"
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


def interval(figures: Mapping, name: str) -> str:
    """The interval of a figure, or nothing."""
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def _merged(figures: Mapping, detail: Mapping) -> dict:
    """Both as one: the groups of `detail` continue those of `figures`."""
    merged = dict(figures)
    for name, value in detail.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = {**merged[name], **value} if both else value
    return merged


def _is_bound(name: str, figures: Mapping) -> bool:
    stem, _, end = name.rpartition("_")
    return end in ("low", "high") and stem in figures


def _headline(evaluation: Mapping[str, Mapping]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Rows of the opening table: (words, one (value, interval) for each split); figures no split has are left out."""
    rows = []
    for group, name, words in HEADLINE:
        cells = [
            (number(figures[group][name]), interval(figures[group], name))
            if name in figures.get(group, {})
            else ("", "")
            for figures in evaluation.values()
        ]
        if any(value for value, _ in cells):
            rows.append((words, cells))
    return rows


def _shown(example: gallery.Example, crowd: float) -> dict:
    """An example as the template takes it: its words and its panels as data URIs, `crowd` times smaller in area."""
    size = gallery.panel_size(example.image.shape[:2], gallery.COLUMNS * crowd)
    panels = [(name, _data_uri(_webp(panel(example, size)), "webp")) for name, panel in gallery.ROWS]
    return {
        "id": example.id,
        "caption": gallery.caption(example),
        "panels": panels,
        "height": size[0],
        "width": size[1],
    }


def _smallest(png: bytes) -> int:
    """The width in pixels below which a chart does not shrink; 0: it always fits the screen."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return round(SMALLEST * picture.width) if picture.width >= BROAD else 0


def _webp(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", quality=QUALITY, method=4)
    return buffer.getvalue()


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _column(name: str, texts: Sequence[str]) -> Column:
    """What a column holds: numbers when every field that is not empty is one, with the decimals of the file."""
    filled = [text for text in texts if text]
    try:
        numeric = name not in ("id", "split") and bool(filled) and all(math.isfinite(float(text)) for text in filled)
    except ValueError:
        numeric = False
    decimals = max((len(text.partition(".")[2]) for text in filled), default=0) if numeric else 0
    return Column(name, LABELS.get(name, name.replace("_", " ")), numeric, min(decimals, 3))


def _values(column: Column, texts: Sequence[str]) -> list[float | int | str | None]:
    """A column's values for the page's script: null for an empty field."""
    if not column.numeric:
        return list(texts)
    return [(float(text) if column.decimals else int(text)) if text else None for text in texts]
