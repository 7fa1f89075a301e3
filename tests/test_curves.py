"""Curves, areas, calibration and the threshold sweep against scikit-learn; what is undefined says why."""

import numpy as np
import pytest
import sklearn.metrics
from sklearn.calibration import calibration_curve

from lesionseg.evaluate.calibration import brier_score, reliability
from lesionseg.evaluate.curves import POINTS, precision_recall, roc, thinned
from lesionseg.evaluate.histogram import counts_by_level, histogram
from lesionseg.evaluate.sweep import COLUMNS, THRESHOLDS, Sweep
from lesionseg.inference.settings import level


@pytest.fixture(scope="module", params=["spread", "few values", "saturated"])
def image(request) -> tuple[np.ndarray, np.ndarray]:
    """8-bit probabilities and truth that agree more or less."""
    random = np.random.default_rng(3)
    truth = (random.random((64, 80)) < 0.3).astype(np.uint8)
    probabilities = np.clip(random.normal(0.3 + 0.3 * truth, 0.25), 0, 1)
    if request.param == "few values":
        probabilities = probabilities.round(1)
    if request.param == "saturated":
        probabilities = np.clip(3 * probabilities - 1, 0, 1)
    return np.rint(probabilities * 255).astype(np.uint8), truth


def test_a_histogram_counts_each_pixel_once(image):
    probabilities, truth = image
    table = histogram(probabilities, truth)
    assert table.shape == (2, 256)
    for value in range(256):
        for actual in (0, 1):
            assert table[actual, value] == np.sum((probabilities == value) & (truth == actual))


def test_roc_is_that_of_scikit_learn(image):
    probabilities, truth = (array.ravel() for array in image)
    curve, area = roc(histogram(*image))
    assert area.value == pytest.approx(sklearn.metrics.roc_auc_score(truth, probabilities), abs=1e-12)
    fpr, tpr, _ = sklearn.metrics.roc_curve(truth, probabilities, drop_intermediate=False)
    ours = set(zip(curve.x.round(12), curve.y.round(12), strict=True))
    assert ours == set(zip(fpr.round(12), tpr.round(12), strict=True))


def test_precision_recall_is_that_of_scikit_learn(image):
    probabilities, truth = (array.ravel() for array in image)
    curve, area = precision_recall(histogram(*image))
    expected = sklearn.metrics.average_precision_score(truth, probabilities)
    assert area.value == pytest.approx(expected, abs=1e-12)
    precision, recall, _ = sklearn.metrics.precision_recall_curve(truth, probabilities)
    ours = set(zip(curve.x.round(12), curve.y.round(12), strict=True))
    assert ours == set(
        zip(recall[:-1].round(12), precision[:-1].round(12), strict=True)
    )  # the last is (0, 1) by decree


def test_counts_at_every_level_are_those_of_thresholding(image):
    probabilities, truth = image
    counts = counts_by_level(histogram(probabilities, truth))
    for q in (0, 1, 100, 128, 255):
        (tn, fp), (fn, tp) = sklearn.metrics.confusion_matrix(truth.ravel(), probabilities.ravel() >= q, labels=[0, 1])
        assert (counts.tp[q], counts.fp[q], counts.fn[q], counts.tn[q]) == (tp, fp, fn, tn)


@pytest.mark.parametrize("threshold", [1e-12, 0.001, 0.2, 1 / 3, 0.5, 0.6, 0.99, 0.9999])
def test_a_level_is_the_smallest_8_bit_probability_that_reaches_the_threshold(threshold):
    q = level(threshold)
    assert q / 255 >= threshold - 1e-12
    assert (q - 1) / 255 < threshold


def test_calibration_is_that_of_scikit_learn(image):
    probabilities, truth = (array.ravel() for array in image)
    observed, predicted = calibration_curve(truth, probabilities / 255, n_bins=15)
    found = reliability(histogram(*image))
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    weights = np.histogram(probabilities, [-1, *(17 * step + 0.5 for step in range(1, 15)), 255])[0]
    error = np.average(np.abs(observed - predicted), weights=weights[weights > 0])
    assert found.expected_calibration_error == pytest.approx(error)
    assert found.pixels.sum() == truth.size


def test_brier_score_is_that_of_scikit_learn(image):
    probabilities, truth = (array.ravel() for array in image)
    expected = sklearn.metrics.brier_score_loss(truth, probabilities / 255)
    assert brier_score(histogram(*image)) == pytest.approx(expected)


def test_a_perfectly_calibrated_map_has_no_calibration_error():
    table = np.zeros((2, 256), np.int64)
    for q in (0, 51, 102, 204, 255):
        table[:, q] = 1000 * (255 - q), 1000 * q
    assert reliability(table).expected_calibration_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("lesion", "background", "roc_reason", "recall_reason"),
    [
        ([0], [0, 9], "no lesion pixel", "no lesion pixel"),
        ([0, 9], [0], "no background pixel", None),
        ([0, 4], [0, 5], "all pixels have the same probability", None),
    ],
)
def test_undefined_areas_are_null_with_the_reason(lesion, background, roc_reason, recall_reason):
    table = np.zeros((2, 256), np.int64)
    table[0, : len(background)], table[1, : len(lesion)] = background, lesion
    curve, area = roc(table)
    assert (curve, area) == (None, (None, roc_reason))
    curve, area = precision_recall(table)
    assert area.reason == recall_reason
    assert (curve is None) == (area.value is None) == (recall_reason is not None)


def test_constant_probabilities_have_the_prevalence_as_average_precision():
    truth = np.zeros((10, 10), np.uint8)
    truth[:3] = 1
    _, area = precision_recall(histogram(np.full((10, 10), 77, np.uint8), truth))
    assert area.value == pytest.approx(0.3)


def test_thinned_curves_stay_close_and_keep_their_ends(image):
    curve, _ = roc(histogram(*image))
    thin = thinned(curve)
    assert len(thin.x) <= POINTS
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(thin.x) >= 0)
    lost = np.interp(curve.x, thin.x, thin.y) - curve.y
    between = ~np.isin(curve.x, curve.x[np.flatnonzero(np.diff(curve.x) == 0)])  # not on vertical pieces
    assert np.abs(lost[between]).max(initial=0) < 0.03


def test_the_sweep_is_thresholding_and_scoring(image):
    probabilities, truth = image
    other = np.roll(truth, 5, axis=1)
    sweep = Sweep()
    sweep.add(histogram(probabilities, truth))
    sweep.add(histogram(probabilities, other))
    for row in sweep.rows()[::14]:
        found = dict(zip(COLUMNS, row, strict=True))
        cut = (probabilities / 255 >= found["threshold"] - 1e-12).ravel()
        each = [sklearn.metrics.f1_score(mask.ravel(), cut, zero_division=0) for mask in (truth, other)]
        both = np.concatenate([truth.ravel(), other.ravel()]), np.concatenate([cut, cut])
        assert found["dice_per_image"] == pytest.approx(np.mean(each))
        assert found["dice"] == pytest.approx(sklearn.metrics.f1_score(*both, zero_division=0))
        assert found["recall"] == pytest.approx(sklearn.metrics.recall_score(*both))


def test_the_best_threshold_is_the_one_with_the_highest_mean_dice():
    truth = np.zeros((20, 20), np.uint8)
    truth[5:15, 5:15] = 1
    sweep = Sweep()
    sweep.add(histogram(np.where(truth, 90, 60).astype(np.uint8), truth))  # perfect between 61 and 90 of 255
    assert sweep.best() == max(t for t in THRESHOLDS if 61 <= level(t) <= 90), "the nearest to 0.5 of the perfect ones"
