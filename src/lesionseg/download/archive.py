"""Members of a zip archive, fetched by byte range and verified, without the rest of the archive.

The archive may be on a disk (`LocalFile`) or on a server (`http_range.RemoteFile`): the code is the same. The directory
at the archive's end, which gives the position, length and CRC-32 of each member, is read first, and then only the
members asked for. (Format: PKWARE APPNOTE 6.3, including zip64.)
"""

import io
import shutil
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic
from lesionseg.common.parallel import cores, ordered_map
from lesionseg.download.http_range import CHUNK, Cancelled

TAIL = (1 << 16) + 22 + 20 + 56  # longest comment, end record, zip64 locator and zip64 end record
LONGEST_DIRECTORY = 8 << 20  # bytes; the official archives' have less than 1 MiB for 5,000 members
LONGEST_MEMBER = 1 << 30  # bytes; no picture is longer
LONGEST_RUN = 64 << 20  # bytes per request, so that every connection has work
DEFLATE64 = 9  # a compression method that zlib lacks
ATTEMPTS = 3  # at a member whose bytes arrive damaged


class RangeFile(Protocol):
    """A file that an archive is read from."""

    @property
    def size(self) -> int: ...

    def stream(
        self, start: int, stop: int, cancelled: threading.Event | None = None
    ) -> Generator[bytes, None, None]: ...


class LocalFile:
    """A file on a disk, read by byte range."""

    def __init__(self, path: Path):
        self.path = path
        self.size = path.stat().st_size

    def __str__(self) -> str:
        return str(self.path)

    def stream(self, start: int, stop: int, cancelled: threading.Event | None = None) -> Generator[bytes, None, None]:
        """Yield the bytes from `start` up to, but not including, `stop`; fewer if the file ends earlier."""
        with open(self.path, "rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(CHUNK, stop - start))):
                if cancelled and cancelled.is_set():
                    raise Cancelled
                start += len(piece)
                yield piece


@dataclass(frozen=True)
class Member:
    """One entry of the directory.

    `start` is the offset of its local header, `stop` the offset of what follows it: the next member or the directory.
    `packed` and `size` are its bytes in the archive and when unpacked.
    """

    name: str
    raw_name: bytes
    start: int
    stop: int
    packed: int
    size: int
    crc: int
    deflated: bool

    @property
    def file_name(self) -> str:
        """The name without its folders; some programs write backslashes between them."""
        return PurePosixPath(self.name.replace("\\", "/")).name


def read_directory(file: RangeFile, title: str) -> list[Member]:
    """Return the members of the archive, without directories, in the order of their position.

    Raises InputError, with `title` as the archive's name, if it is no zip archive, and for every entry that could do
    harm or cannot be read: a name that leads out of the directory, a link, a second entry of the same name, an entry
    that overlaps the next, is encrypted, too long, or compressed by an unknown method.
    """
    end = _End(file, title)
    try:
        with zipfile.ZipFile(end) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            stops = [entry.header_offset for entry in entries[1:]] + [archive.start_dir]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError, OverflowError) as error:
        raise InputError(f"{title}: not a whole zip archive ({file.size} bytes): {error}; get it again") from None
    problems, members, seen = [], [], set()
    for entry, stop in zip(entries, stops, strict=True):
        name = entry.orig_filename
        encoded = name.encode("utf-8" if entry.flag_bits & 0x800 else "cp437")
        problem = _refusal(entry)
        if name in seen:
            problem = "appears twice"
        elif entry.header_offset < 0 or entry.header_offset + 30 + len(encoded) + entry.compress_size > stop:
            problem = problem or "overlaps its neighbour"
        if problem:
            problems.append(f"{title}: refused: the member {name!r} {problem}")
        seen.add(name)
        if not entry.is_dir():
            deflated = entry.compress_type == zipfile.ZIP_DEFLATED
            sizes = (entry.compress_size, entry.file_size)
            members.append(Member(name, encoded, entry.header_offset, stop, *sizes, entry.CRC, deflated))
    if problems:
        raise InputError(problems)
    return members


def extract(
    file: RangeFile,
    members: Iterable[Member],
    path_of: Callable[[Member], Path],
    *,
    connections: int = 1,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[Member, str]:
    """Write each member to `path_of(member)`, whole and verified or not at all.

    Adjacent members share a request; `connections` requests run at a time. `progress` is called, from any thread, with
    the packed bytes that arrived since the last call (negative: they have to be read again). A damaged member is read
    up to three times; those that stay damaged are returned with the reason. Raises what `file.stream` raises; members
    written before that stay.
    """
    damaged = dict.fromkeys(members, "")
    for attempt in range(ATTEMPTS):
        if damaged:
            runs = _runs(damaged) if attempt == 0 else [[member] for member in damaged]
            damaged = _extract_runs(file, runs, path_of, connections, progress)
    return damaged


class Unpacked:
    """An archive that was unpacked into the folder `path`: its members are the files in it."""

    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def members(self, wanted: Callable[[str], object]) -> list[Member]:
        """The files whose names are `wanted`, each read once for its CRC-32; links are skipped."""
        paths = [path for path in sorted(self.path.rglob("*")) if wanted(path.name) and not path.is_symlink()]
        return [
            Member(path.relative_to(self.path).as_posix(), b"", 0, 0, size := path.stat().st_size, size, crc, False)
            for path, crc in zip(paths, ordered_map(crc32, paths, cores()), strict=True)
        ]

    def copy(
        self, members: Iterable[Member], path_of: Callable[[Member], Path], progress: Callable[[int], None]
    ) -> dict[Member, str]:
        """Copy each member to `path_of(member)`; returns the damaged ones as `extract` does: none."""
        for member in members:
            with atomic(path_of(member)) as temporary:
                shutil.copyfile(self.path / member.name, temporary)
            progress(member.size)
        return {}


def crc32(path: Path) -> int:
    """CRC-32 of a file's bytes, as in zip archives."""
    value = 0
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            value = zlib.crc32(piece, value)
    return value


class _End(io.RawIOBase):
    """The archive as a file for `zipfile`, which reads only its end.

    What was read stays in memory and grows towards the front as needed, so that no byte is requested twice.
    """

    def __init__(self, file: RangeFile, title: str):
        self.file, self.title = file, title
        self.position = 0
        self.held_from, self.held = file.size, b""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.file.size}[whence]
        if base + offset < 0:
            raise ValueError("it is too short")
        self.position = base + offset
        return self.position

    def read(self, count: int = -1) -> bytes:
        start = self.position
        stop = self.file.size if count < 0 else min(start + count, self.file.size)
        if start >= stop:
            return b""
        if start < self.held_from:
            if self.file.size - start > max(LONGEST_DIRECTORY, TAIL):
                raise ValueError(f"its directory claims to be longer than {LONGEST_DIRECTORY >> 20} MiB")
            begin = start if self.held else min(start, max(0, self.file.size - TAIL))
            self.held = b"".join(self.file.stream(begin, self.held_from)) + self.held
            self.held_from = begin
        self.position = stop
        return self.held[start - self.held_from : stop - self.held_from]


def _refusal(entry: zipfile.ZipInfo) -> str | None:
    """Why an entry of the directory is refused, or None."""
    name = entry.orig_filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        return "has a name that leads out of its directory"
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type == DEFLATE64:
        return (
            "is compressed by Deflate64, as Windows Explorer does with large files; unpack the archive and leave the "
            "resulting folder where the archive is"
        )
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {entry.compress_type}, expected stored (0) or deflate (8)"
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        return f"is stored in {entry.compress_size} bytes, but has {entry.file_size}"
    if max(entry.file_size, entry.compress_size) > LONGEST_MEMBER:
        return f"has {entry.file_size} bytes, more than {LONGEST_MEMBER >> 30} GiB"
    return None


def _runs(members: Iterable[Member]) -> list[list[Member]]:
    """Adjacent members in groups, each of at most LONGEST_RUN bytes or a single member.

    Only members without a gap between them are joined: that saves requests and fetches no unwanted byte.
    """
    runs: list[list[Member]] = []
    for member in sorted(members, key=lambda member: member.start):
        if runs and runs[-1][-1].stop == member.start and member.stop - runs[-1][0].start <= LONGEST_RUN:
            runs[-1].append(member)
        else:
            runs.append([member])
    return runs


def _extract_runs(
    file: RangeFile,
    runs: Sequence[Sequence[Member]],
    path_of: Callable[[Member], Path],
    connections: int,
    progress: Callable[[int], None],
) -> dict[Member, str]:
    """Extract the runs, several at a time. The first one that fails for good stops the others."""
    damaged: dict[Member, str] = {}
    cancelled = threading.Event()
    with ThreadPoolExecutor(connections) as pool:
        waiting = [pool.submit(_extract_run, file, run, path_of, progress, cancelled) for run in runs]
        try:
            for done in as_completed(waiting):
                damaged |= done.result()
        except BaseException:
            cancelled.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return damaged


def _extract_run(
    file: RangeFile,
    run: Sequence[Member],
    path_of: Callable[[Member], Path],
    progress: Callable[[int], None],
    cancelled: threading.Event,
) -> dict[Member, str]:
    damaged = {}
    with closing(file.stream(run[0].start, run[-1].stop, cancelled)) as stream:
        source = _Forward(stream, run[0].start)
        for member in run:
            counted = 0

            def count(number: int) -> None:
                nonlocal counted
                counted += number
                progress(number)

            try:
                source.skip_to(member.start)
                with atomic(path_of(member)) as temporary:
                    _unpack(source, member, temporary, count)
            except _Damaged as error:
                damaged[member] = str(error)
                progress(-counted)
    return damaged


def _unpack(source: "_Forward", member: Member, path: Path, progress: Callable[[int], None]) -> None:
    """Write one member, whose local header is next in `source`. Raises _Damaged if anything contradicts its entry."""
    header = source.read(30)
    if header[:4] != b"PK\x03\x04":
        raise _Damaged("no member begins where the archive's directory says")
    name_length, extra_length = struct.unpack_from("<HH", header, 26)
    if member.start + 30 + name_length + extra_length + member.packed > member.stop:
        raise _Damaged("it overlaps what follows it")
    if source.read(name_length) != member.raw_name:
        raise _Damaged("another member lies where the archive's directory says")
    source.read(extra_length)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.deflated else None
    written, crc = 0, 0
    with open(path, "wb") as file:
        for packed in source.pieces(member.packed):
            progress(len(packed))
            piece: bytes | memoryview = packed
            if inflate:
                try:  # one byte more than expected shows that there is too much
                    piece = inflate.decompress(packed, member.size - written + 1)
                except zlib.error as error:
                    raise _Damaged(f"it does not unpack: {error}") from None
            written += len(piece)
            if written > member.size:
                raise _Damaged(f"it unpacks to more than the {member.size} bytes of its entry")
            crc = zlib.crc32(piece, crc)
            file.write(piece)
    if inflate and (not inflate.eof or inflate.unused_data):
        raise _Damaged("its packed data do not end where its entry says")
    if written != member.size:
        raise _Damaged(f"it unpacks to {written} bytes, its entry says {member.size}")
    if crc != member.crc:
        raise _Damaged(f"its CRC-32 is {crc:08x}, its entry says {member.crc:08x}")


class _Damaged(Exception):
    """The bytes of a member are not what the archive's directory says."""


class _Forward:
    """Pieces of a stream, read by count."""

    def __init__(self, stream: Iterator[bytes], position: int):
        self.stream, self.position = stream, position
        self.rest = memoryview(b"")

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Yield the next `count` bytes as they come. Raises _Damaged if the stream ends earlier."""
        while count:
            if not self.rest:
                arrived = next(self.stream, None)
                if arrived is None:
                    raise _Damaged("the archive ends within it")
                self.rest = memoryview(arrived)
            piece, self.rest = self.rest[:count], self.rest[count:]
            self.position += len(piece)
            count -= len(piece)
            yield piece

    def read(self, count: int) -> bytes:
        return b"".join(self.pieces(count))

    def skip_to(self, position: int) -> None:
        for _ in self.pieces(position - self.position):
            pass
