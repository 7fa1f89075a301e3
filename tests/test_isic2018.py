"""The official source: what is fetched, what is kept, and what is said when something is missing."""

import dataclasses
import hashlib
import io
import json
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from PIL import Image

from isic_archives import TRAINING, archive, identifier, official, outline, photograph
from lesionseg.common.errors import InputError
from lesionseg.download import isic2018
from lesionseg.download.archive import TAIL, crc32, read_directory
from lesionseg.download.http_range import RetryPolicy
from lesionseg.download.isic2018 import SETS
from lesionseg.download.subset import choose_subset
from lesionseg.formats import manifest
from loopback import Fault, Server

FILES = official({"training": range(30), "validation": range(100, 105), "test": range(200, 207)})
IMAGES, MASKS = f"{TRAINING.images.name}.zip", f"{TRAINING.masks.name}.zip"
QUICK = RetryPolicy(connect_timeout=2, read_timeout=0.5, attempts=3, backoff=0.01)


class Fetch:
    """`isic2018.fetch` into new directories, with one store for all calls."""

    def __init__(self, folder: Path):
        self.folder, self.store, self.calls = folder, folder / "store", 0

    def __call__(self, base_url: str | None, limit: int | None = 6, **changed):
        self.calls += 1
        self.target = self.folder / f"raw{self.calls}"
        self.target.mkdir()
        chosen = {name: changed.pop(name) for name in ("seed", "test_set") if name in changed}
        kept = {name: changed.pop(name) for name in ("work", "record", "workers") if name in changed}
        origin = isic2018.Origin(**({"base_url": base_url, "policy": QUICK} | changed))
        return isic2018.fetch(self.target, isic2018.Choice(limit, **chosen), origin, **({"work": self.store} | kept))


@pytest.fixture
def fetch(tmp_path):
    return Fetch(tmp_path)


@pytest.fixture
def server():
    with Server(FILES) as running:
        yield running


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(numbers) -> list[str]:
    return [identifier(number) for number in numbers]


# What is fetched


def test_pairs_are_the_members_of_the_archives_and_the_rows_describe_them(fetch, server):
    pairs = fetch(server.url, None)
    assert [pair.id for pair in pairs] == names(range(30))
    for number, pair in enumerate(pairs):
        image, mask = (fetch.target / path for path in (pair.image, pair.mask))
        assert (pair.image, pair.mask) == (f"images/{pair.id}.jpg", f"masks/{pair.id}_segmentation.png")
        assert image.read_bytes() == photograph(number)
        assert mask.read_bytes() == outline(number)
        assert pair.image_sha256 == hashlib.sha256(photograph(number)).hexdigest()
        assert pair.mask_sha256 == hashlib.sha256(outline(number)).hexdigest()
        with Image.open(image) as opened:
            assert (pair.width, pair.height) == opened.size
        assert (pair.subset, pair.source) == ("training", "isic2018")
    assert set(tree(fetch.target)) == {
        *(pair.image for pair in pairs),
        *(pair.mask for pair in pairs),
        "ATTRIBUTION.txt",
        "LICENSE.txt",
    }, "no superpixel file, no directory, no text among the samples"
    assert (fetch.target / "LICENSE.txt").read_text() == "CC-0\n"


def test_limit_and_seed_choose_the_training_pairs(fetch, server):
    everything = names(range(30))
    for limit, seed in ((1, 0), (6, 0), (6, 1), (29, 0)):
        assert [pair.id for pair in fetch(server.url, limit, seed=seed)] == choose_subset(everything, limit, seed)
    with pytest.raises(InputError, match=r"download\.limit: found 31, but the source has 30 pairs"):
        fetch(server.url, 31)


@pytest.mark.parametrize(
    ("test_set", "numbers"), [("none", ()), ("validation", range(100, 105)), ("test", range(200, 207))]
)
def test_the_official_test_set_comes_whole_and_marked(fetch, server, test_set, numbers):
    pairs = fetch(server.url, 4, test_set=test_set)
    assert [pair.id for pair in pairs if pair.subset == "training"] == choose_subset(names(range(30)), 4, 0)
    assert [pair.id for pair in pairs if pair.subset == test_set] == names(numbers)
    assert len(pairs) == 4 + len(numbers)


def test_the_same_call_gives_the_same_bytes_whatever_the_number_of_connections(fetch, server):
    trees = []
    for workers in (1, 8):
        pairs = fetch(server.url, 12, test_set="validation", workers=workers, work=fetch.folder / f"store{workers}")
        trees.append((pairs, tree(fetch.target)))
    assert trees[0] == trees[1]


def test_different_notices_are_all_kept(fetch, server):
    server.files[MASKS] = rebuilt(MASKS, {"LICENSE.txt": b"another\n"})
    fetch(server.url)
    text = (fetch.target / "LICENSE.txt").read_text()
    assert re.search(rf"{TRAINING.images.name}:\n\nCC-0\n\n\n{TRAINING.masks.name}:\n\nanother\n", text)
    assert (fetch.target / "ATTRIBUTION.txt").read_text() == "Tschandl et al. 2018\n"


def rebuilt(name: str, changed: dict[str, bytes | None]) -> bytes:
    """The archive with members replaced, added, or (None) left out."""
    with zipfile.ZipFile(io.BytesIO(FILES[name])) as old:
        members = {entry.filename.split("/")[1]: old.read(entry) for entry in old.infolist()}
    members = {key: value for key, value in (members | changed).items() if key and value is not None}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for member, content in members.items():
            new.writestr(f"{name.removesuffix('.zip')}/{member}", content)
    return buffer.getvalue()


def test_500_of_2594_cost_at_most_a_fifth_of_the_archive(fetch):
    size = 20_000
    image, mask = photograph(0, noise=0), outline(0)
    images = {f"{name}.jpg": image + bytes(size - len(image)) for name in names(range(2594))}
    masks = {f"{name}_segmentation.png": mask for name in names(range(2594))}
    files = {IMAGES: archive(TRAINING.images.name, images), MASKS: archive(TRAINING.masks.name, masks)}
    with Server(files) as server:
        assert len(fetch(server.url, 500)) == 500
        sent = {name: sum(request.sent for request in server.requests if request.path == name) for name in files}
        assert sent[IMAGES] <= 0.2 * len(files[IMAGES])
        # the directory of the masks is as long as that of the images: it weighs more beside smaller members
        directory = 2594 * 150
        assert sent[MASKS] <= 0.2 * len(files[MASKS]) + directory
        assert sum(sent.values()) <= 0.2 * len(files[IMAGES]) + len(files[MASKS])


# What is kept


def test_a_larger_limit_another_test_set_and_another_seed_fetch_only_the_difference(fetch, server):
    directories = directory_cost(server, ("training",))
    fetch(server.url, 6)
    before = server.sent
    fetch(server.url, 6)
    assert server.sent - before == directories, "nothing but the directories again"
    before = server.sent
    pairs = fetch(server.url, 9)
    new = set(choose_subset(names(range(30)), 9, 0)) - set(choose_subset(names(range(30)), 6, 0))
    assert server.sent - before == directories + sum(member_costs(new))
    assert len(pairs) == 9


def directory_cost(server: Server, subsets) -> int:
    """Bytes it takes to read the directories of the archives."""
    before = server.sent
    for subset in subsets:
        for official_archive in (SETS[subset].images, SETS[subset].masks):
            file = isic2018.RemoteFile(f"{server.url}/{official_archive.name}.zip")
            read_directory(file, "")
    return server.sent - before


def member_costs(wanted) -> list[int]:
    costs = []
    for name in (IMAGES, MASKS):
        members = read_directory(InMemory(FILES[name]), name)
        costs += [m.stop - m.start for m in members if re.sub(r".*/|\.jpg|_segmentation\.png", "", m.name) in wanted]
    return costs


class InMemory:
    def __init__(self, content: bytes):
        self.content, self.size = content, len(content)

    def stream(self, start, stop, cancelled=None):
        yield self.content[start:stop]


SCRIPT = """
import sys
from pathlib import Path
from lesionseg.download.http_range import RetryPolicy
from lesionseg.download import isic2018
target = Path(sys.argv[2]); target.mkdir()
isic2018.fetch(target, isic2018.Choice(None), isic2018.Origin(base_url=sys.argv[1]), work=Path(sys.argv[3]), workers=3)
"""


def test_killed_anywhere_it_goes_on_and_fetches_no_complete_member_twice(tmp_path):
    """SIGKILL at random points, until a run gets through; the store is looked at after every kill."""
    chance = random.Random(5)
    store = tmp_path / "store"
    with Server(official({"training": range(30)}, noise=60_000)) as server:
        spans = {}
        for name in (IMAGES, MASKS):
            for member in read_directory(InMemory(server.files[name]), name):
                spans[name, member.name.rsplit("/")[-1]] = member
        server.fault = lambda request, index: Fault(pause=0.01)  # slow enough to be hit anywhere
        kept: set[tuple[str, str]] = set()
        kills = 0
        while True:
            before = len(server.requests)
            target = tmp_path / f"raw{kills}"
            process = subprocess.Popen([sys.executable, "-c", SCRIPT, server.url, str(target), str(store)])
            deadline = time.monotonic() + 60
            stop_at = before + chance.randrange(3, 16)
            while process.poll() is None and len(server.requests) < stop_at and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.02)
            finished = process.poll() == 0
            process.kill()
            process.wait()
            for request in server.requests[before:]:
                for path, name in kept:
                    span = spans[path, name]
                    overlap = request.path == path and request.range[0] < span.stop and span.start <= request.range[1]
                    in_tail = request.range[0] == max(0, len(server.files[path]) - TAIL)  # the search for the directory
                    assert not overlap or in_tail, f"{name} was complete and is fetched again"
            if finished:
                break
            kills += 1
            assert process.returncode == -signal.SIGKILL, "it may only end by being killed or by being done"
            kept = complete(store, spans)
            assert kills < 100
        assert kills >= 3
        for number in range(30):
            assert (target / f"images/{identifier(number)}.jpg").read_bytes() == photograph(number, 60_000)
            assert (target / f"masks/{identifier(number)}_segmentation.png").read_bytes() == outline(number)
        assert not list(store.rglob(".*.tmp")), "what the killed runs left half done is cleared"


def complete(store: Path, spans) -> set[tuple[str, str]]:
    """The members whose kept file is whole; none may be kept that is not."""
    found = set()
    for path in store.glob("*/[!.]*"):
        stem, crc, suffix = path.name.rsplit(".", 2)
        key = (f"{path.parent.name}.zip", f"{stem}.{suffix}")
        content = path.read_bytes()
        assert (len(content), crc) == (spans[key].size, f"{spans[key].crc:08x}")
        assert crc32(path) == spans[key].crc, f"{path.name} is half-written under its real name"
        found.add(key)
    return found


@pytest.mark.parametrize("harm", ["truncate", "change", "delete"])
def test_what_is_kept_is_not_trusted_blindly(fetch, server, harm):
    fetch(server.url)
    first = tree(fetch.target)
    victim = sorted((fetch.store / TRAINING.images.name).glob("ISIC*"))[0]
    content = victim.read_bytes()
    victim.unlink()
    if harm != "delete":
        victim.write_bytes(content[:-1] if harm == "truncate" else content[:-1] + b"?")
    fetch(server.url)
    assert tree(fetch.target) == first


def test_an_archive_that_changed_between_runs_is_read_anew(fetch, server):
    """Of the old archive only members that are the same, byte for byte, may serve."""
    chosen = choose_subset(names(range(30)), 6, 0)
    fetch(server.url)
    new = photograph(999)
    server.files[IMAGES] = rebuilt(IMAGES, {f"{chosen[0]}.jpg": new})
    server.etag = '"2"'
    before = len(server.requests)
    fetch(server.url)
    assert (fetch.target / f"images/{chosen[0]}.jpg").read_bytes() == new
    assert (fetch.target / f"images/{chosen[1]}.jpg").read_bytes() == photograph(int(chosen[1][5:]))
    members = [request for request in server.requests[before:] if request.path == IMAGES][2:]
    assert len(members) == 1, "the changed image"


def test_an_archive_that_changes_while_it_is_read_stops_the_run(fetch, server):
    """Of another size by the first answer, of the same by the sum of the member."""
    chosen = max(
        choose_subset(names(range(30)), 6, 0)
    )  # the last one asked for: the answer to the first is still the old

    def become(content: bytes):
        def fault(request, index):
            if request.path == IMAGES and request.range[0] > 1 and request.range[1] < len(FILES[IMAGES]) - 1:
                server.files[IMAGES] = content

        return fault

    server.fault = become(FILES[IMAGES] + b"x")
    with pytest.raises(InputError, match="changed on the server"):
        fetch(server.url)
    server.files = dict(FILES)
    old = photograph(int(chosen[5:]))
    server.fault = become(FILES[IMAGES].replace(old, old[:-1] + b"?"))
    with pytest.raises(InputError, match=rf"{chosen}\.jpg': its CRC-32 is"):
        fetch(server.url, work=fetch.folder / "new", workers=1)


# What came once is what must come


def test_the_sum_of_each_file_is_written_down_and_held_against_what_comes_later(fetch, server, tmp_path):
    server.files[IMAGES] = rebuilt(IMAGES, {})
    record = tmp_path / "sums.txt"
    mirror = {"sets": pinned(files=server.files), "record": record}
    fetch(server.url, 3, **mirror)
    written = record.read_text()
    lines = dict(reversed(line.split("  ")) for line in written.splitlines())
    assert len(lines) == 2 * (3 + 2)
    assert list(lines) == sorted(lines)
    for path in (fetch.target / "images").iterdir():
        assert lines[f"{TRAINING.images.name}/{path.name}"] == hashlib.sha256(path.read_bytes()).hexdigest()
    fetch(server.url, 6, **mirror)
    grown = record.read_text()
    assert set(written.splitlines()) < set(grown.splitlines())

    # another file under the same name, with a directory that agrees with it and a length that is the same
    chosen = choose_subset(names(range(30)), 6, 0)[0]
    old, length = photograph(int(chosen[5:])), len(server.files[IMAGES])
    server.files[IMAGES] = rebuilt(IMAGES, {f"{chosen}.jpg": old[:-1] + b"?"})
    assert len(server.files[IMAGES]) == length
    for _ in range(2):
        with pytest.raises(InputError, match=rf"{chosen}\.jpg': found SHA-256 \w+, expected \w+ as recorded in .*sums"):
            fetch(server.url, 6, **mirror)
    assert record.read_text() == grown
    assert not list(fetch.target.iterdir())
    record.write_text("".join(line + "\n" for line in grown.splitlines() if chosen not in line))
    fetch(server.url, 6, **mirror)
    assert record.read_text() != grown


def test_sums_of_other_archives_are_not_written_down_and_incomplete_fetches_neither(fetch, server, tmp_path):
    record = tmp_path / "sums.txt"
    fetch(server.url, record=record)
    assert not record.exists(), "they are not as long as those published"
    spoiled = FILES[IMAGES][:300] + bytes([FILES[IMAGES][300] ^ 1]) + FILES[IMAGES][301:]
    server.files[IMAGES] = spoiled
    with pytest.raises(InputError):
        fetch(server.url, None, record=record, sets=pinned(), work=tmp_path / "new")
    assert not record.exists()
    record.write_text("0123  a/b\n")
    with pytest.raises(InputError, match=r"sums\.txt: line 1: expected '<64 hex digits>"):
        fetch(server.url, record=record)


# Where it is fetched from


def test_archives_at_hand_are_read_by_the_same_code_and_nothing_is_left_behind(fetch, server, tmp_path):
    expected = fetch(server.url, 7, test_set="validation")
    first, before = tree(fetch.target), len(server.requests)
    folder = tmp_path / "archives"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    store = tmp_path / "other"
    assert fetch("http://127.0.0.1:9/", 7, test_set="validation", archives=folder, work=store) == expected
    assert tree(fetch.target) == first
    assert len(server.requests) == before
    assert tree(store) == {}
    (folder / MASKS).unlink()
    assert fetch(server.url, 7, test_set="validation", archives=folder, work=store) == expected
    assert {request.path for request in server.requests[before:]} == {MASKS}, "only what is not at hand"


@pytest.mark.parametrize("suffix", [" (1).zip", "(2).zip", "-1.zip", " copy.zip", ".ZIP", ".zip/"])
def test_archives_at_hand_are_found_as_browsers_and_people_leave_them(fetch, tmp_path, suffix):
    folder = tmp_path / "archives"
    folder.mkdir()
    for name, content in FILES.items():
        if suffix.endswith("/"):
            with zipfile.ZipFile(io.BytesIO(content)) as unpacked:
                unpacked.extractall(folder / name.removesuffix(".zip"))  # a folder in a folder
        else:
            (folder / name.replace(".zip", suffix)).write_bytes(content)
    pairs = fetch("http://127.0.0.1:9/", None, archives=folder)
    assert [pair.id for pair in pairs] == names(range(30))
    assert (fetch.target / pairs[3].image).read_bytes() == photograph(3)
    assert (fetch.target / "LICENSE.txt").exists()
    assert tree(fetch.store) == {}


def test_the_genuine_one_of_several_is_taken(fetch, tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    (folder / MASKS).write_bytes(FILES[MASKS])
    (folder / IMAGES).write_bytes(FILES[IMAGES][:5000])
    (folder / IMAGES.replace(".zip", " (1).zip")).write_bytes(FILES[IMAGES])
    assert len(fetch("http://127.0.0.1:9/", archives=folder, sets=pinned())) == 6


def test_what_is_not_at_hand_is_said_before_it_is_fetched(fetch, server, tmp_path, caplog):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / MASKS).write_bytes(FILES[MASKS])
    (tmp_path / "archives" / "Training.zip").touch()
    server.fault = lambda *_: Fault(status=404)
    with pytest.raises(InputError):
        fetch(server.url, archives=tmp_path / "archives")
    (line,) = [record.getMessage() for record in caplog.records if " lacks " in record.getMessage()]
    assert (
        f"lacks {IMAGES} (11,165,358,566 bytes), which will be downloaded; found there: {MASKS}, Training.zip" in line
    )


def test_members_in_upper_case_and_behind_backslashes_are_found(fetch, server):
    def renamed(name: str) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(FILES[name])) as old, zipfile.ZipFile(buffer, "w") as new:
            for entry in old.infolist():
                if not entry.is_dir():
                    info = zipfile.ZipInfo("x")
                    info.filename = entry.filename.upper().replace(".TXT", ".txt").replace("/", "\\")
                    new.writestr(info, old.read(entry))
        return buffer.getvalue()

    server.files = {name: renamed(name) for name in FILES}
    pairs = fetch(server.url, None)
    assert [pair.id for pair in pairs] == names(range(30))
    assert (fetch.target / pairs[3].image).read_bytes() == photograph(3)


def test_notices_of_many_megabytes_are_left_where_they_are(fetch, server):
    server.files[IMAGES] = rebuilt(IMAGES, {"LICENSE.txt": bytes((1 << 20) + 1)})
    fetch(server.url)
    assert (fetch.target / "LICENSE.txt").read_bytes() == b"CC-0\n", "that of the masks"


def test_an_archive_at_hand_must_be_whole_and_genuine(fetch, tmp_path):
    folder = tmp_path / "archives"
    with pytest.raises(InputError, match=r"download\.archives: .*archives: no such directory"):
        fetch("http://127.0.0.1:9/", archives=folder)
    folder.mkdir()
    (folder / MASKS).write_bytes(FILES[MASKS])
    (folder / IMAGES).write_bytes(FILES[IMAGES][:5000])
    with pytest.raises(InputError, match=rf"{IMAGES}: not a whole zip archive \(5000 bytes\)"):
        fetch("http://127.0.0.1:9/", archives=folder)
    (folder / IMAGES).write_bytes(FILES[IMAGES])
    with pytest.raises(InputError, match=rf"{IMAGES}: found SHA-256 [0-9a-f]{{64}}, expected 00ff"):
        fetch("http://127.0.0.1:9/", archives=folder, sets=pinned("00ff"))
    assert len(fetch("http://127.0.0.1:9/", archives=folder, sets=pinned())) == 6
    assert not list(fetch.folder.glob("raw1/*")), "a refusal comes before anything is written"


def pinned(images_sha256: str | None = None, pairs: int = 30, files: dict[str, bytes] = FILES):
    """The table of official archives as if the ones served here were they."""

    def pin(official_archive):
        content = files[f"{official_archive.name}.zip"]
        return dataclasses.replace(official_archive, size=len(content), sha256=hashlib.sha256(content).hexdigest())

    images, masks = pin(TRAINING.images), pin(TRAINING.masks)
    if images_sha256:
        images = dataclasses.replace(images, sha256=images_sha256)
    return {"training": isic2018.OfficialSet(images, masks, pairs)}


def test_a_genuine_archive_has_the_official_number_of_pairs(fetch, server):
    with pytest.raises(InputError, match="found 30 pairs, expected 31"):
        fetch(server.url, sets=pinned(pairs=31))


def test_the_second_host_takes_over_where_the_first_one_fails(fetch, server, monkeypatch):
    with Server(FILES) as first:
        first.fault = lambda request, index: Fault(status=503) if index > 9 else None
        monkeypatch.setattr(isic2018, "HOSTS", (first.url, f"{server.url}/"))
        assert len(fetch(None, sets=pinned(), workers=1)) == 6
        assert 0 <= len(first.requests) - 10 - QUICK.attempts <= 1, "the thread may begin one more before it is stopped"
        served = [
            (request.path, request.range) for request in first.requests[:10] if request.range[1] - request.range[0] > 1
        ]
        again = [(r.path, r.range) for r in server.requests if r.range[1] < len(FILES[r.path]) - 1]
        assert not set(served) & set(again), "what the first host gave is not asked of the second"


def test_a_host_whose_copy_is_damaged_is_made_up_for_by_the_second(fetch, server, monkeypatch):
    chosen = choose_subset(names(range(30)), 6, 0)[2]
    spoiled = bytearray(FILES[IMAGES])
    spoiled[spoiled.index(photograph(int(chosen[5:]))) + 50] ^= 1
    with Server(FILES | {IMAGES: bytes(spoiled)}) as first:
        monkeypatch.setattr(isic2018, "HOSTS", (first.url, server.url))
        assert len(fetch(None, sets=pinned())) == 6
    assert (fetch.target / f"images/{chosen}.jpg").read_bytes() == photograph(int(chosen[5:]))


def test_the_official_hosts_must_serve_the_published_archives(fetch, server, monkeypatch):
    monkeypatch.setattr(isic2018, "HOSTS", (server.url,))
    with pytest.raises(InputError, match=rf"{IMAGES}: found {len(FILES[IMAGES])} bytes, expected 11165358566"):
        fetch(None)
    assert len(fetch(server.url)) == 6, "a mirror named by the user may serve its own"


def test_a_server_without_ranges_is_refused(fetch, server):
    server.fault = lambda request, index: Fault(ignore_range=True)
    with pytest.raises(InputError, match=rf"{IMAGES}: the server has no byte ranges"):
        fetch(server.url)
    assert tree(fetch.store) == {}


def test_the_query_of_a_signed_address_stays_behind_the_path(fetch, server):
    with pytest.raises(InputError) as caught:
        fetch(f"{server.url}/mirror/?signature=secret")
    assert server.requests[0].path == f"mirror/{IMAGES}?signature=secret"
    assert "secret" not in str(caught.value)


def test_plain_http_is_for_loopback_and_those_who_say_so(fetch):
    with pytest.raises(InputError, match=rf"http://mirror\.invalid/{IMAGES}: refused, expected https"):
        fetch("http://mirror.invalid")
    with pytest.raises(InputError, match=rf"http://mirror\.invalid/{IMAGES}: (?!refused)"):
        fetch("http://mirror.invalid", allow_http=True)


FAULTS = [
    Fault(cut=900, reset=True),
    Fault(cut=900),
    Fault(cut=0, stall=0.7),
    Fault(shorter=800),
    Fault(status=429, headers={"Retry-After": "0"}),
    Fault(status=500),
    Fault(status=503),
    Fault(ignore_range=True),
    Fault(corrupt=True),
]


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_network_changes_nothing_but_the_time(fetch, server, seed):
    expected = fetch(server.url, 25, test_set="validation")
    first = tree(fetch.target)
    chance = random.Random(seed)
    met = set()

    def fault(request, index):
        # what opens an archive is never spoiled unseen: its directory has no sum of its own
        opening = request.range == (0, 0) or request.range[1] == len(FILES[request.path]) - 1
        chosen = chance.choice(FAULTS[:7] if opening else FAULTS) if chance.random() < 0.3 else None
        met.add(chosen and FAULTS.index(chosen))
        return chosen

    server.fault = fault
    patient = RetryPolicy(read_timeout=0.5, attempts=12, first_attempts=12, backoff=0.001, longest_pause=0.01)
    assert fetch(server.url, 25, test_set="validation", work=fetch.folder / "new", policy=patient) == expected
    assert tree(fetch.target) == first
    assert len(met) > 5, "it was a bad network"


# What stays broken


def test_the_message_says_what_is_there_what_is_not_and_how_to_go_on(fetch, server):
    server.fault = lambda request, index: Fault(status=503) if request.path == IMAGES and index > 7 else None
    with pytest.raises(InputError) as caught:
        fetch(server.url, workers=1, sets=pinned())
    message = str(caught.value)
    there, wanted, missing = re.search(
        rf"{IMAGES}: (\d+) of (\d+) files were fetched; (\d+) were not: ISIC", message
    ).groups()
    assert 0 < int(there) < int(wanted) == 8
    assert int(missing) == int(wanted) - int(there)
    assert len(list((fetch.store / TRAINING.images.name).glob("*"))) == int(there)
    assert f"{server.url}/{IMAGES}: the server answers 503" in message
    assert "run `dvc repro` again" in message
    assert f"put {IMAGES} ({len(FILES[IMAGES]):,} bytes)" in message
    assert "download.archives" in message


def test_no_network_is_one_message(fetch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(InputError) as caught:
            fetch(f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert "Connection refused" in caught.value.problems[0]
    assert "download.archives" in caught.value.problems[-1]
    assert not list(fetch.target.iterdir())


def test_a_wrong_body_is_named_and_the_rest_is_kept(fetch, server):
    chosen = choose_subset(names(range(30)), 6, 0)[3]
    spoiled = bytearray(FILES[IMAGES])
    spoiled[spoiled.index(photograph(int(chosen[5:]))) + 50] ^= 1
    server.files[IMAGES] = bytes(spoiled)
    with pytest.raises(InputError, match=rf"{IMAGES}: .*{chosen}\.jpg': its CRC-32 is"):
        fetch(server.url)
    assert len(list((fetch.store / TRAINING.images.name).glob("ISIC*"))) == 5
    assert not list(fetch.target.iterdir())


def test_a_full_disk_is_one_message_and_the_next_run_goes_on(fetch):
    files = official({"training": range(30)}, noise=3_000_000)
    with Server(files) as server:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
        try:
            with pytest.raises(InputError, match="no space left"):
                fetch(server.url, 3)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not list(fetch.store.rglob(".*.tmp"))
        assert len(fetch(server.url, 3)) == 3


def test_too_little_space_is_said_before_anything_is_fetched(fetch, server, monkeypatch):
    usage = isic2018.shutil.disk_usage(fetch.folder)._replace(free=1000)
    monkeypatch.setattr(isic2018.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="bytes are still to be fetched, but only 1,000 are free"):
        fetch(server.url)
    assert tree(fetch.store) == {}


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (MASKS, {"ISIC_0000003_segmentation.png": None}, "image ISIC_0000003 has no mask in .*GroundTruth"),
        (IMAGES, {"ISIC_0000004.jpg": None}, "mask ISIC_0000004 has no image in .*Input"),
        (IMAGES, {"../ISIC_0000099.jpg": b"x"}, "leads out of its directory"),
        (IMAGES, {"again/ISIC_0000001.jpg": b"x"}, "have the same id"),
        (IMAGES, {f"{name}.jpg": None for name in names(range(30))}, "mask ISIC_0000029 has no image"),
    ],
)
def test_archives_that_are_not_as_they_should_be_are_refused_before_anything_is_fetched(
    fetch, server, name, changed, message
):
    server.files[name] = rebuilt(name, changed)
    with pytest.raises(InputError, match=message):
        fetch(server.url)
    assert not list(fetch.target.iterdir())
    assert tree(fetch.store) == {}
    assert not list(fetch.folder.rglob("ISIC_0000099.jpg"))


def test_archives_without_samples_and_sets_that_share_a_pair_are_refused(fetch, server):
    server.files[IMAGES], server.files[MASKS] = archive("a", {}), archive("b", {})
    with pytest.raises(InputError, match=r"holds no ISIC_#######\.jpg"):
        fetch(server.url)
    server.files |= official({"training": range(30), "validation": range(29, 33)})
    with pytest.raises(InputError, match="ISIC_0000029 is in another set too"):
        fetch(server.url, test_set="validation")


def test_the_stage_hands_every_parameter_on(server, tmp_path):
    """stages/download.py with a mirror, then without any network from archives at hand."""
    repository = Path(__file__).parents[1]

    def run(**changed):
        group = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))["download"]
        group |= {"source": "isic2018", "limit": 5, "seed": 3, "test_set": "validation", "base_url": server.url}
        group |= changed
        runtime = {"device": "cpu", "workers": 2, "checkpoint_minutes": 1}
        (tmp_path / "params.yaml").write_text(json.dumps({"download": group, "runtime": runtime}))
        command = [sys.executable, str(repository / "stages/download.py")]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    def outputs():
        return tree(tmp_path / "data/raw")

    done = run()
    assert done.returncode == 0, done.stderr
    first = outputs()
    pairs = manifest.read(tmp_path / "data/raw")
    assert [pair.id for pair in pairs if pair.subset == "training"] == choose_subset(names(range(30)), 5, 3)
    assert [pair.id for pair in pairs if pair.subset == "validation"] == names(range(100, 105))
    assert {"ATTRIBUTION.txt", "LICENSE.txt", "manifest.csv"} <= set(first)
    (tmp_path / "mine").mkdir()
    for name, content in FILES.items():
        (tmp_path / "mine" / name).write_bytes(content)
    before = len(server.requests)
    assert run(archives="mine").returncode == 0
    assert outputs() == first
    assert len(server.requests) == before
    server.fault = lambda *_: Fault(status=404)
    failed = run()
    assert failed.returncode == 1
    assert f"download: error: {server.url}/{IMAGES}: the server answers 404" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert outputs() == first, "a failed download leaves what was there"


def test_the_table_is_that_of_the_challenge():
    assert [official_set.pairs for official_set in SETS.values()] == [2594, 100, 1000]
    archives = [a for official_set in SETS.values() for a in (official_set.images, official_set.masks)]
    assert len({a.sha256 for a in archives}) == len({a.name for a in archives}) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", a.sha256) for a in archives)
