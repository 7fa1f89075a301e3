"""An evaluation as CSV tables: the scores of every image, and curves as DVC's plot templates take them."""

from collections.abc import Mapping
from pathlib import Path

from lesionseg.common.files import write_csv
from lesionseg.evaluate.calibration import reliability
from lesionseg.evaluate.curves import Curve, precision_recall, roc, thinned
from lesionseg.evaluate.split_scores import SplitScores
from lesionseg.evaluate.sweep import COLUMNS as SWEEP

DIGITS = 4


def write_tables(folder: Path, splits: Mapping[str, SplitScores]) -> None:
    """Write per_image.csv and the curves of every split to `folder`.

    thresholds.csv, calibration.csv, precision_recall.csv, roc.csv and confusion.csv have one row per point, at most 101
    per split, and none where a curve is undefined. Every table has a column `split`.
    """
    rows = [{"id": row.pop("id"), "split": split, **row} for split, scored in splits.items() for row in scored.table()]
    write_csv(folder / "per_image.csv", list(rows[0]), rows)
    sweeps = {split: scored.sweep for split, scored in splits.items()}
    _write(folder / "thresholds.csv", SWEEP, {split: sweep.rows() for split, sweep in sweeps.items()})
    _write(
        folder / "calibration.csv",
        ("predicted", "observed", "pixels"),
        {split: reliability(sweep.histogram).rows() for split, sweep in sweeps.items()},
    )
    _write(
        folder / "precision_recall.csv",
        ("recall", "precision", "threshold"),
        {split: _points(precision_recall(sweep.histogram)[0]) for split, sweep in sweeps.items()},
    )
    _write(
        folder / "roc.csv",
        ("false_positive_rate", "true_positive_rate", "threshold"),
        {split: _points(roc(sweep.histogram)[0]) for split, sweep in sweeps.items()},
    )
    _write(
        folder / "confusion.csv",
        ("actual", "predicted", "count"),
        {split: scored.confusion() for split, scored in splits.items()},
    )


def _points(curve: Curve | None) -> list[tuple]:
    return [] if curve is None else list(zip(*thinned(curve), strict=True))


def _write(path: Path, columns: tuple[str, ...], tables: Mapping[str, list[tuple]]) -> None:
    write_csv(
        path,
        ("split", *columns),
        (
            {"split": split} | {name: _text(value) for name, value in zip(columns, row, strict=True)}
            for split, rows in tables.items()
            for row in rows
        ),
    )


def _text(value) -> str | int:
    return value if isinstance(value, str | int) else f"{value:.{DIGITS}f}"
