"""Where segmentation fails: the images of a split, grouped by what they show and by their metadata.

A group has a name and its members, bool (images,). The groups of one breakdown do not overlap, and together hold every
image whose property is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Groups = dict[str, np.ndarray]

UNKNOWN, OTHER = "unknown", "other"
NOT_KNOWN = (UNKNOWN, "n/a", "na", "nan")  # what tables write for an empty field
MOST = 8  # of the values of a text column, the most frequent that get a group of their own
AGES = (0, 30, 50, 70)  # years at which the groups begin


@dataclass(frozen=True)
class Cut:
    """Groups of a measured property: each begins at its limit and ends where the next begins."""

    name: str
    of: str  # a property of Measurement
    limits: Mapping[str, float]  # group -> its lower limit, rising; the first group has none

    def groups(self, values: np.ndarray) -> Groups:
        """The groups of float (images,); images whose property is NaN are in none."""
        lower = np.array([-np.inf, *list(self.limits.values())[1:], np.inf])
        return {
            group: (values >= low) & (values < high)
            for group, low, high in zip(self.limits, lower[:-1], lower[1:], strict=True)
        }


CUTS = (
    Cut("by_size", "lesion_fraction", {"small": 0.0, "medium": 0.05, "large": 0.25}),
    Cut("by_border", "touches_border", {"inside": 0, "touching": 1}),
    Cut("by_contrast", "contrast", {"low": 0, "medium": 15, "high": 30}),  # about 25, 50 and 25 % of ISIC
    Cut("by_hair", "hair", {"little": 0, "much": 0.03}),
)


def by_property(properties: Mapping[str, np.ndarray]) -> dict[str, Groups]:
    """The breakdowns by measured properties, each float (images,)."""
    return {cut.name: cut.groups(properties[cut.of]) for cut in CUTS}


def by_metadata(ids: Sequence[str], metadata: Mapping[str, Mapping[str, str]]) -> dict[str, Groups]:
    """The breakdowns by the images' metadata; `metadata` maps an id to its columns.

    A text column gives one group per value: the `MOST` most frequent, and `other`. A column of many different numbers
    gives ranges: for an age those of `AGES`, otherwise thirds. A field that is empty or says `unknown`, `n/a` or `nan`
    counts as `unknown`. A column that has the same value for all images, or a different one for nearly every image,
    is left out.
    """
    columns = dict.fromkeys(column for name in ids for column in metadata.get(name, {}))
    found = {}
    for column in columns:
        values = [metadata.get(name, {}).get(column, "").strip() for name in ids]
        values = ["" if value.lower() in NOT_KNOWN else value for value in values]
        groups = _ranges(column, values) or _values(values)
        if len(groups) > 1:
            found[f"by_{column}"] = groups
    return found


def _values(values: Sequence[str]) -> Groups:
    named = np.array([value or UNKNOWN for value in values])
    names, counts = np.unique(named[named != UNKNOWN], return_counts=True)
    frequent = sorted(zip(-counts, names, strict=True))[:MOST]
    if len(names) > len(values) / 2 > MOST:
        return {}
    groups = {str(name): named == name for name in sorted(name for _, name in frequent)}
    rest = {OTHER: ~np.isin(named, [*groups, UNKNOWN]), UNKNOWN: named == UNKNOWN}
    return groups | {name: members for name, members in rest.items() if members.any()}


def _ranges(column: str, values: Sequence[str]) -> Groups | None:
    """Groups by ranges where the column holds numbers, too many for one group per number."""
    try:
        numbers = np.array([float(value) if value else np.nan for value in values])
    except ValueError:
        return None
    known = numbers[~np.isnan(numbers)]
    if len(np.unique(known)) <= MOST:
        return None
    lower = list(AGES) if column.lower().startswith("age") else [known.min(), *np.quantile(known, [1 / 3, 2 / 3])]
    groups: Groups = {}
    for index, low in enumerate(lower):
        last = index + 1 == len(lower)
        high = np.inf if last else lower[index + 1]
        members = (numbers >= low) & (numbers < high)
        if members.any():
            groups[f"from {low:g}" if last else f"{low:g} to below {high:g}"] = members
    if np.isnan(numbers).any():
        groups[UNKNOWN] = np.isnan(numbers)
    return groups
