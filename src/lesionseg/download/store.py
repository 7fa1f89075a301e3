"""Verified members of archives on the disk, kept from one run to the next."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from lesionseg.common.parallel import cores, ordered_map
from lesionseg.download.archive import Member, crc32


class Store:
    """Members under `<folder>/<archive>/<stem>.<CRC-32><ext>`.

    A name holds what its content must be, so an archive that changed on the server finds nothing of the old one.
    Files appear whole; their CRC-32 is computed again before they are used, for disks and people change files too.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for leftover in folder.glob("*/.*.tmp"):  # of a run that was killed
            leftover.unlink(missing_ok=True)

    def path(self, archive: str, member: Member) -> Path:
        name = PurePosixPath(member.file_name)
        return self.folder / archive / f"{name.stem}.{member.crc:08x}{name.suffix}"

    def holds(self, archive: str, member: Member) -> bool:
        path = self.path(archive, member)
        return path.is_file() and path.stat().st_size == member.size and crc32(path) == member.crc

    def missing(self, archive: str, members: Sequence[Member]) -> list[Member]:
        """Those of `members` that are not here, whole and unchanged."""
        held = ordered_map(lambda member: self.holds(archive, member), members, cores())
        return [member for member, here in zip(members, held, strict=True) if not here]
