"""Verified archive members on the disk, which survive from one run to the next."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from lesionseg.common.parallel import cores, ordered_map
from lesionseg.download.archive import Member, crc32


class Store:
    """Members under `<folder>/<archive>/<stem>.<CRC-32><ext>`.

    The CRC-32 in its name says what a file must contain, so nothing old is used once an archive changes on the server.
    Files appear whole; their CRC-32 is computed again before use, since disks and people change files too.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for leftover in folder.glob("*/.*.tmp"):  # left by a killed run
            leftover.unlink(missing_ok=True)

    def path(self, archive: str, member: Member) -> Path:
        name = PurePosixPath(member.file_name)
        return self.folder / archive / f"{name.stem}.{member.crc:08x}{name.suffix}"

    def holds(self, archive: str, member: Member) -> bool:
        path = self.path(archive, member)
        return path.is_file() and path.stat().st_size == member.size and crc32(path) == member.crc

    def missing(self, archive: str, members: Sequence[Member]) -> list[Member]:
        """The `members` that are not in the store, whole and unchanged."""
        held = ordered_map(lambda member: self.holds(archive, member), members, cores())
        return [member for member, here in zip(members, held, strict=True) if not here]
