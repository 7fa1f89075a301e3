"""Charts: what is drawn is what was given, and nothing undefined stops them."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from lesionseg.visualize import figures, palette
from lesionseg.visualize.png import png_bytes

NOTHING = np.array([])
NAN = np.nan


def history(epochs: int) -> dict[str, np.ndarray]:
    epoch = np.arange(1.0, epochs + 1)
    names = ("train_loss", "val_loss", "train_dice", "val_dice", "train_iou", "val_iou")
    return {"epoch": epoch} | {name: 1 / (epoch + shift) for shift, name in enumerate(names)}


def words(figure) -> str:
    """All text of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_training_curves_are_the_history():
    given = history(20)
    given["val_dice"][6] = 0.875
    losses, scores = (axes := figures.training_curves(given)).axes
    drawn = {line.get_label(): line for line in (*losses.lines, *scores.lines)}
    np.testing.assert_array_equal(drawn["validation"].get_ydata(), given["val_loss"])
    np.testing.assert_array_equal(drawn["Dice, training"].get_ydata(), given["train_dice"])
    np.testing.assert_array_equal(drawn["IoU, validation"].get_ydata(), given["val_iou"])
    np.testing.assert_array_equal(drawn["IoU, validation"].get_xdata(), given["epoch"])
    assert "best 0.875 at epoch 7" in words(axes)
    assert (losses.get_xlabel(), losses.get_ylabel()) == ("epoch", "loss")


def test_one_epoch_is_a_visible_point():
    figure = figures.training_curves(history(1))
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines)
    assert list(figure.axes[0].get_xticks()) == [1]


def test_confusion_matrix_shows_counts_and_shares_of_the_true_class():
    figure = figures.confusion_matrix({"val": {"tp": 30, "fp": 50, "fn": 10, "tn": 1950}})
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == ["97.5%", "1,950 px", "2.5%", "50 px", "25.0%", "10 px", "75.0%", "30 px"]


def test_a_class_without_pixels_has_no_shares():
    figure = figures.confusion_matrix({"val": {"tp": 0, "fp": 5, "fn": 0, "tn": 5}})
    assert words(figure).count("no such pixels") == 2


def test_the_histogram_counts_every_image_once():
    dice = np.array([0.0, 0.31, 0.5, 0.5, 1.0, NAN])
    axes = figures.dice_distribution({"val": dice}).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 5
    assert axes.get_title(loc="left") == "validation split: 5 images"
    assert "mean 0.462" in words(axes.figure)
    assert "median 0.500" in words(axes.figure)


def test_dice_by_size_leaves_out_what_has_no_size():
    fraction, dice = np.array([0.0, 0.01, 0.2, 1.0]), np.array([1.0, 0.5, 0.8, 0.9])
    axes = figures.dice_by_size({"val": (fraction, dice)}, (0.05, 0.25)).axes[0]
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.column_stack([fraction, dice])[1:])
    assert [line.get_xdata()[0] for line in axes.lines] == [0.05, 0.25]
    low, high = axes.get_xlim()
    assert low < 0.01
    assert high > 1


def test_the_line_of_medians_follows_the_trend():
    fraction = np.random.default_rng(0).uniform(0.01, 1, 400)
    axes = figures.dice_by_size({"val": (fraction, fraction**0.5)}).axes[0]
    line = axes.lines[-1]
    assert len(line.get_xdata()) == 12
    np.testing.assert_allclose(line.get_ydata(), line.get_xdata() ** 0.5, rtol=1e-3)


def test_the_threshold_in_use_is_marked():
    sweep = {name: np.linspace(0.1, 0.9, 9) for name in figures.SWEPT}
    figure = figures.threshold_sweep({"val": sweep, "official_test": sweep}, {"val": 0.5, "official_test": 0.43})
    assert "in use: 0.43" in words(figure)
    assert figure.axes[1].lines[-1].get_xdata()[0] == 0.43
    assert "in use" not in words(figures.threshold_sweep({"val": sweep}, {}))


def test_an_undefined_curve_says_why():
    undefined = figures.Curve(NOTHING, NOTHING, None, "no lesion pixel")
    defined = figures.Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0.5)
    figure = figures.roc({"val": undefined, "official_test": defined})
    assert "validation split: undefined,\nno lesion pixel" in words(figure)
    assert "official test, AUC 0.500" in words(figure)
    assert "no lesion pixel" in words(figures.precision_recall({"val": undefined}))


@pytest.mark.parametrize("splits", [("val",), ("val", "official_validation", "official_test")])
@pytest.mark.parametrize("images", [0, 1, 400])
def test_every_chart_can_be_drawn_from_any_number_of_images(splits, images):
    random = np.random.default_rng(0)
    dice, fraction = random.uniform(0, 1, images), random.uniform(0, 1, images)
    bins = figures.Reliability(NOTHING, NOTHING, NOTHING, None)
    one_bin = figures.Reliability(np.array([0.3]), np.array([0.2]), np.array([7.0]), 0.1)
    for figure in (
        figures.dice_distribution(dict.fromkeys(splits, dice)),
        figures.dice_by_size(dict.fromkeys(splits, (fraction, dice)), (0.05, 0.25)),
        figures.calibration(dict.fromkeys(splits, one_bin if images else bins)),
    ):
        content = png_bytes(figure)
        assert len(content) < 60_000


def test_the_same_numbers_give_the_same_bytes_whatever_the_users_style():
    plain = png_bytes(figures.training_curves(history(5)))
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9}):
        assert png_bytes(figures.training_curves(history(5))) == plain
        assert matplotlib.rcParams["font.size"] == 30, "and the user's style is left as it was"


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
        linear = (np.array([palette.rgb(colour) for colour in group]) / 255) ** 2.2
        for matrix in simulations:
            seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
            apart = np.linalg.norm(seen[:, None] - seen, axis=-1)[np.triu_indices(len(group), 1)]
            assert apart.min() > 0.2, group
