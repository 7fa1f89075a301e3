"""Bootstrap intervals: as wide as they say, also for duplicates and few images; seeded, bounded in memory."""

import numpy as np
import pytest
import scipy.stats

from lesionseg.scoring import bootstrap
from lesionseg.scoring.bootstrap import FEWEST, Resampling, intervals, mean_intervals, too_few


def mean_of(values: np.ndarray):
    return lambda weights: (weights @ values / weights.sum(1))[:, None]


def apart(images: int) -> list[str]:
    """Groups of one image each."""
    return [f"{index:06d}" for index in range(images)]


def coverage(values: np.ndarray, groups) -> float:
    """How often the interval of a mean holds the truth, 0: `values` (images, trials), a column a trial."""
    low, high = intervals(lambda weights: weights @ values / weights.sum(1)[:, None], groups, Resampling(1000, 1))
    return np.mean((low <= 0) & (high >= 0))


def test_the_interval_of_a_mean_is_that_of_scipy_for_many_images():
    values = np.random.default_rng(0).beta(5, 2, 2000)
    low, high = intervals(mean_of(values), apart(2000), Resampling(10_000, 1))
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (low[0], high[0]) == pytest.approx(tuple(expected), abs=4e-4)


TRIALS = 2000  # 95 % is then, by chance, between 94 and 96 %


@pytest.mark.parametrize("images", [FEWEST, 20, 60])
def test_the_interval_covers_the_truth_as_often_as_it_says(images):
    assert 0.93 <= coverage(np.random.default_rng(0).normal(0, 1, (images, TRIALS)), apart(images)) <= 0.97


@pytest.mark.parametrize(("size", "one_by_one"), [(2, 0.83), (4, 0.66)])
def test_duplicates_do_not_make_the_interval_narrower(size, one_by_one):
    """Images in groups of near copies; drawn one by one, the interval would hold the truth far less often."""
    random = np.random.default_rng(0)
    lesions = np.repeat(random.normal(0, 1, (30, TRIALS)), size, axis=0)
    values = lesions + random.normal(0, 0.1, lesions.shape)
    assert 0.93 <= coverage(values, np.repeat(apart(30), size)) <= 0.97
    assert coverage(values, apart(len(values))) == pytest.approx(one_by_one, abs=0.03)


def test_groups_may_lie_anywhere_and_differ_in_size():
    random = np.random.default_rng(0)
    groups = np.array([f"g{number}" for number in random.integers(0, 40, 120)])
    values = random.normal(0, 1, 120)
    order = np.argsort(groups, kind="stable")
    mixed = intervals(mean_of(values), groups, Resampling(500, 0))
    ordered = intervals(mean_of(values[order]), groups[order], Resampling(500, 0))
    np.testing.assert_allclose(mixed, ordered)


def test_a_group_is_drawn_whole():
    seen = []

    def statistic(weights):
        seen.append(weights)
        return weights[:, :1]

    groups = [*apart(10), "twin", "twin"]
    intervals(statistic, groups, Resampling(200, 0))
    weights = np.concatenate(seen)
    np.testing.assert_array_equal(weights[:, 10], weights[:, 11])
    assert np.all(weights[:, :11].sum(1) == 11), "as many groups as there are, twins counted once"


@pytest.mark.parametrize("groups", [apart(1), apart(9), ["a", "b", "c"] * 5])
def test_too_few_images_have_no_interval_and_a_reason(groups):
    values = np.arange(len(groups), dtype=float)
    assert np.isnan(intervals(mean_of(values), groups, Resampling(100, 0))).all()
    assert np.isnan(mean_intervals({"dice": values}, groups, Resampling(100, 0))["dice"]).all()
    assert f"needs {FEWEST}" in too_few(groups)
    assert too_few(apart(FEWEST)) is None


def test_a_mean_over_the_images_where_it_is_defined_needs_enough_of_those():
    values = np.random.default_rng(0).random(40)
    some = np.where(np.arange(40) < 25, values, np.nan)
    few = np.where(np.arange(40) < 9, values, np.nan)
    ends = mean_intervals({"all": values, "some": some, "few": few}, apart(40), Resampling(1000, 0))
    assert ends["all"][0] < values.mean() < ends["all"][1]
    assert ends["some"][0] < values[:25].mean() < ends["some"][1]
    assert np.isnan(ends["few"]).all()


def test_several_comparisons_at_once_have_wider_intervals():
    values = {"gain": np.random.default_rng(0).normal(0, 1, 50)}
    alone = mean_intervals(values, apart(50), Resampling(4000, 0))["gain"]
    of_ten = mean_intervals(values, apart(50), Resampling(4000, 0).split_between(10))["gain"]
    assert of_ten[0] < alone[0] < alone[1] < of_ten[1]
    assert Resampling(1, 0).split_between(1) == pytest.approx(Resampling(1, 0))


def test_the_seed_decides_and_the_chunks_do_not(monkeypatch):
    # whole numbers, whose sums are exact in any order: a product of other shape may be summed in another one
    values = np.random.default_rng(0).integers(0, 1000, 50).astype(float)
    first = intervals(mean_of(values), apart(50), Resampling(500, 3))
    assert np.array_equal(first, intervals(mean_of(values), apart(50), Resampling(500, 3)))
    assert not np.array_equal(first, intervals(mean_of(values), apart(50), Resampling(500, 4)))
    monkeypatch.setattr(bootstrap, "_CHUNK", 50 * 7)
    assert np.array_equal(first, intervals(mean_of(values), apart(50), Resampling(500, 3)))


def test_resamples_in_which_a_score_is_undefined_are_left_out():
    def statistic(weights):
        sometimes = np.where(weights[:, 0] > 0, 5.0, np.nan)
        return np.column_stack([sometimes, np.full(len(weights), np.nan)])

    low, high = intervals(statistic, apart(FEWEST), Resampling(200, 0))
    assert (low[0], high[0]) == (5.0, 5.0)
    assert np.isnan([low[1], high[1]]).all()
