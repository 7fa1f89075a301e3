"""Training, validation and test sets that share no duplicate group.

The rule, for `validation_fraction` f and N images in groups:

- The target is round(f·N) validation images, at least 1 and at most N - 1. It is met to within the size of a group, and
  exactly if enough images are groups of their own.
- The groups, sorted by mean lesion fraction, are cut into five strata with about equally many images, and each stratum
  contributes its share of the target, so that both sides have small and large lesions alike.
- Within a stratum the groups are ranked by SHA-256 of "<seed>:<group>", and the first ones fill the share.

So the split depends on the ids, the groups and the lesion fractions, never on the order of files. And it is stable: a
group's rank does not depend on the other groups, and those with a rank below about f are validation in every stratum
and at every size of the data set. When images are added (a larger `download.limit`), only groups near that limit change
sides, about 2 of 100 images; a fresh shuffle would change 2·f·(1 - f), 32 of 100.

A test set is chosen by the same rule from what validation leaves: with or without it the validation images are the
same, and only the training images become fewer.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from lesionseg.common.errors import InputError

STRATA = 5


def choose_splits(
    groups: Sequence[str],
    lesion_fractions: Sequence[float],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[str]:
    """The split of each image, `train`, `val` or `test`, the same within a group; the fractions are of all images.

    A validation fraction of 0 chooses none, as there is a validation set already. Raises InputError if there are too
    few groups for the splits.
    """
    validation = np.zeros(len(groups), bool)
    if validation_fraction:
        validation = choose_validation(groups, lesion_fractions, validation_fraction, seed)
    splits = np.where(validation, "val", "train").astype(object)
    if test_fraction:
        rest = np.flatnonzero(~validation).tolist()
        if len({groups[row] for row in rest}) < 2:
            raise InputError(
                f"preprocess.test_fraction: found {test_fraction}, but validation leaves {len(rest)} image(s) in fewer "
                "than 2 duplicate groups; add images, or set 0"
            )
        share = min(test_fraction * len(groups) / len(rest), 1.0)
        test = choose_validation([groups[row] for row in rest], [lesion_fractions[row] for row in rest], share, seed)
        splits[np.array(rest)[test]] = "test"
    return splits.tolist()


def choose_validation(
    groups: Sequence[str], lesion_fractions: Sequence[float], validation_fraction: float, seed: int
) -> np.ndarray:
    """Choose the validation images: bool (N,), True for validation, the same within a group.

    `groups` names each image's duplicate group. Raises InputError if there are not at least two.
    """
    names, member, sizes = np.unique(np.asarray(groups, str), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(
            f"preprocess.validation_fraction: found {len(groups)} usable image(s) in {len(names)} duplicate group(s), "
            "expected at least 2 groups, one for training and one for validation; add images"
        )
    target = min(max(round(validation_fraction * len(groups)), 1), len(groups) - 1)
    rank = np.array([_rank(name, seed) for name in names])
    fractions = np.bincount(member, weights=lesion_fractions) / sizes

    chosen = np.zeros(len(names), bool)
    strata = _strata(fractions, sizes)
    shares = _shares([sizes[stratum].sum() for stratum in strata], target, seed)
    for stratum, share in zip(strata, shares, strict=True):
        _fill(chosen, stratum[np.argsort(rank[stratum])], sizes, share)
    # If a stratum's next group is too large for the rest of its share, the other strata make up for it.
    missing = target - sizes[chosen].sum()
    _fill(chosen, np.flatnonzero(~chosen)[np.argsort(rank[~chosen])], sizes, missing)
    if not chosen.any():
        chosen[np.lexsort((rank, sizes))[0]] = True
    return chosen[member]


def _rank(name: str, seed: int) -> float:
    """A number in [0, 1), uniform over names, with 52 bits so that a float holds it exactly."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 12) / 2**52


def _strata(fractions: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """The indices of the groups, sorted by lesion fraction, in STRATA parts with about equally many images."""
    order = np.argsort(fractions, kind="stable")
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    part = (middle / sizes.sum() * STRATA).astype(int)
    return [order[part == number] for number in range(STRATA)]


def _shares(totals: Sequence[int], target: int, seed: int) -> list[int]:
    """Divide the target in proportion to the totals, in whole images, by largest remainders."""
    exact = np.array(totals) * target / sum(totals)
    shares = np.floor(exact).astype(int)
    tie = [_rank(f"stratum {number}", seed) for number in range(len(totals))]
    for number in np.lexsort((np.array(tie), np.round(shares - exact, 9)))[: target - shares.sum()]:
        shares[number] += 1
    return shares.tolist()


def _fill(chosen: np.ndarray, ranked: np.ndarray, sizes: np.ndarray, share: int) -> None:
    """Choose, in order of rank, every group that still fits into the share."""
    for group in ranked:
        if share <= 0:
            return
        if sizes[group] <= share:
            chosen[group] = True
            share -= sizes[group]
