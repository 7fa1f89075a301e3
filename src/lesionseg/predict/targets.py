"""Which photographs to predict, what to call their results, and that these replace no file but our own."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lesionseg.common.errors import InputError
from lesionseg.images.naming import EXTENSIONS

# Photographs too, of formats that are not read: each is named as such, where a folder of a phone would seem to be done.
NOT_READ = (".heic", ".heif", ".avif", ".dng", ".dcm", ".jp2", ".jxl")
TABLE, RECORD, COCO = "lesions.csv", "run.json", "coco.json"
ENDINGS = {  # of the files of one photograph, after its name
    "segmentation": "_segmentation.png",
    "overlay": "_overlay.jpg",
    "probabilities": "_probabilities.png",
    "numbers": "_probabilities.npy",
    "outlines": "_outlines.geojson",
}

Targets = Mapping[Path, Mapping[str, Path]]  # photograph -> kind, a key of ENDINGS -> file


def find_photographs(photographs: Sequence[Path], output: Path) -> dict[Path, Path]:
    """The files to predict and the names of their results: `photographs` are files, or folders with all images below.

    A name is the path below the folder without its extension; with extension and folder where names would clash. An
    output directory inside such a folder is skipped, and so is what is hidden, such as the `._a.jpg` that a Mac leaves
    beside a photograph. Raises InputError for every path that does not exist.
    """
    below: dict[Path, Path] = {}  # file -> the folder that its name is relative to
    problems = []
    for path in photographs:
        if path.is_dir():
            if path.resolve() == output.resolve():
                problems.append(
                    f"--output: {output} is the folder of the photographs; name another, such as {output}/masks"
                )
                continue
            files = sorted(file for file in path.rglob("*") if _is_photograph(file, path))
            if path.resolve() in output.resolve().parents:
                files = [file for file in files if output.resolve() not in file.resolve().parents]
            below |= {file: path for file in files if file not in below}
            if not files:
                problems.append(f"{path}: no image in it ({', '.join(EXTENSIONS)})")
        elif path.exists():
            below.setdefault(path, path.parent)
        else:
            problems.append(f"{path}: no such file or directory")
    if problems:
        raise InputError(problems)
    short = {path: _without_extension(path.relative_to(folder)) for path, folder in below.items()}
    times = Counter(short.values())
    return {
        path: short[path] if times[short[path]] == 1 else Path(folder.resolve().name, path.relative_to(folder))
        for path, folder in below.items()
    }


def _is_photograph(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in (*EXTENSIONS, *NOT_READ) and not hidden and not file.is_dir()


def _without_extension(path: Path) -> Path:
    """With it where the file is not read anyway: it shall not clash with the JPEG that was made of it."""
    return path if path.suffix.lower() in NOT_READ else path.with_suffix("")


def targets(names: Mapping[Path, Path], output: Path, kinds: Iterable[str]) -> Targets:
    """The files to write for each photograph."""
    return {path: {kind: output / f"{name}{ENDINGS[kind]}" for kind in kinds} for path, name in names.items()}


def check(output: Path, wanted: Targets, of_the_set: Sequence[str], inputs: Iterable[Path]) -> None:
    """Raise InputError where a file to write is an input, would be written twice, or exists and is not this command's.

    Only files that an earlier run.json lists are replaced. `of_the_set`: names of the files that all photographs share.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output: {output} is a file, expected a directory")
    ours = {path.resolve() for path in written_before(output)}
    photographs, others = {path.resolve() for path in wanted}, {path.resolve() for path in inputs}
    files = [path for kinds in wanted.values() for path in kinds.values()]
    problems, seen = [], set()
    for path in [*files, *(output / name for name in of_the_set)]:
        where = path.resolve()
        if where in photographs:
            problems.append(f"{path}: is one of the photographs and would be replaced; choose another --output")
        elif where in others:
            problems.append(f"{path}: is one of the true masks and would be replaced; choose another --output")
        elif where in seen:
            problems.append(f"{path}: two photographs would get this name; rename one")
        elif path.exists() and where not in ours:
            problems.append(f"{path}: exists and is not from an earlier run of this command; choose another --output")
        seen.add(where)
    if problems:
        raise InputError(problems)


def outdated(names: Mapping[Path, Path], output: Path, kinds: Iterable[str]) -> list[Path]:
    """Files that earlier runs wrote for these photographs and this one does not (`kinds`): they would lie beside masks
    that they do not belong to. So would the table and coco.json, if this run is killed before it writes its own."""
    others = ENDINGS.keys() - set(kinds)
    left = {path for files in targets(names, output, others).values() for path in files.values()}
    left |= {output / TABLE, output / COCO}
    return [path for path in dict.fromkeys(written_before(output)) if path in left and path.is_file()]


def half_written(output: Path) -> list[Path]:
    """Temporary files that a run left when it was killed, named as `common.files.atomic` does."""
    ours = set(written_before(output))
    return [path for path in output.rglob(".*.*.tmp") if path.with_name(path.name[1:].rsplit(".", 2)[0]) in ours]


def written_before(output: Path) -> list[Path]:
    """The files in `output` that earlier runs wrote, by run.json; none if that is missing or not ours.

    Paths outside `output` are ignored: the folder may be a stranger's, unpacked."""
    try:
        names = json.loads((output / RECORD).read_text(encoding="utf-8"))["written"]
        files = [output / name for name in (*names, TABLE, RECORD)]
        inside = output.resolve()
        return [path for path in files if path.resolve().is_relative_to(inside) and path.is_relative_to(output)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
