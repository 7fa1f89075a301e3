"""Charts: what is drawn is what was given, and nothing undefined stops them."""

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lesionseg.visualize import drawing, palette
from lesionseg.visualize.image_file import file_bytes, png_bytes

NOTHING = np.array([])
NAN = np.nan


def history(epochs: int) -> dict[str, np.ndarray]:
    epoch = np.arange(1.0, epochs + 1)
    names = ("train_loss", "val_loss", "train_dice", "val_dice", "train_iou", "val_iou")
    return {"epoch": epoch} | {name: 1 / (epoch + shift) for shift, name in enumerate(names)}


TITLES = {
    "val": "validation split, 5 images",
    "official_validation": "official validation",
    "official_test": "official test",
}


def words(figure) -> str:
    """All text of a chart."""
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_training_curves_are_the_history():
    given = history(20)
    given["val_dice"][6] = 0.875
    losses, scores = (axes := drawing.training_curves(given, [5], "best")).axes
    drawn = {line.get_label(): line for line in (*losses.lines, *scores.lines)}
    np.testing.assert_array_equal(drawn["loss, validation split"].get_ydata(), given["val_loss"])
    np.testing.assert_array_equal(drawn["Dice, training split"].get_ydata(), given["train_dice"])
    np.testing.assert_array_equal(drawn["IoU, validation split"].get_ydata(), given["val_iou"])
    np.testing.assert_array_equal(drawn["IoU, validation split"].get_xdata(), given["epoch"])
    assert "kept: epoch 5, the best Dice on validation" in words(axes)
    assert all(line.get_xdata()[0] == 5 for axes in (losses, scores) for line in axes.lines[-1:])
    assert (losses.get_xlabel(), losses.get_ylabel()) == ("epoch", "loss")


def test_one_epoch_is_a_visible_point():
    figure = drawing.training_curves(history(1))
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines)
    assert list(figure.axes[0].get_xticks()) == [1]


def test_confusion_matrix_shows_counts_and_shares_of_the_true_class():
    figure = drawing.confusion_matrix({"val": {"tp": 30, "fp": 50, "fn": 10, "tn": 1950}}, TITLES)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == ["97.5 %", "1,950 px", "2.5 %", "50 px", "25.0 %", "10 px", "75.0 %", "30 px"]


def test_a_class_without_pixels_has_no_shares():
    figure = drawing.confusion_matrix({"val": {"tp": 0, "fp": 5, "fn": 0, "tn": 5}}, TITLES)
    assert words(figure).count("no such pixels") == 2


def test_the_histogram_counts_every_image_once():
    dice = np.array([0.0, 0.31, 0.5, 0.5, 1.0, NAN])
    axes = drawing.dice_distribution({"val": dice}, TITLES).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 5
    assert axes.get_title(loc="left") == TITLES["val"]
    assert "mean 0.462" in words(axes.figure)
    assert "median 0.500" in words(axes.figure)


def test_dice_by_size_leaves_out_what_has_no_size():
    fraction, dice = np.array([0.0, 0.01, 0.2, 1.0]), np.array([1.0, 0.5, 0.8, 0.9])
    axes = drawing.dice_by_size({"val": (fraction, dice)}, TITLES, (0.05, 0.25)).axes[0]
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.column_stack([fraction, dice])[1:])
    assert [line.get_xdata()[0] for line in axes.lines[:2]] == [0.05, 0.25]
    low, high = axes.get_xlim()
    assert low < 0.01
    assert high > 1


def test_the_groups_of_the_medians_are_those_of_the_dotted_lines():
    fraction = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.9])
    dice = np.array([0.1, 0.3, 0.4, 0.5, 0.6, 0.8, 0.9])
    figure = drawing.dice_by_size({"val": (fraction, dice)}, TITLES, (0.05, 0.25))
    shown = words(figure)
    for expected in ("median 0.200\nn = 2", "median 0.500\nn = 3", "median 0.850\nn = 2"):
        assert expected in shown
    bars = [line for line in figure.axes[0].lines if line.get_color() == palette.INK]
    assert [tuple(bar.get_xdata()) for bar in bars][1] == (0.05, 0.25)
    assert [bar.get_ydata()[0] for bar in bars] == pytest.approx([0.2, 0.5, 0.85])


def sweep_of(dice, recall, precision):
    points = np.linspace(0.1, 0.9, len(dice))
    return dict(zip(drawing.SWEPT, map(np.asarray, (points, dice, dice, precision, recall)), strict=True))


def test_the_threshold_in_use_and_the_best_are_marked():
    sweep = sweep_of([0.2, 0.7, 0.4], [1.0, 0.8, 0.3], [0.1, 0.5, 0.9])
    figure = drawing.threshold_sweep(
        {"val": sweep, "official_test": sweep}, {"val": 0.5, "official_test": 0.43}, TITLES
    )
    assert "best Dice 0.700 at 0.50\nin use 0.43" in words(figure)
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert lines["threshold in use"].get_xdata()[0] == 0.43
    assert (lines["best Dice"].get_xdata()[0], lines["best Dice"].get_ydata()[0]) == (0.5, 0.7)
    assert "in use" not in words(drawing.threshold_sweep({"val": sweep}, {}, TITLES))


def test_precision_ends_where_nothing_is_predicted():
    sweep = sweep_of([0.0, 0.7, 0.0, 0.0], [0.0, 0.8, 0.0, 0.0], [0.0, 0.9, 0.0, 0.0])
    figure = drawing.threshold_sweep({"val": sweep}, {"val": 0.5}, TITLES)
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_array_equal(drawn["precision"], [0.0, 0.9, NAN, NAN])
    np.testing.assert_array_equal(drawn["recall"], [0.0, 0.8, 0.0, 0.0])


def test_an_undefined_curve_says_why():
    undefined = drawing.CurveWithArea(NOTHING, NOTHING, None, "no lesion pixel")
    defined = drawing.CurveWithArea(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0.5)
    figure = drawing.roc({"val": undefined, "official_test": defined}, TITLES)
    assert "validation split, 5 images: no curve,\nno lesion pixel" in words(figure)
    assert "official test\nAUC 0.500" in words(figure)
    assert "no lesion pixel" in words(drawing.precision_recall({"val": undefined}, TITLES))


EVALUATED = ("val", "test", "official_validation", "official_test", "external")


@pytest.mark.parametrize(("splits", "images"), [(("val",), 1), (EVALUATED, 0), (EVALUATED, 400)])
def test_any_number_of_images_and_splits_can_be_drawn_without_overlap(splits, images):
    random = np.random.default_rng(0)
    dice, fraction = random.uniform(0, 1, images), random.uniform(0, 1, images)
    bins = drawing.ReliabilityDiagram(NOTHING, NOTHING, NOTHING, None)
    one_bin = drawing.ReliabilityDiagram(np.array([0.3]), np.array([0.2]), np.array([7.0]), 0.1)
    titles = {split: f"{split.replace('_', ' ')}, {images} images, threshold 0.50" for split in splits}
    short = {split: words.removesuffix(", threshold 0.50") for split, words in titles.items()}
    counts = {"tp": images, "fp": 1, "fn": 2, "tn": 10**9}
    sweep = sweep_of([0.2, 0.7], [1.0, 0.3], [0.1, 0.9])
    for figure in (
        drawing.dice_distribution(dict.fromkeys(splits, dice), titles),
        drawing.dice_by_size(dict.fromkeys(splits, (fraction, dice)), titles, (0.05, 0.25)),
        drawing.calibration(dict.fromkeys(splits, one_bin if images else bins), short),
        drawing.confusion_matrix(dict.fromkeys(splits, counts), titles),
        drawing.threshold_sweep(dict.fromkeys(splits, sweep), dict.fromkeys(splits, 0.5), short),
    ):
        figure.set_dpi(100)
        overlap_free(figure)


def overlap_free(figure) -> None:
    """No text lies on another, and none is cut off by the edge."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    drawn, draw_text = {}, renderer.draw_text
    renderer.draw_text = lambda *given, mtext=None, **more: (drawn.setdefault(mtext), draw_text(*given, **more))
    figure.draw(renderer)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in drawn if text is not None]
    assert boxes
    width, height = canvas.get_width_height()
    for words, box in boxes:
        assert -1 <= box.x0 < box.x1 <= width + 1, words
        assert -1 <= box.y0 < box.y1 <= height + 1, words
    for (one, box), (other, second) in itertools.combinations(boxes, 2):
        assert not box.padded(-1).overlaps(second), (one, other)


def test_the_same_numbers_give_the_same_bytes_whatever_the_users_style():
    plain = png_bytes(drawing.training_curves(history(5)))
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9}):
        assert png_bytes(drawing.training_curves(history(5))) == plain
        assert matplotlib.rcParams["font.size"] == 30, "and the user's style is left as it was"


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_vector_files_are_the_same_bytes_and_name_no_time(kind):
    first, second = (file_bytes(drawing.training_curves(history(5), [3]), kind) for _ in range(2))
    assert first == second
    for stamp in (b"CreationDate", b"dc:date", b"Matplotlib"):
        assert stamp not in first


def test_no_chart_touches_the_global_state_of_pyplot():
    script = "import sys, lesionseg.visualize.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_colours_of_one_chart_can_be_told_apart_without_colour_vision():
    """Machado, Oliveira and Fernandes (2009): simulated deuteranopia and protanopia, in linear RGB."""
    simulations = (
        np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
        np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    )
    together = (palette.TRUTH, palette.PREDICTION, palette.AGREEMENT)
    for group in (together, (palette.TRAINING, palette.VALIDATION), tuple(palette.SPLITS.values())[1:]):
        linear = (np.array([palette.hex_to_rgb(colour) for colour in group]) / 255) ** 2.2
        for matrix in simulations:
            seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
            apart = np.linalg.norm(seen[:, None] - seen, axis=-1)[np.triu_indices(len(group), 1)]
            assert apart.min() > 0.2, group


def test_the_pixels_of_the_calibration_are_numbers_and_no_formula():
    bins = drawing.ReliabilityDiagram(np.array([0.1, 0.9]), np.array([0.2, 0.8]), np.array([1_500_000, 90]), 0.1)
    figure = drawing.calibration({"val": bins}, TITLES)
    figure.draw_without_rendering()  # the ticks are known then
    drawn = words(figure)
    assert "1,000,000" in drawn
    assert "$" not in drawn
