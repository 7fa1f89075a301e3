"""Bootstrap intervals: seeded, bounded in memory, and as wide as theory has it."""

import numpy as np
import pytest
import scipy.stats

from lesionseg.evaluate import bootstrap
from lesionseg.evaluate.bootstrap import intervals


def mean_of(values: np.ndarray):
    return lambda weights: (weights @ values / weights.sum(1))[:, None]


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(0).beta(5, 2, 200)
    low, high = intervals(mean_of(values), 200, 20_000, seed=1)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (low[0], high[0]) == pytest.approx(tuple(expected), abs=1e-3)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = intervals(mean_of(random.normal(0, 1, 60)), 60, 400, seed=trial)
        covered += low[0] <= 0 <= high[0]
    assert 0.89 <= covered / 200 <= 0.98


def test_the_seed_decides_and_the_chunks_do_not(monkeypatch):
    values = np.random.default_rng(0).random(50)
    first = intervals(mean_of(values), 50, 500, seed=3)
    assert np.array_equal(first, intervals(mean_of(values), 50, 500, seed=3))
    assert not np.array_equal(first, intervals(mean_of(values), 50, 500, seed=4))
    monkeypatch.setattr(bootstrap, "_CHUNK", 50 * 7)
    assert np.array_equal(first, intervals(mean_of(values), 50, 500, seed=3))


def test_one_image_has_an_interval_of_no_width():
    low, high = intervals(mean_of(np.array([0.7])), 1, 100, seed=0)
    assert low[0] == high[0] == 0.7


def test_resamples_in_which_a_figure_is_undefined_are_left_out():
    def statistic(weights):
        sometimes = np.where(weights[:, 0] > 0, 5.0, np.nan)
        return np.column_stack([sometimes, np.full(len(weights), np.nan)])

    low, high = intervals(statistic, 3, 200, seed=0)
    assert (low[0], high[0]) == (5.0, 5.0)
    assert np.isnan([low[1], high[1]]).all()
