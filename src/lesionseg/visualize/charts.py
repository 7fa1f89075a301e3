"""Which charts an evaluation gets, and the words that explain each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from lesionseg.visualize import drawing
from lesionseg.visualize.results import HISTORY, Results


@dataclass(frozen=True)
class Chart:
    """A chart, its file name, and the words beside it."""

    name: str
    title: str
    caption: str  # how to read it
    figure: Figure


def charts(results: Results) -> Iterator[Chart]:
    """Every chart of an evaluation, in the order in which the report page shows them."""
    evaluation, tables = results.evaluation, results.tables
    history, network = results.history, results.network
    images, pixels = titles(results, cut=True), titles(results)
    yield Chart(
        "training_curves",
        "Training",
        "Loss, Dice and IoU by epoch, pooled over all pixels at threshold 0.5, on the images trained on (grey) and "
        "on the validation split (blue). Where the two drift apart, the network has begun to overfit. The dotted line "
        "is the epoch whose weights were kept.",
        drawing.training_curves(
            {name: history.numbers(name) for name in HISTORY},
            [int(epoch) for epoch in str(network.get("epoch", "")).split(",") if epoch],
            network.get("keep", "last"),
        ),
    )
    yield Chart(
        "confusion_matrix",
        "Confusion matrix",
        "All pixels at the network's resolution by true and predicted class; the shares of a row add up to 100 %.",
        drawing.confusion_matrix({split: part["confusion"] for split, part in evaluation.items()}, images),
    )
    yield Chart(
        "dice_distribution",
        "Distribution of Dice",
        "The number of images by their Dice. A mean far below the median points to a few bad failures.",
        drawing.dice_distribution(results.by_split("per_image", "dice"), images),
    )
    sizes = results.by_split("per_image", "lesion_fraction")
    dice = results.by_split("per_image", "dice")
    yield Chart(
        "dice_by_size",
        "Dice by lesion size",
        "Each dot is an image. An outline that is off by a pixel costs small lesions more Dice. Dotted lines separate "
        "the size classes of the breakdown; bars are the medians of the classes.",
        drawing.dice_by_size(
            {split: (sizes[split], dice[split]) for split in sizes}, images, _size_classes(results.evaluation)
        ),
    )
    sweep = tables["thresholds"]
    yield Chart(
        "thresholds",
        "Scores by threshold",
        "Scores of all pixels together, were the threshold a different one. A flat top means that the choice hardly "
        "matters. Precision ends where no lesion is found any more.",
        drawing.threshold_sweep(
            {
                split: {name: sweep.where("split", split).numbers(name) for name in drawing.SWEPT}
                for split in evaluation
            },
            {split: part.get("threshold") for split, part in evaluation.items()},
            pixels,
        ),
    )
    yield Chart(
        "calibration",
        "Calibration",
        "Of the pixels given a probability, the share that really are lesion: above the dashed line more than "
        "predicted, below it fewer. ECE, the expected calibration error, is the mean gap. The lower panel shows how "
        "many pixels were given each probability.",
        drawing.calibration({split: _reliability(results, split) for split in evaluation}, pixels),
    )
    yield Chart(
        "precision_recall",
        "Precision and recall",
        "Precision and recall over all pixels at every threshold. AP, the average precision, is the area below.",
        drawing.precision_recall(
            {split: _curve(results, split, "precision_recall", "recall", "precision") for split in evaluation},
            pixels,
        ),
    )
    yield Chart(
        "roc",
        "ROC",
        "The share of lesion pixels found against the share of other pixels mistaken for lesion, at every threshold. "
        "AUC is the area below.",
        drawing.roc(
            {split: _curve(results, split, "roc", "false_positive_rate", "true_positive_rate") for split in evaluation},
            pixels,
        ),
    )


def split_name(split: str) -> str:
    """A split in words."""
    return {"val": "validation split", "test": "test split", "external": "external set"}.get(
        split, split.replace("_", " ")
    )


def titles(results: Results, cut: bool = False) -> dict[str, str]:
    """The title of each split's panels: its name, its number of images and, with `cut`, the threshold in use."""
    words = {}
    for split, part in results.evaluation.items():
        count = part["images"]
        words[split] = f"{split_name(split)}, {count:,} image{'' if count == 1 else 's'}"
        if cut and part.get("threshold") is not None:
            words[split] += f", threshold {part['threshold']:.2f}"
    return words


_AREAS = {"precision_recall": "average_precision", "roc": "roc_auc"}


def _curve(results: Results, split: str, table: str, x: str, y: str) -> drawing.CurveWithArea:
    points, areas = results.tables[table].where("split", split), results.evaluation[split]["areas"]
    name = _AREAS[table]
    return drawing.CurveWithArea(points.numbers(x), points.numbers(y), areas[name], areas.get(f"{name}_reason", ""))


def _reliability(results: Results, split: str) -> drawing.ReliabilityDiagram:
    bins = results.tables["calibration"].where("split", split)
    error = results.evaluation[split]["calibration"]["expected_calibration_error"]
    return drawing.ReliabilityDiagram(
        bins.numbers("predicted"), bins.numbers("observed"), bins.numbers("pixels"), error
    )


def _size_classes(evaluation: Mapping[str, Mapping]) -> list[float]:
    """The lesion fractions between small, medium and large; they are the same in every split."""
    classes = next(iter(evaluation.values()))["by_size"]
    return [classes["medium"]["from"], classes["large"]["from"]]
