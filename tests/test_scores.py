"""Scores against scikit-learn and the official ISIC scorer, and where a ratio has no denominator."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from isic_challenge_scoring import metrics as official

from lesionseg.scoring import scores
from lesionseg.scoring.counts import Counts, count


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(1)
    truth = random.random((20, 16, 16)) < random.random((20, 1, 1))
    return list(zip(truth ^ (random.random(truth.shape) < 0.3), truth, strict=True))


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("dice", sklearn.metrics.f1_score),
        ("iou", sklearn.metrics.jaccard_score),
        ("precision", sklearn.metrics.precision_score),
        ("recall", sklearn.metrics.recall_score),
        ("specificity", lambda truth, predicted: sklearn.metrics.recall_score(~truth, ~predicted)),
        ("accuracy", sklearn.metrics.accuracy_score),
    ],
)
def test_scores_are_those_of_scikit_learn(pairs, name, oracle):
    found = scores.OVERLAP[name](Counts.of(np.array([count(*pair) for pair in pairs])))
    expected = [oracle(truth.ravel(), predicted.ravel()) for predicted, truth in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "counts",
    [
        (0, 0, 0, 9),
        (9, 0, 0, 0),
        (0, 3, 0, 6),
        (0, 0, 3, 6),
        (0, 9, 0, 0),
        (0, 0, 9, 0),
        (65, 35, 0, 1),
        (64, 36, 0, 1),
    ],
)
def test_edge_cases_follow_the_official_scorer(counts):
    ours, row = Counts(*counts), pd.Series(dict(zip(("TP", "FP", "FN", "TN"), counts, strict=True)))
    assert scores.iou(ours) == official.binary_jaccard(row)
    assert scores.dice(ours) == official.binary_dice(row)
    assert scores.threshold_jaccard(ours) == official.binary_threshold_jaccard(row, threshold=scores.FAILURE)
    assert scores.recall(ours) == official.binary_sensitivity(row)
    assert scores.specificity(ours) == official.binary_specificity(row)
    assert scores.accuracy(ours) == official.binary_accuracy(row)
    assert scores.failed(ours) == (official.binary_jaccard(row) < scores.FAILURE)


def test_two_empty_masks_score_one_everywhere():
    both_empty = Counts(0, 0, 0, 100)
    assert {name: score(both_empty) for name, score in scores.OVERLAP.items()} == dict.fromkeys(scores.OVERLAP, 1.0)


def test_a_blank_prediction_of_a_lesion_earns_nothing():
    blank = Counts(0, 0, 10, 90)
    assert scores.precision(blank) == scores.recall(blank) == scores.dice(blank) == scores.iou(blank) == 0.0


def test_jaccard_is_dice_over_two_minus_dice():
    table = np.random.default_rng(2).integers(0, 4, (200, 4))  # small numbers: zeros are frequent
    counts = Counts.of(table)
    dice = scores.dice(counts)
    np.testing.assert_allclose(scores.iou(counts), dice / (2 - dice))
    for score in scores.OVERLAP.values():
        assert np.isfinite(score(counts)).all()


def test_a_score_of_one_image_is_a_plain_number():
    assert isinstance(scores.dice(Counts(1, 2, 3, 4)), float)
