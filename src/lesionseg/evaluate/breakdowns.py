"""Where segmentation fails: the images of a split in groups, by what the picture shows and by what is known of it.

A group is given by a name and by which images belong to it, bool (images,). The groups of one breakdown are apart from
each other and hold every image that has the property.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Groups = dict[str, np.ndarray]

UNKNOWN, OTHER = "unknown", "other"
NOT_KNOWN = (UNKNOWN, "n/a", "na", "nan")  # values that tables write where a field might have stayed empty
MOST = 8  # values of a column of text that get a group of their own, the most frequent ones
AGES = (0, 30, 50, 70)  # each the first year of a group


@dataclass(frozen=True)
class Cut:
    """Groups by limits of a measured property: a group begins at its limit and ends where the next begins."""

    name: str
    of: str  # a property of Measurement
    limits: Mapping[str, float]  # group -> its lower limit, in rising order; the first is open below

    def groups(self, values: np.ndarray) -> Groups:
        """The groups of float (images,); images where the property is NaN are in none."""
        lower = np.array([-np.inf, *list(self.limits.values())[1:], np.inf])
        return {
            group: (values >= low) & (values < high)
            for group, low, high in zip(self.limits, lower[:-1], lower[1:], strict=True)
        }


CUTS = (
    Cut("by_size", "lesion_fraction", {"small": 0.0, "medium": 0.05, "large": 0.25}),
    Cut("by_border", "touches_border", {"inside": 0, "touching": 1}),
    Cut("by_contrast", "contrast", {"low": 0, "medium": 15, "high": 30}),  # about a quarter, a half, a quarter of ISIC
    Cut("by_hair", "hair", {"little": 0, "much": 0.03}),
)


def by_property(properties: Mapping[str, np.ndarray]) -> dict[str, Groups]:
    """The breakdowns by measured properties, each float (images,)."""
    return {cut.name: cut.groups(properties[cut.of]) for cut in CUTS}


def by_metadata(ids: Sequence[str], metadata: Mapping[str, Mapping[str, str]]) -> dict[str, Groups]:
    """The breakdowns by the columns that are known of the images: `metadata` maps an id to its columns.

    A column of text has a group a value, at most `MOST`, and `other`; of a column of many different numbers the
    groups are ranges: of an age those that `AGES` begin, otherwise thirds. A field that is empty, or says `unknown`,
    `n/a` or `nan`, is `unknown`. A column with one value for all images, or with another for nearly each, groups
    nothing and is left out.
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
    """Groups by ranges where the column holds numbers, and too many different ones for a group each."""
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
