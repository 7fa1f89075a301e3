"""An evaluation as CSV tables: the scores of every image, and curves as DVC's plot templates take them."""

from collections.abc import Mapping
from pathlib import Path

from lesionseg.common.files import write_csv
from lesionseg.evaluate.calibration import reliability
from lesionseg.evaluate.curves import Curve, precision_recall, roc, thinned
from lesionseg.evaluate.split_scores import SplitScores
from lesionseg.formats.evaluation_tables import CURVES, PER_IMAGE

DIGITS = 4


def write_tables(folder: Path, splits: Mapping[str, SplitScores]) -> None:
    """Write per_image.csv and the curves of every split to `folder`.

    thresholds.csv, calibration.csv, precision_recall.csv, roc.csv and confusion.csv have one row per point, at most 101
    per split, and none where a curve is undefined. Every table has a column `split`.
    """
    rows = [
        dict(zip(PER_IMAGE, (row.pop("id"), split), strict=True)) | row
        for split, scored in splits.items()
        for row in scored.table()
    ]
    write_csv(folder / "per_image.csv", list(rows[0]), rows)
    sweeps = {split: scored.sweep for split, scored in splits.items()}
    points: dict[str, dict[str, list[tuple]]] = {
        "thresholds": {split: sweep.rows() for split, sweep in sweeps.items()},
        "calibration": {split: reliability(sweep.histogram).rows() for split, sweep in sweeps.items()},
        "precision_recall": {split: _points(precision_recall(sweep.histogram)[0]) for split, sweep in sweeps.items()},
        "roc": {split: _points(roc(sweep.histogram)[0]) for split, sweep in sweeps.items()},
        "confusion": {split: scored.confusion() for split, scored in splits.items()},
    }
    for name, columns in CURVES.items():
        _write(folder / f"{name}.csv", columns, points[name])


def _points(curve: Curve | None) -> list[tuple]:
    return [] if curve is None else list(zip(*thinned(curve), strict=True))


def _write(path: Path, columns: tuple[str, ...], tables: Mapping[str, list[tuple]]) -> None:
    write_csv(
        path,
        columns,
        (
            {name: _text(value) for name, value in zip(columns, (split, *row), strict=True)}
            for split, rows in tables.items()
            for row in rows
        ),
    )


def _text(value) -> str | int:
    return value if isinstance(value, str | int) else f"{value:.{DIGITS}f}"
