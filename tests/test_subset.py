"""The subset under a limit: nested, seeded, independent of order."""

from itertools import pairwise

import pytest

from lesionseg.common.errors import InputError
from lesionseg.download.subset import choose_subset

IDS = [f"ISIC_{number:07d}" for number in range(200)]


def test_a_larger_limit_contains_every_smaller_one():
    subsets = [set(choose_subset(IDS, limit, seed=0)) for limit in range(1, len(IDS) + 1)]
    assert [len(subset) for subset in subsets] == list(range(1, len(IDS) + 1))
    assert all(smaller < larger for smaller, larger in pairwise(subsets))


def test_the_order_of_the_ids_does_not_matter():
    assert (
        choose_subset(IDS[::-1], 50, seed=3) == choose_subset(IDS, 50, seed=3) == sorted(choose_subset(IDS, 50, seed=3))
    )


def test_the_seed_picks_another_subset():
    assert choose_subset(IDS, 50, seed=0) != choose_subset(IDS, 50, seed=1)


def test_new_ids_displace_only_the_places_they_take():
    """Adding ids to the source keeps all of the old subset but those that a new id outranks."""
    old, new = set(choose_subset(IDS[:150], 50, seed=0)), set(choose_subset(IDS, 50, seed=0))
    assert new - set(IDS[150:]) <= old


def test_without_a_limit_all_are_taken():
    assert choose_subset(set(IDS), None, seed=0) == IDS
    assert choose_subset(IDS, len(IDS), seed=0) == IDS


def test_fewer_than_the_limit_are_an_error_that_counts_them():
    with pytest.raises(InputError, match=r"download\.limit: found 201, but the source has 200 pairs"):
        choose_subset(IDS, 201, seed=0)
