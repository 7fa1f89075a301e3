"""The split: exact, seeded, by group, alike in lesion fraction, independent of order, stable as data is added."""

import numpy as np
import pytest

from lesionseg.common.errors import InputError
from lesionseg.preprocess.split import choose_validation


def data_set(count: int, seed: int = 0, group_sizes: tuple[int, ...] = (1,)) -> tuple[list[str], np.ndarray]:
    """`count` images: their group names, and lesion fractions as skewed as those of ISIC."""
    random = np.random.default_rng(seed)
    names = []
    while len(names) < count:
        names += [f"ISIC_{len(names):07d}"] * int(random.choice(group_sizes))
    return names[:count], random.beta(0.9, 2.5, count)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 11, 100, 2594])
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.83])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_when_every_image_is_its_own_group(count, fraction, seed):
    validation = choose_validation(*data_set(count), fraction, seed)
    assert validation.sum() == min(max(round(fraction * count), 1), count - 1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("sizes", [(1, 2), (1, 1, 1, 7), (3, 5), (20,)])
def test_within_a_groups_size_and_no_group_straddles(sizes, seed):
    groups, fractions = data_set(200, seed, sizes)
    validation = choose_validation(groups, fractions, 0.2, seed)
    largest = max(groups.count(name) for name in set(groups))
    assert abs(validation.sum() - 40) < largest
    if 1 in sizes:
        assert validation.sum() == 40
    chosen = {name for name, held_out in zip(groups, validation, strict=True) if held_out}
    rest = {name for name, held_out in zip(groups, validation, strict=True) if not held_out}
    assert not chosen & rest
    assert chosen
    assert rest


@pytest.mark.parametrize("sizes", [[50, 50], [99, 1], [1, 99], [10, 10, 980]])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.9])
def test_both_sides_have_images_however_large_the_groups(sizes, fraction):
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    validation = choose_validation(groups, np.linspace(0, 1, len(groups)), fraction, 0)
    assert 0 < validation.sum() < len(groups)
    assert abs(validation.sum() - fraction * len(groups)) < max(sizes)


def test_order_does_not_matter():
    groups, fractions = data_set(300, group_sizes=(1, 1, 3))
    validation = choose_validation(groups, fractions, 0.2, 0)
    order = np.random.default_rng(1).permutation(300)
    shuffled = choose_validation([groups[index] for index in order], fractions[order], 0.2, 0)
    np.testing.assert_array_equal(shuffled, validation[order])


def test_another_seed_is_another_split():
    groups, fractions = data_set(500)
    first, second = (choose_validation(groups, fractions, 0.2, seed) for seed in (0, 1))
    assert 0.25 < (first != second).mean() < 0.4  # 0.32 for independent splits


@pytest.mark.parametrize("seed", range(5))
def test_both_sides_are_alike_in_lesion_fraction(seed):
    """Closer than chance: a plain shuffle is off by more in about nine splits of ten."""
    groups, fractions = data_set(500, seed)
    validation = choose_validation(groups, fractions, 0.2, seed)
    random = np.random.default_rng(seed)
    chance = []
    for _ in range(300):
        shuffled = random.permutation(validation)
        chance.append(abs(fractions[shuffled].mean() - fractions[~shuffled].mean()))
    assert abs(fractions[validation].mean() - fractions[~validation].mean()) < np.quantile(chance, 0.5)
    fifths = np.quantile(fractions, [0.2, 0.4, 0.6, 0.8])
    share = np.bincount(np.digitize(fractions[validation], fifths), minlength=5) / validation.sum()
    assert np.abs(share - 0.2).max() <= 0.02


@pytest.mark.parametrize(("before", "after"), [(500, 600), (500, 1000), (1000, 2594)])
def test_added_images_move_few_of_the_old_ones(before, after):
    moved = []
    for seed in range(10):
        groups, fractions = data_set(after, seed)
        chosen = np.sort(np.random.default_rng(seed).permutation(after)[:before])  # a nested subset
        small = choose_validation([groups[index] for index in chosen], fractions[chosen], 0.2, seed)
        large = choose_validation(groups, fractions, 0.2, seed)
        moved.append((small != large[chosen]).mean())
    assert np.mean(moved) < 0.04
    assert np.max(moved) < 0.08


@pytest.mark.parametrize("groups", [[], ["a"], ["a", "a", "a"]])
def test_what_cannot_be_divided_is_refused(groups):
    with pytest.raises(InputError, match="expected at least 2 groups"):
        choose_validation(groups, [0.5] * len(groups), 0.2, 0)
