"""Members of zip archives: `zipfile` is the oracle, and nothing harmful or damaged gets through."""

import io
import random
import resource
import stat
import struct
import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pytest

from lesionseg.common.errors import InputError
from lesionseg.download import archive
from lesionseg.download.archive import LocalFile, extract, read_directory
from lesionseg.download.http_range import RemoteFile, RetryPolicy, TransferError
from loopback import Fault, Server

QUICK = RetryPolicy(connect_timeout=2, read_timeout=0.5, attempts=3, backoff=0.01)


def contents(count: int = 12, seed: int = 0) -> dict[str, bytes]:
    """Members that pack well, badly and not at all, one of them empty, one longer than a piece."""
    chance = random.Random(seed)
    made = {"top/a.bin": b"", "top/long.bin": chance.randbytes(700_000)}
    for number in range(count):
        length = chance.randrange(5000)
        made[f"top/ISIC_{number:07d}.bin"] = chance.choice([chance.randbytes(length), b"lesion" * length])
    return made


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("top/", b"")
        for name, content in members.items():
            file.writestr(name, content)
        file.comment = comment
    return buffer.getvalue()


def streamed(members: dict[str, bytes]) -> bytes:
    """As a writer that cannot seek makes it: sizes behind the data, zero in the local header."""

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            self.content += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return bytes(pipe.content)


def zip64(members: dict[str, bytes]) -> bytes:
    """Every size and offset in zip64 fields, as in an archive over 4 GiB."""
    buffer = io.BytesIO()
    file = zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED)
    for name, content in members.items():
        file.writestr(name, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile, "ZIP64_LIMIT", 0)
        file.close()
    return buffer.getvalue()


LAYOUTS = {
    "deflated": packed(contents()),
    "stored": packed(contents(), zipfile.ZIP_STORED),
    "streamed": streamed(contents()),
    "zip64": zip64(contents()),
    "longest comment": packed(contents(), comment=b"c" * 65535),
    "something before it": b"#!/bin/sh\n" * 1000 + packed(contents()),
    "empty": packed({}),
}


def local(tmp_path: Path, content: bytes) -> LocalFile:
    path = tmp_path / "archive.zip"
    path.write_bytes(content)
    return LocalFile(path)


def into(folder: Path):
    return lambda member: folder / PurePosixPath(member.name).name


def files(folder: Path) -> dict[str, bytes]:
    return {f"top/{path.name}": path.read_bytes() for path in folder.glob("*")}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", ["disk", "server"])
def test_members_are_what_zipfile_reads(layout, where, tmp_path):
    content = LAYOUTS[layout]
    with Server({"a.zip": content}) as server, zipfile.ZipFile(io.BytesIO(content)) as oracle:
        file = local(tmp_path, content) if where == "disk" else RemoteFile(f"{server.url}/a.zip", QUICK)
        members = read_directory(file, "a.zip")
        expected = [entry for entry in oracle.infolist() if not entry.is_dir()]
        assert [(m.name, m.packed, m.size, m.crc) for m in members] == [
            (e.filename, e.compress_size, e.file_size, e.CRC) for e in expected
        ]
        for seed in range(3):
            chosen = random.Random(seed).sample(members, k=random.Random(seed).randint(0, len(members)))
            folder = tmp_path / str(seed)
            assert extract(file, chosen, into(folder), connections=3) == {}
            assert files(folder) == {member.name: oracle.read(member.name) for member in chosen}


def test_the_zip64_layout_is_one():
    assert b"PK\x06\x06" in LAYOUTS["zip64"]
    assert b"PK\x06\x06" not in LAYOUTS["deflated"]


@pytest.mark.parametrize("where", ["disk", "server"])
def test_members_beyond_4_gib(where, tmp_path):
    path = tmp_path / "huge.zip"
    with open(path, "wb") as file:
        file.seek(5 << 30)  # a hole: takes no space on the disk
        with zipfile.ZipFile(file, "w") as huge:
            for name, content in contents().items():
                huge.writestr(name, content)
    with Server({"huge.zip": path}) as server:
        file = LocalFile(path) if where == "disk" else RemoteFile(f"{server.url}/huge.zip")
        members = read_directory(file, "huge.zip")
        assert all(member.start >= 5 << 30 for member in members)
        assert extract(file, members, into(tmp_path / "out")) == {}
        assert files(tmp_path / "out") == contents()


def test_the_directory_costs_the_end_of_the_archive_once():
    members = {f"top/{number}.bin": bytes(2000) for number in range(2594)}
    content = packed(members, zipfile.ZIP_STORED)
    with zipfile.ZipFile(io.BytesIO(content)) as oracle:
        directory = len(content) - oracle.start_dir
    assert directory > archive.TAIL, "more than the first look finds"
    with Server({"a.zip": content}) as server:
        assert len(read_directory(RemoteFile(f"{server.url}/a.zip"), "a.zip")) == 2594
        assert server.sent == 1 + directory
        assert len(server.requests) == 3


def test_only_the_members_asked_for_are_transferred_and_neighbours_share_a_request(tmp_path):
    members = {f"top/{number:02d}.bin": random.Random(number).randbytes(3000) for number in range(20)}
    content = packed(members, zipfile.ZIP_STORED)
    with Server({"a.zip": content}) as server:
        file = RemoteFile(f"{server.url}/a.zip")
        directory = read_directory(file, "a.zip")
        before, requests = server.sent, len(server.requests)
        chosen = [directory[i] for i in (2, 3, 4, 9, 15, 16)]
        counted = []
        assert extract(file, chosen, into(tmp_path), connections=2, progress=counted.append) == {}
        assert len(server.requests) - requests == 3
        assert server.sent - before == sum(member.stop - member.start for member in chosen)
        assert sum(counted) == 6 * 3000


def test_a_run_of_neighbours_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LONGEST_RUN", 10_000)
    members = {f"top/{number:02d}.bin": random.Random(number).randbytes(3000) for number in range(20)}
    with Server({"a.zip": packed(members, zipfile.ZIP_STORED)}) as server:
        file = RemoteFile(f"{server.url}/a.zip")
        extract(file, read_directory(file, "a.zip"), into(tmp_path))
        assert files(tmp_path) == members
        assert max(last - first + 1 for first, last in (request.range for request in server.requests[3:])) <= 10_000


def test_requests_run_at_the_same_time(tmp_path):
    content = packed({f"top/{number:02d}.bin": bytes(30_000) for number in range(16)}, zipfile.ZIP_STORED)
    together = threading.Barrier(4, timeout=10)

    def fault(request, index):
        if request.range[1] < len(content) - archive.TAIL:
            together.wait()  # breaks unless four requests are here at once

    with Server({"a.zip": content}) as server:
        file = RemoteFile(f"{server.url}/a.zip")
        directory = read_directory(file, "a.zip")
        server.fault = fault
        assert extract(file, directory[:8:2], into(tmp_path), connections=4) == {}
    assert not together.broken


# What is refused


def entry(name: str = "top/a.bin", mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def with_entries(*entries: zipfile.ZipInfo, content: bytes = b"content") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # zipfile warns of the same name twice
        for info in entries:
            file.writestr(info, content)
    return buffer.getvalue()


def patched(content: bytes, position: int, layout: str, *values: int) -> bytes:
    """`content` with values of the directory's first entry overwritten."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        base = file.start_dir
    changed = bytearray(content)
    struct.pack_into(layout, changed, base + position, *values)
    return bytes(changed)


FLAGS, METHOD, CRC, PACKED, SIZE = 8, 10, 16, 20, 24  # positions within an entry of the directory


@pytest.mark.parametrize(
    "name", ["../a.bin", "top/../../a.bin", "/etc/a.bin", "C:/a.bin", "..\\a.bin", "\\a.bin", "\\\\host\\a.bin", ".."]
)
def test_names_that_lead_out_are_refused(name, tmp_path):
    content = with_entries(entry("top/good.bin"), entry(name))
    with pytest.raises(InputError, match="leads out of its directory"):
        read_directory(local(tmp_path, content), "a.zip")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(kind, tmp_path):
    content = with_entries(entry(mode=kind | 0o777), content=b"/etc/passwd")
    with pytest.raises(InputError, match=r"'top/a.bin' is a link or a device"):
        read_directory(local(tmp_path, content), "a.zip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_entries(entry(), entry()), "appears twice"),
        (patched(with_entries(entry()), FLAGS, "<H", 1), "is encrypted"),
        (patched(with_entries(entry()), METHOD, "<H", 12), "compressed by method 12"),
        (patched(with_entries(entry()), SIZE, "<L", 9), "is stored in 7 bytes, but has 9"),
        (patched(with_entries(entry()), METHOD, "<HLLLL", 8, 0, 0, 7, 3 << 30), "more than 1 GiB"),
        (patched(with_entries(entry(), entry("top/b.bin")), PACKED, "<LL", 500, 500), "overlaps its neighbour"),
    ],
)
def test_entries_that_cannot_be_read_safely_are_refused(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_directory(local(tmp_path, content), "a.zip")


def test_every_refusal_is_named_at_once(tmp_path):
    content = with_entries(entry("../a"), entry("/b"), entry("top/c", stat.S_IFLNK))
    with pytest.raises(InputError) as caught:
        read_directory(local(tmp_path, content), "a.zip")
    assert len(caught.value.problems) == 3


def test_deflate64_is_named_with_its_cure(tmp_path):
    content = bytearray(LAYOUTS["deflated"])
    for signature, offset in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        content[content.index(signature) + offset] = 9
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"compressed by Deflate64, as Windows Explorer .*; unpack the archive"):
        read_directory(LocalFile(tmp_path / "a.zip"), "a.zip")


def test_a_directory_of_a_million_entries_is_not_read():
    class Endless:
        size = 64 << 20
        asked = 0

        def stream(self, start, stop, cancelled=None):
            self.asked += stop - start
            end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFE, 0xFFFE, self.size - 22, 0, 0)
            yield (bytes(stop - start) + end)[-(stop - start) :]

    file = Endless()
    with pytest.raises(InputError, match=r"its directory claims to be longer than 8 MiB"):
        read_directory(file, "a.zip")
    assert file.asked < 1 << 20


def test_a_directory_without_end_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LONGEST_DIRECTORY", 100_000)
    content = packed({f"top/{number}": b"" for number in range(2000)})
    with pytest.raises(InputError, match="its directory claims to be longer"):
        read_directory(local(tmp_path, content), "a.zip")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", bytes(200_000), LAYOUTS["stored"][:-1]])
def test_what_is_no_whole_archive_is_said(content, tmp_path):
    with pytest.raises(InputError, match=rf"a\.zip: not a whole zip archive \({len(content)} bytes\)"):
        read_directory(local(tmp_path, content), "a.zip")


# What is damaged


@pytest.mark.parametrize("claimed", [0, 10, 29_999_999, 30_000_001])
def test_a_member_of_another_size_than_its_entry_is_refused(claimed, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("top/a.bin", bytes(30_000_000))
    content = patched(buffer.getvalue(), SIZE, "<L", claimed)
    content = patched(content, CRC, "<L", zlib.crc32(bytes(claimed)))
    file = local(tmp_path, content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(claimed, 1 << 20) + 1, limits[1]))  # OSError where more is written
    try:
        (damage,) = extract(file, read_directory(file, "a.zip"), into(tmp_path / "out")).values()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "its entry" in damage
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("layout", ["stored", "deflated", "streamed", "zip64"])
def test_no_flipped_byte_gets_through(layout, tmp_path):
    """Wherever one byte of an archive is wrong, what is written is what was packed, or nothing is."""
    small = {f"top/{number}.bin": bytes([number]) * 30 + random.Random(number).randbytes(9) for number in range(3)}
    content = {
        "stored": packed(small, zipfile.ZIP_STORED),
        "deflated": packed(small),
        "streamed": streamed(small),
        "zip64": zip64(small),
    }[layout]
    originals, found = set(small.values()), 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        file = local(tmp_path, bytes(changed))
        try:
            members = read_directory(file, "a.zip")
        except InputError:
            found += 1
            continue
        out = tmp_path / "out"
        damaged = extract(file, members, lambda member, out=out: out / str(member.start))
        found += bool(damaged) or len(members) < len(small)
        for path in out.glob("*"):
            assert path.read_bytes() in originals
            path.unlink()
    assert found > len(content) / 2, "most of the bytes matter"


def test_no_truncated_archive_gets_through(tmp_path):
    content = packed({f"top/{number}.bin": bytes([number]) * 40 for number in range(8)})
    for length in range(len(content)):
        with pytest.raises(InputError, match="not a whole zip archive"):
            read_directory(local(tmp_path, content[:length]), "a.zip")


def test_an_archive_cut_short_behind_our_back_is_damage_not_an_endless_read(tmp_path):
    file = local(tmp_path, LAYOUTS["stored"])
    members = read_directory(file, "a.zip")
    with open(file.path, "r+b") as archive_file:
        archive_file.truncate(members[3].start + 5)
    damaged = extract(file, members, into(tmp_path / "out"))
    assert set(damaged) == set(members[3:])
    assert set(files(tmp_path / "out")) == {member.name for member in members[:3]}


def test_bytes_that_arrive_wrong_are_fetched_again(tmp_path):
    members = {f"top/{number}.bin": random.Random(number).randbytes(3000) for number in range(5)}
    spoil = {3: Fault(corrupt=True)}
    with Server({"a.zip": packed(members, zipfile.ZIP_STORED)}, lambda _, index: spoil.get(index)) as server:
        file = RemoteFile(f"{server.url}/a.zip")
        directory = read_directory(file, "a.zip")
        spoil[len(server.requests)] = Fault(corrupt=True)
        counted = []
        assert extract(file, directory, into(tmp_path), progress=counted.append) == {}
        assert files(tmp_path) == members
        assert sum(counted) == 5 * 3000, "bytes of no use are taken back"


def test_bytes_that_stay_wrong_are_reported_and_the_rest_is_kept(tmp_path):
    members = {f"top/{number}.bin": random.Random(number).randbytes(3000) for number in range(5)}
    content = bytearray(packed(members, zipfile.ZIP_STORED))
    content[content.index(members["top/2.bin"]) + 100] ^= 1
    with Server({"a.zip": bytes(content)}) as server:
        file = RemoteFile(f"{server.url}/a.zip")
        damaged = extract(file, read_directory(file, "a.zip"), into(tmp_path))
    ((member, problem),) = damaged.items()
    assert (member.name, problem.split(" is ")[0]) == ("top/2.bin", "its CRC-32")
    del members["top/2.bin"]
    assert files(tmp_path) == members


def test_a_network_that_fails_for_good_ends_everything_and_keeps_what_is_whole(tmp_path):
    members = {f"top/{number:03d}.bin": random.Random(number).randbytes(3000) for number in range(200)}
    with Server({"a.zip": packed(members, zipfile.ZIP_STORED)}) as server:
        file = RemoteFile(f"{server.url}/a.zip", QUICK)
        directory = read_directory(file, "a.zip")
        start = len(server.requests)
        server.fault = lambda request, index: Fault(status=503) if index - start >= 10 else None
        with pytest.raises(TransferError, match="503"):
            extract(file, directory[::2], into(tmp_path), connections=4)
        assert len(server.requests) - start <= 10 + 4 * QUICK.attempts, "the other members are not even asked for"
    kept = files(tmp_path)
    assert 0 < len(kept) <= 10
    assert kept.items() <= members.items()
