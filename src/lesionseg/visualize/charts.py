"""Which charts an evaluation gets, and the words that explain each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from lesionseg.visualize import figures
from lesionseg.visualize.results import Results


@dataclass(frozen=True)
class Chart:
    """A chart, its file name, and the words beside it."""

    name: str
    title: str
    caption: str  # how to read it
    figure: Figure


def charts(results: Results) -> Iterator[Chart]:
    """Every chart of an evaluation, in the order in which a report shows them."""
    evaluation, tables = results.evaluation, results.tables
    history = results.history
    yield Chart(
        "training_curves",
        "Training",
        "Loss, Dice and IoU by epoch, pooled over all pixels at threshold 0.5, on the images trained on (grey) and "
        "on the validation split (blue). Where the two drift apart, the network has begun to memorise.",
        figures.training_curves({name: history.numbers(name) for name in history.columns}),
    )
    yield Chart(
        "confusion_matrix",
        "Confusion matrix",
        "All pixels at the network's resolution by true and predicted class; the shares of a row add up to 100 %.",
        figures.confusion_matrix({split: part["confusion"] for split, part in evaluation.items()}),
    )
    yield Chart(
        "dice_distribution",
        "Distribution of Dice",
        "How many images reach which Dice. A mean far below the median tells of few but bad failures.",
        figures.dice_distribution(results.by_split("per_image", "dice")),
    )
    sizes = results.by_split("per_image", "lesion_fraction")
    dice = results.by_split("per_image", "dice")
    yield Chart(
        "dice_by_size",
        "Dice by lesion size",
        "Each dot is an image. Small lesions lose more Dice to an outline that is off by a pixel. Dotted lines part "
        "the size classes of the breakdown.",
        figures.dice_by_size({split: (sizes[split], dice[split]) for split in sizes}, _size_classes(results.detail)),
    )
    sweep = tables["thresholds"]
    yield Chart(
        "thresholds",
        "Scores by threshold",
        "Pooled scores if a pixel counted as lesion from another probability on. A flat top means that the choice "
        "hardly matters.",
        figures.threshold_sweep(
            {
                split: {name: sweep.where("split", split).numbers(name) for name in figures.SWEPT}
                for split in evaluation
            },
            {split: part.get("threshold") for split, part in evaluation.items()},
        ),
    )
    yield Chart(
        "calibration",
        "Calibration",
        "Of the pixels given a probability, the share that really is lesion. Below the dashed line the network is too "
        "sure of lesion. ECE is the expected calibration error, the mean gap.",
        figures.calibration({split: _reliability(results, split) for split in evaluation}),
    )
    yield Chart(
        "precision_recall",
        "Precision and recall",
        "Every threshold's precision and recall over all pixels. AP, the average precision, is the area below.",
        figures.precision_recall(
            {split: _curve(results, split, "precision_recall", "recall", "precision") for split in evaluation}
        ),
    )
    yield Chart(
        "roc",
        "ROC",
        "Every threshold's share of lesion pixels found, against the share of other pixels taken for lesion. AUC is "
        "the area below.",
        figures.roc(
            {split: _curve(results, split, "roc", "false_positive_rate", "true_positive_rate") for split in evaluation}
        ),
    )


_AREAS = {"precision_recall": "average_precision", "roc": "roc_auc"}


def _curve(results: Results, split: str, table: str, x: str, y: str) -> figures.Curve:
    points, areas = results.tables[table].where("split", split), results.evaluation[split]["areas"]
    name = _AREAS[table]
    return figures.Curve(points.numbers(x), points.numbers(y), areas[name], areas.get(f"{name}_reason", ""))


def _reliability(results: Results, split: str) -> figures.Reliability:
    bins = results.tables["calibration"].where("split", split)
    error = results.evaluation[split]["calibration"]["expected_calibration_error"]
    return figures.Reliability(bins.numbers("predicted"), bins.numbers("observed"), bins.numbers("pixels"), error)


def _size_classes(detail: Mapping[str, Mapping]) -> list[float]:
    """The lesion fractions between small, medium and large; they are the same in every split."""
    classes = next(iter(detail.values()))["by_size"]
    return [classes["small"]["lesion_fraction_below"], classes["large"]["lesion_fraction_from"]]
