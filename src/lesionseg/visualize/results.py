"""The outputs of the evaluation, read back and checked against each other before anything is drawn."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionseg.common.errors import InputError
from lesionseg.common.files import read_csv
from lesionseg.formats.evaluation_tables import CURVES, PER_IMAGE, SAMPLES
from lesionseg.formats.processed import EVALUATED
from lesionseg.formats.weights_file import TRAINED_FILE, read_metadata


@dataclass(frozen=True)
class Table:
    """A CSV file as columns, in file order."""

    path: Path
    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def texts(self, name: str) -> list[str]:
        """A column as it stands in the file."""
        return self.columns[name]

    def numbers(self, name: str) -> np.ndarray:
        """A column as float64 (rows,); NaN where the field is empty, as undefined scores are."""
        try:
            return np.array([float(text) if text else np.nan for text in self.columns[name]], dtype=np.float64)
        except ValueError as error:
            raise InputError(f"{self.path}: column '{name}': {error}; run `dvc repro --force evaluate`") from None

    def where(self, name: str, value: str) -> "Table":
        """The rows whose field `name` is `value`."""
        rows = [row for row, text in enumerate(self.columns[name]) if text == value]
        return Table(self.path, {key: [texts[row] for row in rows] for key, texts in self.columns.items()})


def read_table(path: str | Path, required: tuple[str, ...]) -> Table:
    """Read a CSV file. Raises InputError if it is missing or lacks one of the `required` columns."""
    path = Path(path)
    try:
        rows = read_csv(path)
        with open(path, encoding="utf-8") as file:
            header = file.readline().strip().split(",")
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run `dvc repro`") from None
    if missing := [name for name in required if name not in header]:
        raise InputError(f"{path}: no column {', '.join(missing)} among {', '.join(header)}; run `dvc repro --force`")
    return Table(path, {name: [row[name] or "" for row in rows] for name in header})


def read_json(path: str | Path) -> dict:
    """Read a JSON object. Raises InputError if the file is missing or not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run `dvc repro`") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); run `dvc repro --force`") from None


# of the evaluation -> the columns that the pictures need
TABLES = {"per_image": (*PER_IMAGE, "dice", "iou", "lesion_fraction")} | {
    name: columns for name, columns in CURVES.items() if name != "confusion"
}
HISTORY = ("epoch", "train_loss", "train_dice", "train_iou", "val_loss", "val_dice", "val_iou")


@dataclass(frozen=True)
class Results:
    """Every number and table of one evaluation."""

    evaluation: dict[str, dict]  # split -> its scores and breakdowns, in the order of EVALUATED
    labels: dict[str, str]  # of the columns of per_image that are metrics, for the page
    tables: dict[str, Table]  # name in TABLES -> table
    history: Table  # of the training
    network: dict  # the metadata of the weights
    weights_sha256: str  # of the weights file

    def by_split(self, table: str, column: str) -> dict[str, np.ndarray]:
        """A numeric column of a table for each split."""
        return {split: self.tables[table].where("split", split).numbers(column) for split in self.evaluation}


def read_results(evaluation: str | Path, tables: str | Path, model: str | Path) -> Results:
    """Read detail.json, the CSV tables (history.csv among them) and the metadata of the weights.

    Each argument is a folder. Raises InputError with a line for every file that is missing, damaged or foreign.
    """
    folder, tables, model = Path(evaluation), Path(tables), Path(model)
    problems: list[str] = []

    def attempt(read: Callable, *arguments):
        try:
            return read(*arguments)
        except InputError as error:
            problems.extend(error.problems)

    detail = attempt(read_detail, folder / "detail.json")
    read = {name: attempt(read_table, tables / f"{name}.csv", columns) for name, columns in TABLES.items()}
    history = attempt(read_table, tables / "history.csv", HISTORY)
    network = attempt(read_metadata, model / TRAINED_FILE)
    if history is not None and not len(history):
        problems.append(f"{history.path}: no epoch in it; run `dvc repro --force train`")
    if problems:
        raise InputError(problems)
    ordered = {split: detail["splits"][split] for split in EVALUATED if split in detail["splits"]}
    with open(model / TRAINED_FILE, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Results(ordered, detail["labels"], read, history, network, digest)


def read_detail(path: Path) -> dict:
    """Read detail.json. Raises InputError if it is missing or damaged, or names unknown splits."""
    detail = read_json(path)
    if missing := {"splits", "labels"} - detail.keys():
        raise InputError(f"{path}: no {' and no '.join(sorted(missing))} in it; run `dvc repro --force evaluate`")
    if unknown := set(detail["splits"]) - set(EVALUATED):
        raise InputError(f"{path}: split {', '.join(sorted(unknown))}, expected {', '.join(EVALUATED)}")
    return detail


@dataclass(frozen=True)
class Predictions:
    """The predictions of the evaluated images. Row i of each field belongs to the same image."""

    ids: list[str]
    splits: list[str]
    rows: list[int]  # of the image in the processed arrays
    probabilities: np.ndarray  # uint8 (M, H, W), 255 stands for 1
    predicted: np.ndarray  # uint8 (M, H, W), 0 and 1


def read_predictions(folder: str | Path, images: int, shape: Sequence[int]) -> Predictions:
    """Map the predictions into memory, read-only.

    `images` and `shape` (H, W) are the length and the image size of the processed arrays, which the
    predictions must fit. Raises InputError if a file is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    table = read_table(folder / "samples.csv", SAMPLES)
    rows = [int(number) for number in table.numbers("index")]
    arrays, problems = {}, []
    for name in ("probabilities", "predicted"):
        path = folder / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            problems.append(f"{path}: not found; run `dvc repro evaluate`")
        except ValueError as error:
            problems.append(f"{path}: not a whole .npy file ({error}); run `dvc repro --force evaluate`")
        else:
            expected = (len(rows), *shape)
            if arrays[name].dtype != np.uint8 or arrays[name].shape != expected:
                problems.append(
                    f"{path}: {arrays[name].dtype} {arrays[name].shape}, expected uint8 {expected}; "
                    "run `dvc repro --force evaluate`"
                )
    if foreign := [row for row in rows if not 0 <= row < images]:
        problems.append(
            f"{folder / 'samples.csv'}: index {foreign[0]} is outside the {images} processed images; "
            "run `dvc repro --force evaluate`"
        )
    if problems:
        raise InputError(problems)
    return Predictions(table.texts("id"), table.texts("split"), rows, arrays["probabilities"], arrays["predicted"])
