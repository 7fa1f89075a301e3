"""The official ISIC 2018 Task 1 archives: only the chosen pairs are fetched, each verified, and never twice.

An archive is read from the user's folder (`archives`) if it is there, else from a server by byte range. Verified
members go to a store that outlives the run, under names that contain their CRC-32: a killed run is resumed, a larger
limit fetches only the difference, and if an archive changes on the server, its new files are fetched.

Cite Tschandl et al. 2018 (doi 10.1038/sdata.2018.161) and Codella et al. 2018 (arXiv 1902.03368).
"""

import errno
import hashlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.common.parallel import cores, ordered_map
from lesionseg.common.text import printable
from lesionseg.download import sums
from lesionseg.download.archive import LocalFile, Member, Unpacked, extract, read_directory
from lesionseg.download.http_range import RemoteFile, RetryPolicy, TransferError
from lesionseg.download.store import Store
from lesionseg.download.subset import choose_subset
from lesionseg.formats.manifest import Pair
from lesionseg.images.header import oriented_size

HOSTS = (
    "https://isic-archive.s3.amazonaws.com/challenges/2018/",
    "https://isic-challenge-data.s3.amazonaws.com/2018/",  # the older one, tried if the first fails
)


@dataclass(frozen=True)
class Archive:
    """One official file, `<name>.zip`."""

    name: str
    size: int
    sha256: str  # from two independent public downloaders, as the challenge publishes none


@dataclass(frozen=True)
class OfficialSet:
    images: Archive
    masks: Archive
    pairs: int


# fmt: off
SETS: Mapping[str, OfficialSet] = {
    "training": OfficialSet(
        Archive("ISIC2018_Task1-2_Training_Input", 11165358566,
                "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f"),
        Archive("ISIC2018_Task1_Training_GroundTruth", 27402895,
                "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c"), 2594),
    "validation": OfficialSet(
        Archive("ISIC2018_Task1-2_Validation_Input", 239231159,
                "0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797"),
        Archive("ISIC2018_Task1_Validation_GroundTruth", 759706,
                "f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285"), 100),
    "test": OfficialSet(
        Archive("ISIC2018_Task1-2_Test_Input", 2370457338,
                "e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d"),
        Archive("ISIC2018_Task1_Test_GroundTruth", 9680101,
                "2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82"), 1000),
}
# fmt: on

IMAGE = re.compile(r"(ISIC_\d{7})\.jpg", re.IGNORECASE)
MASK = re.compile(r"(ISIC_\d{7})_segmentation\.png", re.IGNORECASE)
NOTICES = ("ATTRIBUTION.txt", "LICENSE.txt")
LONGEST_NOTICE = 1 << 20  # bytes
MOST_NOTICES = 8  # of an archive
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = logging.getLogger(__name__)


TestSet = Literal["none", "validation", "test"]  # an official set to evaluate on besides


@dataclass(frozen=True)
class Choice:
    """Which pairs: `limit` of the training set (None: all), chosen by `seed`, and all of an official test set."""

    limit: int | None
    seed: int = 0
    test_set: TestSet = "none"


@dataclass(frozen=True)
class Origin:
    """Where archives come from: the folder `archives` if they are there, else a server."""

    archives: Path | None = None
    base_url: str | None = None  # None: the official host, then the older one
    allow_http: bool = False
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    sets: Mapping[str, OfficialSet] = field(default_factory=lambda: SETS)


def fetch(
    target: Path,
    choice: Choice,
    origin: Origin,
    *,
    work: Path,
    record: Path | None = None,
    workers: int | None = None,
) -> list[Pair]:
    """Fill `target` with the pairs of the `choice`, taken from the `origin` with `workers` requests at a time.

    Fetched files stay in `work`, and the next call fetches only what is missing. The SHA-256 of each file must agree
    with the file `record` (see `sums`); new ones are added to it when everything has arrived. Raises InputError for
    wrong or damaged archives, and if something could not be fetched, with what it was and how to go on.
    """
    archives, sets = origin.archives, origin.sets
    if archives is not None and not archives.is_dir():
        raise InputError(
            f"download.archives: {archives}: no such directory, expected one with archives like "
            f"{sets['training'].images.name}.zip; null to fetch them"
        )
    connections = workers or origin.policy.connections
    known = sums.read(record) if record else {}
    needed = {name: sets[name] for name in ("training", choice.test_set) if name != "none"}
    store = Store(work)
    plan, failures = None, []
    if archives is not None:
        _say_what_is_not_at_hand(archives, needed.values())
    try:
        for host in [origin.base_url] if origin.base_url else HOSTS:
            try:
                plan = _plan(_Places(origin, host).open_all(needed), choice, sets)
                damaged = _fill(store, plan, connections)
                if not damaged:
                    found = _verified(store, plan, known, record)
                    pairs = _place(target, store, plan, found)
                    if record:
                        _record(record, plan, found)
                    return pairs
                failures += damaged
            except TransferError as error:
                failures.append(str(error))
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        failures.append(f"{error.filename or store.folder}: no space left ({error.strerror}); free some")
    raise InputError([*failures, *_advice(store, plan, needed.values())])


@dataclass(frozen=True)
class _Source:
    """An archive that is open, with its directory."""

    archive: Archive
    file: LocalFile | RemoteFile | Unpacked
    members: Sequence[Member]

    @property
    def at_hand(self) -> bool:
        """Whether it is in the user's folder."""
        return not isinstance(self.file, RemoteFile)

    @property
    def genuine(self) -> bool:
        """Whether it is as long as the archive that was published."""
        return not isinstance(self.file, Unpacked) and self.file.size == self.archive.size


@dataclass(frozen=True)
class _Wanted:
    """What to fetch: (subset, id, image, mask) of every pair, and the members of every archive."""

    pairs: Sequence[tuple[str, str, tuple[Archive, Member], tuple[Archive, Member]]]
    parts: Sequence[tuple[_Source, Sequence[Member]]]


@dataclass(frozen=True)
class _Places:
    """An origin with one of its hosts: where to look for archives."""

    origin: Origin
    host: str

    def open_all(self, subsets: Mapping[str, OfficialSet]) -> dict[str, tuple[_Source, _Source]]:
        """(images, masks) of each subset, opened. Raises TransferError, and InputError for all that are no archives."""
        opened: dict[str, tuple[_Source, _Source]] = {}
        problems: list[str] = []
        for subset, needed in subsets.items():
            sources = []
            for archive in (needed.images, needed.masks):
                try:
                    sources.append(self.open(archive))
                except InputError as error:
                    problems += error.problems
            if len(sources) == 2:
                opened[subset] = sources[0], sources[1]
        if problems:
            raise InputError(problems)
        return opened

    def open(self, archive: Archive) -> _Source:
        path = _at_hand(self.origin.archives, archive) if self.origin.archives else None
        if path and path.is_dir():
            unpacked = Unpacked(path)
            return _Source(archive, unpacked, unpacked.members(lambda name: _is_sample(name) or name in NOTICES))
        file = _open_local(archive, path) if path else self._open_remote(archive)
        return _Source(archive, file, read_directory(file, str(file)))

    def _open_remote(self, archive: Archive) -> RemoteFile:
        host = urlsplit(self.host)  # a query, such as a signature, stays after the path
        path = f"{host.path.rstrip('/')}/{archive.name}.zip"
        file = RemoteFile(urlunsplit(host._replace(path=path)), self.origin.policy, allow_http=self.origin.allow_http)
        if self.origin.base_url is None and file.size != archive.size:
            raise TransferError(
                f"{file}: found {file.size} bytes, expected {archive.size}: not the archive that was published; "
                "name the host in download.base_url to use it anyway"
            )
        return file


def _at_hand(folder: Path, archive: Archive) -> Path | None:
    """The archive in the user's folder, or the folder it was unpacked to; also as a browser's "<name> (1).zip"."""
    pattern = re.compile(rf"{re.escape(archive.name)}( ?\(\d+\)|[-_ ]\d|[-_ ]copy)?(\.zip)?", re.IGNORECASE)
    found = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    found = [path for path in found if path.is_dir() or path.suffix.lower() == ".zip"]

    def fitness(path: Path) -> tuple:
        genuine = path.is_file() and path.stat().st_size == archive.size
        return not genuine, path.is_dir(), path.name != f"{archive.name}.zip", path.name

    return min(found, key=fitness, default=None)


def _say_what_is_not_at_hand(folder: Path, needed: Iterable[OfficialSet]) -> None:
    """Warn before a download that may take hours: perhaps the archives are elsewhere, or have another name."""
    archives = [archive for pair in needed for archive in (pair.images, pair.masks)]
    if absent := [archive for archive in archives if not _at_hand(folder, archive)]:
        listed = ", ".join(f"{archive.name}.zip ({archive.size:,} bytes)" for archive in absent)
        there = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        shown = printable(", ".join(there[:10]) + (", …" if len(there) > 10 else ""), 500) or "nothing"
        log.warning("download.archives: %s lacks %s, which will be downloaded; found there: %s", folder, listed, shown)


def _is_sample(name: str) -> re.Match | None:
    return IMAGE.fullmatch(name) or MASK.fullmatch(name)


def _open_local(archive: Archive, path: Path) -> LocalFile:
    """An archive on the disk. If it is as long as the official one its SHA-256 must agree, else there is a warning."""
    file = LocalFile(path)
    if file.size != archive.size:
        log.warning(
            "%s: %d bytes, the official archive has %d: checked by the CRC-32 of its own directory only",
            path,
            file.size,
            archive.size,
        )
        return file
    digest = hashlib.sha256()
    with tqdm(total=file.size, desc=f"check {path.name}", unit="B", unit_scale=True, disable=None) as bar:
        for piece in file.stream(0, file.size):
            digest.update(piece)
            bar.update(len(piece))
    if digest.hexdigest() != archive.sha256:
        raise InputError(
            f"{path}: found SHA-256 {digest.hexdigest()}, expected {archive.sha256}: it is damaged; get it again"
        )
    return file


def _plan(opened: Mapping[str, tuple[_Source, _Source]], choice: Choice, sets: Mapping[str, OfficialSet]) -> _Wanted:
    """Match the pairs by id and choose. Raises InputError for every id with only an image or only a mask."""
    problems, pairs, parts = [], [], []
    seen: set[str] = set()
    for subset, (images, masks) in opened.items():
        image, mask = _by_id(images, IMAGE), _by_id(masks, MASK)
        titles = str(images.file), str(masks.file)
        matched = image.keys() & mask.keys()
        for name in sorted(image.keys() - mask.keys()):
            problems.append(f"{titles[0]}: image {name} has no mask in {titles[1]}")
        for name in sorted(mask.keys() - image.keys()):
            problems.append(f"{titles[1]}: mask {name} has no image in {titles[0]}")
        if not image and not mask:
            problems.append(f"{titles[0]}: holds no ISIC_#######.jpg")
        if images.genuine and len(matched) != sets[subset].pairs:
            problems.append(f"{titles[0]}: found {len(matched)} pairs, expected {sets[subset].pairs}")
        problems += [f"{titles[0]}: {name} is in another set too" for name in sorted(matched & seen)]
        seen |= matched
        if problems:
            continue
        chosen = choose_subset(matched, choice.limit, choice.seed) if subset == "training" else sorted(matched)
        parts.append((images, [*(image[name] for name in chosen), *_notices(images)]))
        parts.append((masks, [*(mask[name] for name in chosen), *_notices(masks)]))
        pairs += [(subset, name, (images.archive, image[name]), (masks.archive, mask[name])) for name in chosen]
    if problems:
        raise InputError(problems)
    return _Wanted(pairs, parts)


def _by_id(source: _Source, pattern: re.Pattern) -> dict[str, Member]:
    """The samples among the members, by id; other members are ignored."""
    found: dict[str, Member] = {}
    problems = []
    for member in source.members:
        if match := pattern.fullmatch(member.file_name):
            name = match[1].upper()
            if name in found:
                problems.append(f"{source.file}: {found[name].name!r} and {member.name!r} have the same id")
            found[name] = member
    if problems:
        raise InputError(problems)
    return found


def _notices(source: _Source) -> list[Member]:
    """Attribution and licence, each text once even if several folders have it."""
    found: dict[tuple[str, int], Member] = {}
    for member in source.members:
        if member.file_name in NOTICES and member.size <= LONGEST_NOTICE:
            found.setdefault((member.file_name, member.crc), member)
    return list(found.values())[:MOST_NOTICES]


def _fill(store: Store, plan: _Wanted, connections: int) -> list[str]:
    """Fetch what the store lacks. Returns a line for every member that stays damaged."""
    missing = [(source, store.missing(source.archive.name, members)) for source, members in plan.parts]
    _require_space(store.folder, sum(member.size for _, members in missing for member in members))
    total, left = _packed(plan.parts), _packed(missing)
    damaged: list[str] = []
    lock = threading.Lock()
    with tqdm(total=total, initial=total - left, desc="fetch", unit="B", unit_scale=True, disable=None) as bar:

        def progress(count: int) -> None:
            with lock:  # tqdm is not thread-safe here
                bar.update(count)

        for source, members in missing:
            path_of = partial(store.path, source.archive.name)
            if isinstance(source.file, Unpacked):
                wrong = source.file.copy(members, path_of, progress)
            else:
                parallel = cores() if source.at_hand else connections
                wrong = extract(source.file, members, path_of, connections=parallel, progress=progress)
            damaged += [f"{source.file}: {member.name!r}: {problem}" for member, problem in wrong.items()]
    return damaged


def _verified(store: Store, plan: _Wanted, known: Mapping[str, str], record: Path | None) -> dict[str, str]:
    """The SHA-256 of every wanted file, by `<archive>/<file>`. Raises InputError for those not as recorded."""
    wanted = [(source, member) for source, members in plan.parts for member in members]

    def digest(item: tuple[_Source, Member]) -> str:
        return _sha256(store.path(item[0].archive.name, item[1]))

    found, problems = {}, []
    for (source, member), value in zip(wanted, ordered_map(digest, wanted, cores()), strict=True):
        name = f"{source.archive.name}/{member.file_name}"
        if value != known.get(name, value):
            store.path(source.archive.name, member).unlink()
            problems.append(
                f"{source.file}: {member.name!r}: found SHA-256 {value}, expected {known[name]} as recorded in "
                f"{record}: not the file that was fetched before; try another server, or, if the publisher of the data "
                "set has changed the file, remove its line"
            )
        found[name] = value
    if problems:
        raise InputError(problems)
    return found


def _record(path: Path, plan: _Wanted, found: Mapping[str, str]) -> None:
    """Record the sums of files from archives that are as long as the published ones."""
    genuine = {source.archive.name for source, _ in plan.parts if source.genuine}
    if number := sums.add(path, {name: value for name, value in found.items() if name.split("/")[0] in genuine}):
        log.warning(
            "%s: the SHA-256 of %d files are new; commit it, so that later downloads must agree with it", path, number
        )


def _place(target: Path, store: Store, plan: _Wanted, digests: Mapping[str, str]) -> list[Pair]:
    """Put the pairs into `target`, and clear the store of files that are also in the user's folder."""
    for name in ("images", "masks"):
        (target / name).mkdir(parents=True, exist_ok=True)

    def place(pair: tuple) -> Pair:
        subset, name, *taken = pair
        paths = (f"images/{name}.jpg", f"masks/{name}_segmentation.png")
        for path, (archive, member) in zip(paths, taken, strict=True):
            _link(store.path(archive.name, member), target / path)
        width, height = oriented_size(target / paths[0]) or (None, None)
        image, mask = (digests[f"{archive.name}/{member.file_name}"] for archive, member in taken)
        return Pair(name, *paths, width, height, image, mask, subset, "isic2018")

    pairs = sorted(ordered_map(place, plan.pairs, cores()), key=lambda pair: pair.id)
    _write_notices(target, store, plan)
    for source, members in plan.parts:
        if source.at_hand:
            for member in members:
                store.path(source.archive.name, member).unlink()
    return pairs


def _write_notices(target: Path, store: Store, plan: _Wanted) -> None:
    """Write the attribution and licence texts, each once, headed by the names of its archives if they differ."""
    for name in NOTICES:
        texts: dict[bytes, list[str]] = {}
        for source, members in plan.parts:
            archive = source.archive.name
            for member in members:
                if member.file_name == name:
                    texts.setdefault(store.path(archive, member).read_bytes(), []).append(archive)
        if len(texts) == 1:
            (target / name).write_bytes(next(iter(texts)))
        elif texts:
            parts = [f"{', '.join(names)}:\n\n".encode() + text.rstrip() + b"\n" for text, names in texts.items()]
            (target / name).write_bytes(b"\n\n".join(parts))


def _link(source: Path, target: Path) -> None:
    """A hard link if the file system supports it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _require_space(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{folder}: {needed:,} bytes are still to be fetched, but only {free:,} are free on its disk")


def _advice(store: Store, plan: _Wanted | None, needed: Iterable[OfficialSet]) -> list[str]:
    """What was fetched, what is missing, and how to go on."""
    lines = []
    for source, members in plan.parts if plan else ():
        absent = [member.file_name for member in members if not store.path(source.archive.name, member).is_file()]
        here = f"{source.archive.name}.zip: {len(members) - len(absent)} of {len(members)} files were fetched"
        if absent:
            names = absent[:5]
            lines.append(f"{here}; {len(absent)} were not: {', '.join(names)}{', …' if len(absent) > 5 else ''}")
        else:
            lines.append(here)
    archives = [archive for pair in needed for archive in (pair.images, pair.masks)]
    files = ", ".join(f"{archive.name}.zip ({archive.size:,} bytes)" for archive in archives)
    lines.append(f"to go on: run `dvc repro` again; what was fetched is in {store.folder} and not fetched again")
    lines.append(f"by hand: put {files} into a folder and name it in download.archives (from {HOSTS[0]})")
    return lines


def _packed(parts: Iterable[tuple[_Source, Sequence[Member]]]) -> int:
    return sum(member.packed for _, members in parts for member in members)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
