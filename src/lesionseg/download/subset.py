"""A seeded subset that only grows: a larger limit contains every smaller one."""

import hashlib
from collections.abc import Collection

from lesionseg.common.errors import InputError


def choose_subset(ids: Collection[str], limit: int | None, seed: int) -> list[str]:
    """Return `limit` of the distinct `ids` (None: all), sorted.

    The ids are ranked by the SHA-256 of `<seed>:<id>`, and the first `limit` are taken. So the choice depends on
    neither order nor platform, a larger limit only adds, and new ids displace few of the old ones. Raises InputError
    if there are fewer than `limit`.
    """
    if limit is None:
        return sorted(ids)
    if limit > len(ids):
        raise InputError(
            f"download.limit: found {limit}, but the source has {len(ids)} pairs; lower it, or set null for all of them"
        )
    return sorted(sorted(ids, key=lambda name: _rank(name, seed))[:limit])


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
